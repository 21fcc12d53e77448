//! Workers that are told to stop while they are at work: in time, with nothing lost, nothing counted
//! as a failure, and no process left.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::scenario::{Program, Scenario, Setup, ask, call, eventually, puppet, runs, said, with};
use crate::stub_model::Reply;

/// A model that leaves the first question of each job unanswered until the test lets it go, and
/// answers the second one.
fn slow_at_first(gate: &Arc<Semaphore>) -> impl Fn(&Value) -> Reply + Send + Sync + 'static {
    let (gate, asked) = (Arc::clone(gate), Mutex::new(HashSet::new()));
    move |request| {
        let is_first = asked
            .lock()
            .unwrap()
            .insert(request["messages"].to_string());
        let reply = Reply::text("done");
        if is_first { reply.when(&gate) } else { reply }
    }
}

/// Waits until a worker that was told to stop has ended, and how long that took.
async fn ends_in_good_order(worker: &Program) -> Duration {
    let begin = Instant::now();
    assert_eq!(worker.ended().await.code(), Some(0));
    begin.elapsed()
}

/// The processes of the tool servers that were started so far.
fn children(s: &Scenario) -> Vec<i32> {
    let pids = s.lines("starts.log");
    pids.iter().map(|pid| pid.parse().unwrap()).collect()
}

/// What holds after any number of stops in good order: every job ended once, and none failed.
async fn nothing_was_lost_or_counted(s: &Scenario, jobs: usize) {
    let row = s
        .row("SELECT count(*) AS jobs, count(finished_at) AS ended, sum(failures) AS failures, count(*) FILTER (WHERE status = 'completed') AS completed FROM chat.jobs")
        .await;
    assert_eq!(
        row,
        json!({"jobs": jobs, "ended": jobs, "failures": 0, "completed": jobs})
    );
    let ends = "SELECT DISTINCT coalesce(outcome, 'under way') AS outcome FROM chat.attempts WHERE outcome IS DISTINCT FROM 'completed' AND outcome IS DISTINCT FROM 'given_back'";
    assert_eq!(s.rows(ends).await, Vec::<Value>::new());
    assert!(s.results_so_far().await.is_empty(), "a job was told twice");
    assert_eq!(s.rows("SELECT * FROM chat.dead_letters").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopping_worker_cannot_end_in_time_is_ended_by_another() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .calc()
        .replicas(2)
        .set("CHAT_DRAIN_SECS", "3")
        .model(slow_at_first(&gate))
        .run(async |s| {
            let mut ids = Vec::new();
            for number in 0..12 {
                ids.push(s.send(&ask(&format!("{number}"))).await);
            }
            s.model.arrived(12).await;
            let stopping = s.worker();
            let mut interrupted = Vec::new();
            for id in &ids {
                if s.worker_of(id).await.pid() == stopping.pid() {
                    interrupted.push(id);
                }
            }
            assert!((1..12).contains(&interrupted.len()), "both have some");
            stopping.signal(Signal::TERM);
            let took = ends_in_good_order(&stopping).await;
            assert!(took < Duration::from_secs(5), "{took:?}");
            for id in &interrupted {
                let result = s.result_of(id).await.json();
                assert_eq!(
                    (&result["status"], &result["attempt"]),
                    (&json!("completed"), &json!(2))
                );
                let expected = ["given_back", "completed"].map(|end| (end.to_owned(), None));
                assert_eq!(s.runs_of(id).await, expected);
            }
            gate.add_permits(12);
            for id in ids.iter().filter(|id| !interrupted.contains(id)) {
                assert_eq!(s.result_of(id).await.json()["attempt"], 1);
            }
            nothing_was_lost_or_counted(s, 12).await;
            // Its calls were dropped, and none but its own.
            assert_eq!(s.model.hang_ups(), interrupted.len());
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_that_stop_under_load_leave_no_process_and_lose_nothing() {
    let setup = Setup::new()
        .calc_with(&json!({"pool": {"size": 3}}))
        .replicas(2)
        .set("CHAT_DRAIN_SECS", "3")
        .set("CHAT_CONCURRENCY", "8")
        .model(puppet);
    setup
        .run(async |s| {
            let quick = call(&[("calc__add", json!({"a": 1, "b": 2}))]);
            let long = call(&[("calc__sleep", json!({"ms": 20_000}))]);
            let mut ids = Vec::new();
            for number in 0..60 {
                let job = if number % 10 == 9 { &long } else { &quick };
                ids.push(s.send(job).await);
            }
            eventually("calls that take long", async || {
                (s.lines("calc.log").len() >= 2).then_some(())
            })
            .await;
            let workers = s.workers();
            for worker in &workers {
                worker.signal(Signal::TERM);
            }
            for worker in &workers {
                let took = ends_in_good_order(worker).await;
                assert!(took < Duration::from_secs(5), "{took:?}");
            }
            let pids = children(s);
            assert!(pids.len() > 2);
            for pid in pids {
                assert!(!runs(pid), "the tool server {pid} was left behind");
            }
            let running = "SELECT * FROM chat.jobs WHERE status = 'running'";
            assert_eq!(s.rows(running).await, Vec::<Value>::new());
            s.start_worker_with(&[("CHAT_CONCURRENCY", "64")]).await;
            for id in &ids {
                assert_eq!(s.result_of(id).await.json()["status"], "completed");
            }
            nothing_was_lost_or_counted(s, 60).await;
        })
        .await;
}

/// A job that is in a call of `calc__sleep` of this length when its worker stops, and goes on on
/// another one.
async fn stopped_in_a_call(s: &Scenario, ms: u64) -> String {
    let id = s.send(&call(&[("calc__sleep", json!({"ms": ms}))])).await;
    eventually("a call that sleeps", async || {
        (!s.lines("calc.log").is_empty()).then_some(())
    })
    .await;
    let stopping = s.worker_of(&id).await;
    stopping.signal(Signal::TERM);
    stopping.log_says("stopping: running jobs may end").await;
    let took = ends_in_good_order(&stopping).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    let calls = s.tool_calls(&id).await;
    assert_eq!(calls.len(), 1);
    id
}

fn with_class(class: &str) -> Setup {
    Setup::new()
        .calc_with(&json!({"on_interrupt": class}))
        .model(puppet)
        .set("CHAT_DRAIN_SECS", "1")
        .replicas(2)
}

fn noted(s: &Scenario, line: &str) -> usize {
    s.lines("calc.log").iter().filter(|it| *it == line).count()
}

#[tokio::test]
async fn a_call_under_way_at_a_stop_is_told_as_of_unknown_outcome() {
    with_class("tell")
        .run(async |s| {
            let id = stopped_in_a_call(s, 60_000).await;
            let result = s.result_of(&id).await.json();
            let told = result["message"]["content"].as_str().unwrap();
            assert!(told.contains("interrupted"), "{told}");
            let calls = s.tool_calls(&id).await;
            assert_eq!(
                (&calls[0]["status"], &calls[0]["result"]),
                (&json!("interrupted"), &json!(told))
            );
            assert_eq!(said(&s.last_prompt(), "tool"), [told]);
            assert_eq!((noted(s, "sleeping"), noted(s, "cancelled")), (1, 1));
            // The answer that asks for it was paid for once.
            assert_eq!(s.model.requests().len(), 2);
            nothing_was_lost_or_counted(s, 1).await;
        })
        .await;
}

#[tokio::test]
async fn a_call_under_way_at_a_stop_is_made_again_where_that_is_harmless() {
    with_class("retry")
        .run(async |s| {
            let id = stopped_in_a_call(s, 3_000).await;
            let result = s.result_of(&id).await.json();
            assert_eq!(result["message"]["content"], "slept 3000 ms");
            let calls = s.tool_calls(&id).await;
            assert_eq!(
                (&calls[0]["status"], &calls[0]["attempt"]),
                (&json!("succeeded"), &json!(2))
            );
            assert_eq!((noted(s, "sleeping"), noted(s, "cancelled")), (2, 1));
            assert_eq!(s.model.requests().len(), 2);
            nothing_was_lost_or_counted(s, 1).await;
        })
        .await;
}

#[tokio::test]
async fn a_call_under_way_at_a_stop_ends_the_job_where_it_must_not_be_unknown() {
    with_class("fail")
        .run(async |s| {
            let id = stopped_in_a_call(s, 60_000).await;
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (
                    &result["status"],
                    &result["error"]["code"],
                    &result["attempt"]
                ),
                (&json!("failed"), &json!("tools_unavailable"), &json!(2))
            );
            assert_eq!(s.tool_calls(&id).await[0]["status"], "interrupted");
            assert_eq!((noted(s, "sleeping"), noted(s, "cancelled")), (1, 1));
            assert_eq!(s.model.requests().len(), 1);
        })
        .await;
}

#[tokio::test]
async fn calls_that_came_back_before_a_stop_are_not_made_again() {
    with_class("tell")
        .run(async |s| {
            let job = call(&[
                ("calc__append", json!({"line": "one"})),
                ("calc__sleep", json!({"ms": 60_000})),
                ("calc__append", json!({"line": "three"})),
            ]);
            let id = s.send(&job).await;
            eventually("all calls", async || {
                (s.lines("calc.log").len() == 3).then_some(())
            })
            .await;
            let stopping = s.worker_of(&id).await;
            assert!(stopping.stop().await.success());
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (&result["attempt"], &result["tool_calls"]),
                (&json!(2), &json!(3))
            );
            let calls = s.tool_calls(&id).await;
            let statuses: Vec<_> = calls.iter().map(|call| &call["status"]).collect();
            assert_eq!(statuses, ["succeeded", "interrupted", "succeeded"]);
            assert_eq!((noted(s, "one"), noted(s, "three")), (1, 1));
            nothing_was_lost_or_counted(s, 1).await;
        })
        .await;
}

/// Whatever ends the tool servers, what a call comes to because of that is no outcome of it.
#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_stores_nothing_untrue() {
    Setup::new()
        .calc()
        .model(puppet)
        .set("CHAT_DRAIN_SECS", "600")
        .run(async |s| {
            let job = call(&[("calc__sleep", json!({"ms": 60_000}))]);
            let id = s.send(&job).await;
            eventually("a call that sleeps", async || {
                (!s.lines("calc.log").is_empty()).then_some(())
            })
            .await;
            let worker = s.worker();
            worker.signal(Signal::TERM);
            worker.log_says("stopping: running jobs may end").await;
            worker.signal(Signal::INT);
            let took = ends_in_good_order(&worker).await;
            assert!(took < Duration::from_secs(3), "{took:?}");
            for pid in children(s) {
                assert!(!runs(pid), "the tool server {pid} was left behind");
            }
            let calls = s.tool_calls(&id).await;
            assert_eq!(
                (&calls[0]["result"], &calls[0]["finished_at"]),
                (&Value::Null, &Value::Null),
                "{calls:?}"
            );
            assert_eq!(s.job(&id).await["finished_at"], Value::Null);
            s.start_worker().await;
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (&result["status"], &result["attempt"]),
                (&json!("completed"), &json!(2))
            );
            let told = result["message"]["content"].as_str().unwrap();
            assert!(told.contains("interrupted"), "{told}");
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_worker_without_time_gives_its_jobs_up_at_once_and_without_a_failure() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .replicas(2)
        .set("CHAT_DRAIN_SECS", "0")
        .model(slow_at_first(&gate))
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            let stopping = s.worker_of(&id).await;
            stopping.signal(Signal::TERM);
            let took = ends_in_good_order(&stopping).await;
            assert!(took < Duration::from_secs(2), "{took:?}");
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (&result["status"], &result["attempt"]),
                (&json!("completed"), &json!(2))
            );
            assert_eq!(s.job(&id).await["failures"], 0);
        })
        .await;
}

#[tokio::test]
async fn a_job_that_is_called_off_while_its_worker_stops_is_cancelled() {
    Setup::new()
        .set("CHAT_DRAIN_SECS", "30")
        .replies([Reply::never()])
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            let worker = s.worker();
            worker.signal(Signal::TERM);
            worker.log_says("stopping: running jobs may end").await;
            s.cancel(&id, "after all").await;
            assert_eq!(s.result_of(&id).await.json()["status"], "cancelled");
            let took = ends_in_good_order(&worker).await;
            assert!(took < Duration::from_secs(3), "{took:?}");
        })
        .await;
}

#[tokio::test]
async fn a_worker_stops_in_time_without_its_database_too() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .calc()
        .set("CHAT_DRAIN_SECS", "2")
        .replies([
            Reply::text("lost").when(&gate),
            Reply::text("quick"),
            Reply::text("stored"),
        ])
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            let worker = s.worker();
            s.answer(&ask("y")).await;
            // Most likely before this result is marked as published.
            s.open_database(false).await;
            gate.add_permits(1);
            worker.log_says("the database is out of reach").await;
            worker.signal(Signal::TERM);
            let took = ends_in_good_order(&worker).await;
            assert!(took < Duration::from_secs(4), "{took:?}");
            for pid in children(s) {
                assert!(!runs(pid), "the tool server {pid} was left behind");
            }
            s.open_database(true).await;
            s.start_worker().await;
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (&result["message"]["content"], &result["attempt"]),
                (&json!("stored"), &json!(2))
            );
        })
        .await;
}

/// A rolling restart: one worker after the other is told to stop, and another takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing_and_counts_no_failure() {
    const JOBS: usize = 120;
    let slow = |request: &Value| puppet(request).after(Duration::from_millis(150));
    let setup = Setup::new()
        .calc()
        .replicas(2)
        .set("CHAT_DRAIN_SECS", "2")
        .set("CHAT_CONCURRENCY", "6")
        .model(slow);
    setup
        .run(async |s| {
            let quick = call(&[("calc__add", json!({"a": 1, "b": 2}))]);
            let long = call(&[("calc__sleep", json!({"ms": 2_500}))]);
            let conversations: Vec<_> = (0..6).map(|_| uuid::Uuid::new_v4().to_string()).collect();
            let sending = async {
                let mut ids = Vec::new();
                for number in 0..JOBS {
                    let job = if number % 20 == 7 { &long } else { &quick };
                    let talk = conversations.get(number % 12);
                    let job = talk.map_or_else(
                        || job.clone(),
                        |talk| with(job.clone(), "conversation_id", talk.as_str()),
                    );
                    ids.push(s.send(&job).await);
                    s.model.arrived(number).await;
                }
                ids
            };
            let restarting = async {
                for (number, worker) in s.workers().into_iter().enumerate() {
                    s.model.arrived(30 + number * 40).await;
                    worker.signal(Signal::TERM);
                    let took = ends_in_good_order(&worker).await;
                    assert!(took < Duration::from_secs(4), "{took:?}");
                    s.start_worker().await;
                }
            };
            let (ids, ()) = tokio::join!(sending, restarting);
            for id in &ids {
                assert_eq!(s.result_of(id).await.json()["status"], "completed");
            }
            nothing_was_lost_or_counted(s, JOBS).await;
            let turns = "SELECT count(*) AS wrong FROM (SELECT lag(finished_at) OVER (PARTITION BY conversation_id ORDER BY turn) > finished_at AS it FROM chat.jobs) AS t WHERE it";
            assert_eq!(s.row(turns).await["wrong"], 0);
            for pid in children(s) {
                let is_ours = s.workers().iter().skip(2).any(|worker| is_child_of(pid, worker.pid()));
                assert!(!runs(pid) || is_ours, "the tool server {pid} was left behind");
            }
        })
        .await;
}

fn is_child_of(pid: i32, parent: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
    let word = rest.and_then(|rest| rest.split(' ').nth(1).map(str::to_owned));
    word.is_some_and(|word| word == parent.to_string())
}

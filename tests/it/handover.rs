//! Jobs that go from one worker to another, and messages that have to be sent again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::scenario::{Properties, Scenario, Setup, ask, eventually, with};
use crate::stub_model::Reply;

/// A model that answers jobs that say `long` when the test lets it.
fn long_and_short(gate: &Arc<Semaphore>) -> impl Fn(&Value) -> Reply + Send + Sync + 'static {
    let gate = Arc::clone(gate);
    move |request| {
        let reply = Reply::text("done");
        if request["messages"].to_string().contains("long") {
            reply.when(&gate)
        } else {
            reply
        }
    }
}

#[tokio::test]
async fn a_busy_worker_keeps_nothing_from_an_idle_one() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .model(long_and_short(&gate))
        .replicas(2)
        .set("CHAT_CONCURRENCY", "1")
        .run(async |s| {
            // Both are busy; to each of them jobs are sent ahead.
            let long = [s.send(&ask("long")).await, s.send(&ask("long")).await];
            s.model.arrived(2).await;
            let mut short = Vec::new();
            for _ in 0..4 {
                short.push(s.send(&ask("short")).await);
            }
            let begin = Instant::now();
            // One of them has time now; the other has what was sent ahead to it.
            gate.add_permits(1);
            for id in &short {
                assert_eq!(s.result_of(id).await.json()["status"], "completed");
            }
            let took = begin.elapsed();
            assert!(took < Duration::from_secs(3), "{took:?}");
            gate.add_permits(1);
            for id in &long {
                s.result_of(id).await;
            }
            let once = "SELECT id FROM chat.jobs WHERE attempt <> 1";
            assert_eq!(s.rows(once).await, Vec::<Value>::new());
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn what_waits_for_a_busy_worker_goes_to_one_that_starts() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .model(long_and_short(&gate))
        .set("CHAT_CONCURRENCY", "2")
        .run(async |s| {
            let long = [s.send(&ask("long")).await, s.send(&ask("long")).await];
            s.model.arrived(2).await;
            let talk = Uuid::new_v4().to_string();
            let of = |text| with(ask(text), "conversation_id", talk.as_str());
            let turns = [s.send(&of("short 1")).await, s.send(&of("short 2")).await];
            // Handed over one has its turn, and the other one waits for it.
            let stored = "SELECT string_agg(status::text, ' ' ORDER BY turn) AS it FROM chat.jobs WHERE attempt = 0";
            s.row_where(stored, |row| row["it"] == "queued waiting").await;
            s.start_worker().await;
            for id in &turns {
                assert_eq!(s.result_of(id).await.json()["attempt"], 1);
            }
            gate.add_permits(2);
            for id in &long {
                s.result_of(id).await;
            }
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

/// A worker whose slots come free one by one is busy too.
#[tokio::test]
async fn what_was_sent_ahead_to_a_worker_that_gets_on_slowly_goes_to_an_idle_one() {
    let gate = Arc::new(Semaphore::new(0));
    let long = long_and_short(&gate);
    let model = move |request: &Value| {
        let is_slow = request["messages"].to_string().contains("slow");
        let reply = long(request);
        if is_slow {
            reply.after(Duration::from_secs(1))
        } else {
            reply
        }
    };
    let setup = Setup::new().model(model).set("CHAT_CONCURRENCY", "10");
    setup
        .run(async |s| {
            for _ in 0..9 {
                s.send(&ask("long")).await;
            }
            s.model.arrived(9).await;
            let mut slow = Vec::new();
            for _ in 0..11 {
                slow.push(s.send(&ask("slow")).await);
            }
            s.start_worker().await;
            let idle = s.row("SELECT now()::text AS since").await;
            for id in &slow {
                s.result_of(id).await;
            }
            let late = format!(
                "SELECT extract(epoch FROM max(started_at) - '{}')::double precision AS seconds FROM chat.jobs",
                idle["since"].as_str().unwrap()
            );
            let late = s.row(late).await["seconds"].as_f64().unwrap();
            assert!(late < 3.0, "the last one was begun {late} s after there was an idle worker");
            gate.add_permits(9);
        })
        .await;
}

#[tokio::test]
async fn a_worker_that_was_busy_has_as_much_sent_ahead_again_as_it_has_slots() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .model(long_and_short(&gate))
        .set("CHAT_CONCURRENCY", "8")
        .set("RUST_LOG", "chat_worker::broker=debug,chat_worker=info")
        .run(async |s| {
            for _ in 0..8 {
                s.send(&ask("long")).await;
            }
            s.model.arrived(8).await;
            // The ninth is handed over, and taken again when the first slot is free.
            let handed_over = s.send(&ask("short")).await;
            s.job_where(&handed_over, |row| row["status"] == "queued")
                .await;
            gate.add_permits(1);
            s.result_of(&handed_over).await;
            s.worker().log_says(".jobs\" prefetch=1").await;
            gate.add_permits(7);
            let ended = "SELECT count(*) AS jobs FROM chat.jobs WHERE status = 'completed'";
            s.row_where(ended, |row| row["jobs"] == 9).await;
            let at_start = s.worker().log().matches(".jobs\" prefetch=8").count();
            assert_eq!(at_start, 1);
            eventually("a wider prefetch", async || {
                s.answer(&ask("short")).await;
                let wide = ["7", "8"].map(|prefetch| format!(".jobs\" prefetch={prefetch}"));
                let log = s.worker().log();
                let times: usize = wide
                    .iter()
                    .map(|line| log.matches(line.as_str()).count())
                    .sum();
                (times > 1).then_some(())
            })
            .await;
        })
        .await;
}

/// A job that is marked queued, and whose wake-up got lost.
async fn without_its_wake_up(s: &Scenario, gate: &Semaphore) -> String {
    let long = s.send(&ask("long")).await;
    s.model.arrived(1).await;
    // The only slot is taken, so that nobody reads the queue any more.
    let id = s.send(&ask("short")).await;
    s.job_where(&id, |row| row["status"] == "queued").await;
    s.purge("jobs", 1).await;
    gate.add_permits(1);
    s.result_of(&long).await;
    id
}

#[tokio::test]
async fn a_wake_up_that_got_lost_is_sent_again() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .model(long_and_short(&gate))
        .set("CHAT_CONCURRENCY", "1")
        .run(async |s| {
            let id = without_its_wake_up(s, &gate).await;
            let row = s.job(&id).await;
            assert_eq!(
                (&row["status"], &row["attempt"]),
                (&json!("queued"), &json!(0))
            );
            let due = s.seconds(&id, "now()", "due_at").await;
            assert!((0.0..=60.0).contains(&due), "it is due in {due} s");
            s.make_due(&id).await;
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (&result["status"], &result["attempt"]),
                (&json!("completed"), &json!(1))
            );
            assert_eq!(s.job(&id).await["wake_ups"], 0);
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn wake_ups_that_get_lost_again_and_again_are_sent_more_and_more_rarely() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .model(long_and_short(&gate))
        .set("CHAT_CONCURRENCY", "1")
        .run(async |s| {
            let long = s.send(&ask("long")).await;
            s.model.arrived(1).await;
            let id = s.send(&ask("short")).await;
            s.job_where(&id, |row| row["status"] == "queued").await;
            s.purge("jobs", 1).await;
            for (time, minutes) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
                s.make_due(&id).await;
                s.job_where(&id, |row| row["wake_ups"] == time).await;
                let due = s.seconds(&id, "now()", "due_at").await;
                let at_most = f64::from(60 * minutes);
                assert!((at_most - 10.0..=at_most).contains(&due), "{due} s");
                s.purge("jobs", 1).await;
            }
            // The mark alone is no wake-up; a delivery of the job itself is as good.
            let job = with(ask("short"), "job_id", id.as_str());
            s.send(&job).await;
            gate.add_permits(1);
            s.result_of(&long).await;
            assert_eq!(s.result_of(&id).await.json()["attempt"], 1);
        })
        .await;
}

#[tokio::test]
async fn too_many_wake_ups_run_a_job_once() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .model(long_and_short(&gate))
        .replicas(2)
        .run(async |s| {
            let id = s.send(&ask("long")).await;
            s.model.arrived(1).await;
            let wake_up = async || {
                for _ in 0..20 {
                    let properties = Properties::default()
                        .with_message_id(id.as_str().into())
                        .with_type("chat.wake".into());
                    s.send_bytes(b"", properties).await;
                }
            };
            wake_up().await;
            let unknown = Properties::default()
                .with_message_id(Uuid::new_v4().to_string().into())
                .with_type("chat.wake".into());
            s.send_bytes(b"", unknown).await;
            gate.add_permits(1);
            assert_eq!(s.result_of(&id).await.json()["attempt"], 1);
            wake_up().await;
            // A wake-up is never answered, whoever reads it.
            s.answer(&ask("short")).await;
            s.answer(&ask("short")).await;
            assert!(s.results_so_far().await.is_empty());
            assert_eq!(s.model.requests().len(), 3);
            assert_eq!(s.rows("SELECT * FROM chat.dead_letters").await.len(), 0);
        })
        .await;
}

#[tokio::test]
async fn a_result_that_is_stored_and_not_known_to_be_published_is_published_again() {
    Setup::new()
        .replicas(2)
        .model(|_| Reply::text("done"))
        .run(async |s| {
            let queue = s.broker.declare(&s.name("reply.mine")).await;
            let inbox = s.broker.consume(&queue).await;
            let properties = Properties::default()
                .with_reply_to(queue.as_str().into())
                .with_correlation_id("mine".into());
            let mine = s.send_with(&ask("x"), properties).await;
            let first = inbox.next().await;
            let other = s.send(&ask("y")).await;
            let second = s.result_of(&other).await;
            for id in [&mine, &other] {
                s.job_where(id, |row| !row["result_published_at"].is_null())
                    .await;
            }
            // As after a crash between the end and the publish.
            s.sql("UPDATE chat.jobs SET result_published_at = NULL, publish_due_at = now()")
                .await;
            let (again, other_again) = (inbox.next().await, s.result_of(&other).await);
            for (before, after) in [(&first, &again), (&second, &other_again)] {
                assert_eq!(before.message_id(), after.message_id());
                assert_eq!(before.correlation_id(), after.correlation_id());
                assert_eq!(
                    before.header("x-chat-status"),
                    after.header("x-chat-status")
                );
                assert_eq!(before.json(), after.json());
            }
            for id in [&mine, &other] {
                s.job_where(id, |row| !row["result_published_at"].is_null())
                    .await;
            }
            assert_eq!(s.model.requests().len(), 2);
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn hundreds_of_unpublished_results_get_out_once_each() {
    const JOBS: usize = 450;
    Setup::new()
        .replicas(2)
        .model(|_| Reply::text("done"))
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.result_of(&id).await;
            s.job_where(&id, |row| !row["result_published_at"].is_null())
                .await;
            // Copies of the one that ran, each in a conversation of its own.
            s.sql(format!(
                "WITH copies AS (SELECT gen_random_uuid() AS id FROM generate_series(1, {JOBS})),
                      talks AS (INSERT INTO chat.conversations (id, user_id, turns) SELECT id, 'user-42', 1 FROM copies)
                 INSERT INTO chat.jobs (id, conversation_id, turn, user_id, status, request, request_hash, attempt, reply, finish_reason, finished_at, publish_due_at)
                 SELECT copies.id, copies.id, 1, user_id, status, request, request_hash, attempt, reply, finish_reason, finished_at, now()
                 FROM chat.jobs, copies WHERE chat.jobs.id = '{id}'"
            ))
            .await;
            let results = s.results().await;
            let mut ids = std::collections::HashSet::new();
            while ids.len() < JOBS {
                assert!(ids.insert(results.next().await.message_id()), "one was told twice");
            }
            let left = "SELECT count(*) AS left FROM chat.jobs WHERE result_published_at IS NULL";
            s.row_where(left, |row| row["left"] == 0).await;
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

/// Stores a job as only rows know it: no message was ever published for it.
async fn store_silently(s: &Scenario, status: &str, turn: Option<u32>) -> String {
    let id = Uuid::new_v4().to_string();
    let request = ask("x").to_string().replace('\'', "''");
    let turn = turn.map_or_else(|| "NULL".to_owned(), |turn| turn.to_string());
    let reason = if status == "waiting" {
        "'schedule'"
    } else {
        "NULL"
    };
    s.sql(format!("INSERT INTO chat.conversations (id, user_id, turns) VALUES ('{id}', 'user-42', coalesce({turn}, 0))")).await;
    s.sql(format!(
        "INSERT INTO chat.jobs (id, conversation_id, turn, user_id, status, wait_reason, due_at, request)
         VALUES ('{id}', '{id}', {turn}, 'user-42', '{status}', {reason}, now() + interval '1 s', '{request}')"
    ))
    .await;
    id
}

#[tokio::test]
async fn a_job_without_any_message_runs_when_it_is_due() {
    Setup::new()
        .replicas(2)
        .model(|_| Reply::text("done"))
        .run(async |s| {
            for (status, turn) in [("queued", Some(1)), ("queued", None), ("waiting", None)] {
                let id = store_silently(s, status, turn).await;
                let due = s.job(&id).await["due_at"].as_str().unwrap().to_owned();
                let result = s.result_of(&id).await.json();
                assert_eq!(
                    (&result["status"], &result["turn"], &result["attempt"]),
                    (&json!("completed"), &json!(1), &json!(1))
                );
                let late = s
                    .seconds(&id, &format!("'{due}'::timestamptz"), "started_at")
                    .await;
                assert!((0.0..2.0).contains(&late), "{late} s");
            }
        })
        .await;
}

#[tokio::test]
async fn when_the_sweeper_dies_another_sweeps() {
    Setup::new()
        .replicas(3)
        .model(|_| Reply::text("done"))
        .run(async |s| {
            for _ in 0..2 {
                let sweeper = s.sweeper().await;
                sweeper.signal(Signal::KILL);
                sweeper.ended().await;
                let id = store_silently(s, "waiting", None).await;
                s.result_of(&id).await;
                let late = s
                    .seconds(&id, "received_at + interval '1 s'", "started_at")
                    .await;
                assert!((0.0..5.0).contains(&late), "{late} s after it was due");
                assert_ne!(s.sweeper().await.pid(), sweeper.pid());
            }
        })
        .await;
}

#[tokio::test]
async fn a_sweeper_that_is_stopped_and_goes_on_does_no_harm() {
    Setup::new()
        .replicas(2)
        .model(|_| Reply::text("done"))
        .run(async |s| {
            let sweeper = s.sweeper().await;
            sweeper.signal(Signal::STOP);
            let mut ids = Vec::new();
            for _ in 0..4 {
                ids.push(store_silently(s, "waiting", None).await);
            }
            // Some of the wake-ups are sent ahead to the one that is stopped, some are not.
            let ended = "SELECT FROM chat.jobs WHERE finished_at IS NOT NULL";
            s.row_where(ended, |_| true).await;
            sweeper.signal(Signal::CONT);
            ids.push(store_silently(s, "waiting", None).await);
            ids.push(store_silently(s, "queued", Some(1)).await);
            for id in &ids {
                assert_eq!(s.result_of(id).await.json()["attempt"], 1);
            }
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

/// A turn whose mark got lost with the worker that made it.
#[tokio::test]
async fn a_turn_that_waits_for_nobody_is_found() {
    Setup::new()
        .model(|_| Reply::text("done"))
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.result_of(&id).await;
            s.sql("UPDATE chat.conversations SET turns = 2").await;
            let second = Uuid::new_v4().to_string();
            s.sql(format!(
                "INSERT INTO chat.jobs (id, conversation_id, turn, user_id, status, wait_reason, request)
                 SELECT '{second}', conversation_id, 2, user_id, 'waiting', 'turn', request FROM chat.jobs WHERE id = '{id}'"
            ))
            .await;
            assert_eq!(s.result_of(&second).await.json()["turn"], 2);
        })
        .await;
}

//! Jobs that somebody calls off: over the broker, in SQL, and from the command line.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::scenario::{Properties, Scenario, Setup, ask, call, eventually, puppet, said, with};
use crate::stub_model::Reply;

/// How somebody calls a job off.
#[derive(Clone, Copy, Debug)]
enum Way {
    Broker,
    Sql,
    Command,
}

const WAYS: [Way; 3] = [Way::Broker, Way::Sql, Way::Command];

impl Way {
    async fn cancel(self, s: &Scenario, id: &str, reason: &str) {
        match self {
            Self::Broker => s.cancel(id, reason).await,
            Self::Sql => {
                let called_off = s
                    .row(format!("SELECT chat.cancel('{id}', '{reason}') AS it"))
                    .await;
                assert_eq!(called_off, json!({"it": true}));
            }
            Self::Command => {
                let said = s.command(&["cancel", "--reason", reason, id]).await;
                assert!(said.contains("is called off"), "{said}");
            }
        }
    }
}

/// The result of a job that was called off, which is that and nothing else: told within a second,
/// no failure and no dead letter.
async fn called_off(s: &Scenario, id: &str, reason: &str) -> Value {
    let received = s.result_of(id).await;
    let result = received.json();
    assert_eq!(
        (&result["status"], &result["success"], &result["error"]),
        (
            &json!("cancelled"),
            &json!(false),
            &json!({"code": "cancelled", "message": reason})
        ),
        "{result}"
    );
    assert_eq!(result["message"], Value::Null);
    assert_eq!(
        received.header("x-chat-status").as_deref(),
        Some("cancelled")
    );
    let row = s.job(id).await;
    assert_eq!(
        (&row["status"], &row["error_code"], &row["error_message"]),
        (&json!("cancelled"), &json!("cancelled"), &json!(reason))
    );
    assert_eq!(
        (&row["wait_reason"], &row["due_at"]),
        (&Value::Null, &Value::Null)
    );
    let letters = format!("SELECT * FROM chat.dead_letters WHERE job_id = '{id}'");
    assert_eq!(s.rows(letters).await, Vec::<Value>::new());
    result
}

async fn within_a_second(s: &Scenario, id: &str) {
    let seconds = s.seconds(id, "cancel_requested_at", "finished_at").await;
    assert!(seconds < 1.0, "it took {seconds} s to end {id}");
}

fn in_conversation(text: &str, conversation: &str) -> Value {
    with(ask(text), "conversation_id", conversation)
}

/// A job for tomorrow.
fn scheduled() -> Value {
    with(ask("tomorrow"), "not_before", "2999-01-01T00:00:00Z")
}

#[tokio::test]
async fn a_job_that_waits_for_anything_ends_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let away = Reply::error(503, "server_error", "", "").with_header("retry-after", "3600");
    Setup::new()
        .run(async |s| {
            for way in WAYS {
                let conversation = Uuid::new_v4().to_string();
                s.model.push(Reply::text("first").when(&gate));
                let first = s.send(&in_conversation("first", &conversation)).await;
                s.job_where(&first, |row| row["status"] == "running").await;
                let turn = s.send(&in_conversation("turn", &conversation)).await;
                s.waits(&turn, "turn").await;
                let schedule = s.send(&scheduled()).await;
                s.waits(&schedule, "schedule").await;
                s.model.push(away.clone());
                let retry = s.send(&ask("retry")).await;
                s.waits(&retry, "retry").await;
                let asked = s.model.requests().len();
                for (id, turn, attempt) in [
                    (&turn, json!(2), 0),
                    (&schedule, Value::Null, 0),
                    (&retry, json!(1), 1),
                ] {
                    way.cancel(s, id, "not any more").await;
                    let result = called_off(s, id, "not any more").await;
                    assert_eq!(
                        (&result["turn"], &result["attempt"]),
                        (&turn, &json!(attempt))
                    );
                    within_a_second(s, id).await;
                }
                // Its neighbour is none the wiser.
                gate.add_permits(1);
                assert_eq!(s.result_of(&first).await.json()["status"], "completed");
                assert_eq!(s.model.requests().len(), asked, "{way:?}");
            }
            assert!(s.dead_letters_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_model_call_under_way_is_dropped_within_a_second_on_whichever_worker() {
    Setup::new()
        .replicas(2)
        .model(|_| Reply::never())
        .run(async |s| {
            let mut ids = Vec::new();
            for number in 0..6 {
                ids.push(s.send(&ask(&format!("{number}"))).await);
            }
            s.model.arrived(6).await;
            let mut workers = HashSet::new();
            for id in &ids {
                workers.insert(s.job(id).await["worker_id"].to_string());
            }
            assert_eq!(workers.len(), 2, "both have some of the jobs");
            for (number, id) in ids.iter().enumerate() {
                WAYS[number % 3].cancel(s, id, "enough").await;
                s.model.hung_up(number + 1).await;
                let result = called_off(s, id, "enough").await;
                assert_eq!(
                    (&result["turn"], &result["attempt"], &result["iterations"]),
                    (&json!(1), &json!(1), &json!(0))
                );
                within_a_second(s, id).await;
                let runs = s.runs_of(id).await;
                assert_eq!(
                    runs,
                    [("cancelled".to_owned(), Some("cancelled".to_owned()))]
                );
            }
            assert_eq!(s.model.requests().len(), 6);
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_tool_call_under_way_is_told_and_stored_as_interrupted() {
    Setup::new()
        .calc_with(&json!({"pool": {"size": 2}}))
        .model(puppet)
        .run(async |s| {
            let job = call(&[
                ("calc__add", json!({"a": 1, "b": 2})),
                ("calc__sleep", json!({"ms": 60_000})),
            ]);
            for (number, way) in WAYS.into_iter().enumerate() {
                let id = s.send(&job).await;
                let noted =
                    |line: &str| s.lines("calc.log").iter().filter(|it| *it == line).count();
                eventually("a call that sleeps", async || {
                    (noted("sleeping") > number).then_some(())
                })
                .await;
                let stored = format!(
                    "SELECT FROM chat.tool_calls WHERE job_id = '{id}' AND status = 'succeeded'"
                );
                s.row_where(stored, |_| true).await;
                way.cancel(s, &id, "enough").await;
                let result = called_off(s, &id, "enough").await;
                within_a_second(s, &id).await;
                assert_eq!(
                    (&result["iterations"], &result["tool_calls"]),
                    (&json!(1), &json!(1))
                );
                let calls = s.tool_calls(&id).await;
                assert_eq!(
                    (&calls[0]["status"], &calls[0]["result"]),
                    (&json!("succeeded"), &json!("3"))
                );
                assert_eq!(
                    (
                        &calls[1]["status"],
                        &calls[1]["result"],
                        &calls[1]["finished_at"]
                    ),
                    (&json!("interrupted"), &Value::Null, &Value::Null)
                );
                eventually("a cancelled call", async || {
                    (noted("cancelled") > number).then_some(())
                })
                .await;
            }
            let next = call(&[("calc__add", json!({"a": 3, "b": 4}))]);
            assert_eq!(s.answer(&next).await["message"]["content"], "7");
        })
        .await;
}

#[tokio::test]
async fn a_run_that_waits_for_its_tools_or_to_ask_again_ends_within_a_second_too() {
    let hanging = json!({"command": "sleep", "args": ["600"], "start_timeout_secs": 60});
    let busy = Reply::error(503, "server_error", "", "").with_header("retry-after", "9");
    Setup::new()
        .server("hanging", hanging)
        .unready()
        .replies([busy])
        .run(async |s| {
            let waits_for_tools = s.send(&ask("x")).await;
            s.job_where(&waits_for_tools, |row| row["status"] == "running")
                .await;
            let without = with(ask("y"), "tools", json!({"servers": []}));
            let waits_in_place = s.send(&without).await;
            s.worker().log_says("is made again").await;
            for id in [&waits_for_tools, &waits_in_place] {
                assert_eq!(s.job(id).await["status"], "running");
                s.cancel(id, "enough").await;
                let result = called_off(s, id, "enough").await;
                assert_eq!(result["iterations"], 0);
                within_a_second(s, id).await;
            }
            assert_eq!(s.model.requests().len(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_cancel_in_a_transaction_counts_when_that_commits_and_not_if_it_does_not() {
    Setup::new()
        .replies([Reply::never()])
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            s.sql(format!("DO $$ BEGIN PERFORM chat.cancel('{id}'); RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN END $$"))
                .await;
            assert_eq!(s.job(&id).await["cancel_requested_at"], Value::Null);
            // The worker has heard of something else since, and of this nothing.
            let other = s.send(&scheduled()).await;
            s.waits(&other, "schedule").await;
            Way::Sql.cancel(s, &other, "this one").await;
            called_off(s, &other, "this one").await;
            assert_eq!(s.job(&id).await["status"], "running");
            Way::Sql.cancel(s, &id, "now it is").await;
            called_off(s, &id, "now it is").await;
        })
        .await;
}

#[tokio::test]
async fn the_next_turn_runs_after_one_that_was_called_off_and_is_asked_legally() {
    Setup::new()
        .calc()
        .model(puppet)
        .replicas(2)
        .run(async |s| {
            let conversation = Uuid::new_v4().to_string();
            let of = |job| with(job, "conversation_id", conversation.as_str());
            let hang = call(&[("calc__sleep", json!({"ms": 60_000}))]);
            let running = s.send(&of(hang)).await;
            eventually("a call that sleeps", async || {
                (!s.lines("calc.log").is_empty()).then_some(())
            })
            .await;
            let waiting = s.send(&of(ask("waiting"))).await;
            s.waits(&waiting, "turn").await;
            let last = s.send(&of(ask("last"))).await;
            s.waits(&last, "turn").await;
            s.cancel(&waiting, "").await;
            called_off(s, &waiting, "the job was cancelled").await;
            assert_eq!(s.job(&last).await["status"], "waiting");
            s.cancel(&running, "").await;
            called_off(s, &running, "the job was cancelled").await;
            let result = s.result_of(&last).await.json();
            assert_eq!(
                (&result["status"], &result["turn"]),
                (&json!("completed"), &json!(3))
            );
            // What was said stands; the answer whose call was never answered does not.
            let prompt = s.last_prompt();
            assert_eq!(said(&prompt, "user").len(), 3);
            assert!(said(&prompt, "assistant").is_empty() && said(&prompt, "tool").is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_job_that_has_ended_is_not_changed_any_more() {
    Setup::new()
        .model(|_| Reply::text("done"))
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.result_of(&id).await;
            let before = s
                .job_where(&id, |row| !row["result_published_at"].is_null())
                .await;
            s.cancel(&id, "too late").await;
            let late = s.row(format!("SELECT chat.cancel('{id}') AS it")).await;
            assert_eq!(late, json!({"it": false}));
            let said = s.command(&["cancel", &id]).await;
            assert!(said.contains("had ended already"), "{said}");
            obeyed_so_far(s).await;
            assert_eq!(s.job(&id).await, before);
            assert!(s.results_so_far().await.is_empty());
            let kept = format!("SELECT * FROM chat.cancel_requests WHERE job_id = '{id}'");
            assert_eq!(s.rows(kept).await, Vec::<Value>::new());
            assert_eq!(s.rows("SELECT * FROM chat.dead_letters").await.len(), 0);
        })
        .await;
}

/// Waits until all control messages that were published are obeyed: by one worker, in their order.
async fn obeyed_so_far(s: &Scenario) {
    let mark = Uuid::new_v4().to_string();
    s.cancel(&mark, "a mark").await;
    let kept = format!("SELECT * FROM chat.cancel_requests WHERE job_id = '{mark}'");
    s.row_where(kept, |_| true).await;
}

#[tokio::test]
async fn a_cancel_of_a_job_that_nobody_knows_is_kept_and_applied_when_it_comes() {
    Setup::new()
        .run(async |s| {
            for way in WAYS {
                let id = Uuid::new_v4().to_string();
                match way {
                    Way::Command => {
                        let said = s.command(&["cancel", "--reason", "early", &id]).await;
                        assert!(said.contains("nobody knows the job"), "{said}");
                    }
                    Way::Broker | Way::Sql => way.cancel(s, &id, "early").await,
                }
                let kept = format!("SELECT * FROM chat.cancel_requests WHERE job_id = '{id}'");
                assert_eq!(s.row_where(kept, |_| true).await["reason"], "early");
                let job = with(ask("x"), "job_id", id.as_str());
                s.send(&job).await;
                let result = called_off(s, &id, "early").await;
                assert_eq!(
                    (&result["attempt"], &result["turn"], &result["started_at"]),
                    (&json!(0), &Value::Null, &Value::Null)
                );
                assert!(s.runs_of(&id).await.is_empty());
                // A repeat is told the same, and its conversation goes on.
                s.send(&job).await;
                called_off(s, &id, "early").await;
                assert!(s.model.requests().is_empty(), "{way:?}");
            }
            s.model.push(Reply::text("yes"));
            assert_eq!(s.answer(&ask("y")).await["status"], "completed");
        })
        .await;
}

#[tokio::test]
async fn who_is_not_the_jobs_user_calls_nothing_off() {
    let gate = Arc::new(Semaphore::new(0));
    let cancel = |id: &str, user: &str| {
        let message = json!({"type": "cancel", "job_id": id, "user_id": user, "reason": "mine"});
        message.to_string()
    };
    let replies = [Reply::text("running").when(&gate), Reply::text("later")];
    Setup::new()
        .replies(replies)
        .run(async |s| {
            let running = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            s.control(cancel(&running, "mallory")).await;
            let letter = s.dead_letters().await.next().await;
            assert_eq!(
                letter.header("x-chat-error-code").as_deref(),
                Some("unauthorized")
            );
            let message = letter.header("x-chat-error-message").unwrap();
            assert!(message.starts_with("/user_id: "), "{message}");
            assert_eq!(letter.json()["job_id"], running);
            let row = s.row("SELECT * FROM chat.dead_letters").await;
            assert_eq!(
                (&row["error_code"], &row["error_message"]),
                (&json!("unauthorized"), &json!(message))
            );
            assert_eq!(s.job(&running).await["cancel_requested_at"], Value::Null);
            gate.add_permits(1);
            assert_eq!(s.result_of(&running).await.json()["status"], "completed");
            // Nor one that has not come yet.
            let later = Uuid::new_v4().to_string();
            s.control(cancel(&later, "mallory")).await;
            obeyed_so_far(s).await;
            s.send(&with(ask("y"), "job_id", later.as_str())).await;
            assert_eq!(
                s.result_of(&later).await.json()["message"]["content"],
                "later"
            );
            // Who is may.
            s.model.push(Reply::never());
            let mine = s.send(&ask("z")).await;
            s.model.arrived(3).await;
            s.control(cancel(&mine, "user-42")).await;
            called_off(s, &mine, "mine").await;
        })
        .await;
}

#[tokio::test]
async fn a_kept_cancel_of_its_own_user_is_not_lost_to_a_strangers() {
    let cancel = |id: &str, user: &str| {
        json!({"type": "cancel", "job_id": id, "user_id": user, "reason": user}).to_string()
    };
    Setup::new()
        .run(async |s| {
            for order in [["user-42", "mallory"], ["mallory", "user-42"]] {
                let id = Uuid::new_v4().to_string();
                for user in order {
                    s.control(cancel(&id, user)).await;
                }
                obeyed_so_far(s).await;
                s.send(&with(ask("x"), "job_id", id.as_str())).await;
                called_off(s, &id, "user-42").await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_control_message_that_is_none_becomes_a_dead_letter_and_the_next_one_is_obeyed() {
    let id = Uuid::new_v4().to_string();
    let cancel = json!({"version": 1, "type": "cancel", "job_id": id});
    let approve = json!({"type": "approve", "job_id": id, "call_id": "c"});
    Setup::new()
        .model(|_| Reply::never())
        .run(async |s| {
            for (body, code, names) in [
                ("{".to_owned(), "invalid_json", "column"),
                (String::new(), "invalid_json", ""),
                ("[]".to_owned(), "invalid_job", "object"),
                ("{}".to_owned(), "invalid_job", "type"),
                (
                    json!({"type": "cancel"}).to_string(),
                    "invalid_job",
                    "job_id",
                ),
                (
                    with(cancel.clone(), "type", "kill").to_string(),
                    "invalid_job",
                    "/type",
                ),
                (
                    with(cancel.clone(), "job_id", "7").to_string(),
                    "invalid_job",
                    "/job_id",
                ),
                (
                    with(cancel.clone(), "when", "now").to_string(),
                    "invalid_job",
                    "when",
                ),
                (
                    with(cancel.clone(), "version", 2).to_string(),
                    "unsupported_version",
                    "/version",
                ),
                (
                    with(cancel.clone(), "reason", "x".repeat(1001)).to_string(),
                    "invalid_job",
                    "/reason",
                ),
                (
                    with(cancel.clone(), "user_id", "a b").to_string(),
                    "invalid_job",
                    "/user_id",
                ),
                (approve.to_string(), "invalid_job", "/job_id"),
            ] {
                s.control(&body).await;
                let letter = s.dead_letters().await.next().await;
                assert_eq!(
                    letter.header("x-chat-error-code").as_deref(),
                    Some(code),
                    "{body}"
                );
                let message = letter.header("x-chat-error-message").unwrap();
                assert!(message.contains(names), "{body}: {message}");
                assert_eq!(letter.body, body.as_bytes());
                let row = s
                    .row("SELECT * FROM chat.dead_letters ORDER BY created_at DESC LIMIT 1")
                    .await;
                assert_eq!(
                    (&row["error_code"], &row["error_message"]),
                    (&json!(code), &json!(message))
                );
            }
            s.control([0xff, 0xfe]).await;
            assert_eq!(s.dead_letters().await.next().await.body, [0xff, 0xfe]);
            s.send(&with(ask("x"), "job_id", id.as_str())).await;
            s.model.arrived(1).await;
            s.control(cancel.to_string()).await;
            called_off(s, &id, "the job was cancelled").await;
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_job_whose_worker_died_is_called_off_and_asked_no_more() {
    Setup::new()
        .replicas(2)
        .model(|_| Reply::never())
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            let worker = s.worker_of(&id).await;
            worker.signal(Signal::KILL);
            worker.ended().await;
            s.cancel(&id, "enough").await;
            let result = called_off(s, &id, "enough").await;
            assert_eq!(result["attempt"], 1);
            let seconds = s.seconds(&id, "cancel_requested_at", "finished_at").await;
            assert!(seconds < 6.0, "it took {seconds} s");
            assert_eq!(s.model.requests().len(), 1);
            assert_eq!(s.runs_of(&id).await.len(), 1);
        })
        .await;
}

#[tokio::test]
async fn who_waits_for_a_job_that_is_called_off_is_told_in_its_own_queue() {
    Setup::new()
        .replies([Reply::never()])
        .run(async |s| {
            let queue = s.broker.declare(&s.name("reply.mine")).await;
            let inbox = s.broker.consume(&queue).await;
            let properties = Properties::default()
                .with_reply_to(queue.as_str().into())
                .with_correlation_id("mine".into());
            let waiting = s.send_with(&scheduled(), properties.clone()).await;
            s.waits(&waiting, "schedule").await;
            let running = with(ask("x"), "metadata", json!({"ticket": 991}));
            let running = s.send_with(&running, properties).await;
            s.model.arrived(1).await;
            for id in [waiting, running] {
                s.cancel(&id, "").await;
                let told = inbox.next().await;
                assert_eq!(
                    (told.message_id(), told.correlation_id()),
                    (id, "mine".to_owned())
                );
                assert_eq!(told.json()["status"], "cancelled");
            }
            let metadata = s.row("SELECT metadata FROM chat.jobs WHERE turn = 1").await;
            assert_eq!(metadata["metadata"], json!({"ticket": 991}));
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_hundred_turns_can_be_called_off_at_once() {
    const TURNS: usize = 100;
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .replicas(2)
        .replies([Reply::text("first").when(&gate), Reply::text("last")])
        .run(async |s| {
            let conversation = Uuid::new_v4().to_string();
            let first = s.send(&in_conversation("first", &conversation)).await;
            s.model.arrived(1).await;
            let mut ids = Vec::new();
            for number in 0..TURNS {
                let job = in_conversation(&format!("{number}"), &conversation);
                ids.push(s.send(&job).await);
            }
            let waiting = "SELECT count(*) AS jobs FROM chat.jobs WHERE wait_reason = 'turn'";
            s.row_where(waiting, |row| row["jobs"] == TURNS).await;
            s.sql("SELECT chat.cancel(id) FROM chat.jobs WHERE wait_reason = 'turn'").await;
            for id in &ids {
                assert_eq!(s.result_of(id).await.json()["status"], "cancelled");
            }
            let longest = "SELECT extract(epoch FROM max(finished_at - cancel_requested_at))::double precision AS seconds FROM chat.jobs";
            let seconds = s.row(longest).await["seconds"].as_f64().unwrap();
            assert!(seconds < 3.0, "it took {seconds} s");
            gate.add_permits(1);
            assert_eq!(s.result_of(&first).await.json()["status"], "completed");
            let last = s.answer(&in_conversation("last", &conversation)).await;
            assert_eq!((&last["turn"], &last["status"]), (&json!(TURNS + 2), &json!("completed")));
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn any_reason_comes_back_as_it_was_given() {
    Setup::new()
        .replies([])
        .run(async |s| {
            for reason in ["¿por qué? ␛0000 \u{0} «»", "a\nb\t\"c\"", "\u{1F3B2}"] {
                let id = s.send(&scheduled()).await;
                s.waits(&id, "schedule").await;
                s.cancel(&id, reason).await;
                let result = s.result_of(&id).await.json();
                assert_eq!(result["error"]["message"], reason);
                let row = s.job(&id).await;
                assert!(!row["error_message"].as_str().unwrap().contains('\0'));
            }
        })
        .await;
}

/// Whatever a cancel meets — a job on its way, at its claim, in a model call, in a tool call, at its
/// end — the job ends once, in one way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_are_called_off_at_any_moment_end_once_and_none_hangs() {
    const JOBS: usize = 60;
    let setup = Setup::new().calc().replicas(2).model(|request| {
        let reply = puppet(request);
        reply.after(Duration::from_millis(30))
    });
    setup
        .run(async |s| {
            let work = call(&[("calc__sleep", json!({"ms": 30}))]);
            let mut ids = Vec::new();
            for number in 0..JOBS {
                let id = Uuid::now_v7().to_string();
                let job = with(work.clone(), "job_id", id.as_str());
                if number % 10 == 0 {
                    s.cancel(&id, "first").await;
                }
                s.send(&job).await;
                // From at once to after its end.
                let pause = Duration::from_millis(u64::try_from(number).unwrap() * 3);
                tokio::time::sleep(pause).await;
                if number > JOBS - 5 {
                    let ended = format!("SELECT * FROM chat.jobs WHERE id = '{id}'");
                    s.row_where(ended, |row| !row["finished_at"].is_null())
                        .await;
                }
                s.cancel(&id, "then").await;
                ids.push(id);
            }
            let mut ends = HashSet::new();
            for id in &ids {
                let result = s.result_of(id).await.json();
                let row = s.job(id).await;
                assert_eq!(result["status"], row["status"]);
                assert!(result["attempt"].as_u64().unwrap() <= 1);
                ends.insert(result["status"].as_str().unwrap().to_owned());
            }
            let expected = ["completed", "cancelled"].map(str::to_owned);
            assert_eq!(ends, HashSet::from(expected), "both ways were met");
            let open = "SELECT * FROM chat.jobs WHERE finished_at IS NULL";
            assert_eq!(s.rows(open).await, Vec::<Value>::new());
            assert!(s.results_so_far().await.is_empty());
            assert_eq!(s.rows("SELECT * FROM chat.dead_letters").await.len(), 0);
        })
        .await;
}

/// A cancel is for 24 h: who comes later never heard of it.
#[tokio::test]
async fn a_cancel_that_was_kept_too_long_is_forgotten() {
    Setup::new()
        .replicas(0)
        .model(|_| Reply::text("late").after(Duration::from_secs(7)))
        .run(async |s| {
            // The tables first.
            s.command(&["migrate"]).await;
            let id = Uuid::new_v4().to_string();
            s.sql(format!("INSERT INTO chat.cancel_requests (job_id, requested_at) VALUES ('{id}', now() - interval '25 h')")).await;
            s.start_worker().await;
            s.send(&with(ask("x"), "job_id", id.as_str())).await;
            let result = s.result_of(&id).await.json();
            assert_eq!(result["status"], "completed", "{result}");
            s.row_where("SELECT count(*) AS kept FROM chat.cancel_requests", |row| row["kept"] == 0).await;
        })
        .await;
}

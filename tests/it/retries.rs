//! What fails for longer than a call waits in place: the job is parked, holds nothing up but its own
//! conversation, and is tried again until it has failed too often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::scenario::{Properties, Scenario, Setup, ask, said, with};
use crate::stub_model::Reply;

fn error(status: u16) -> Reply {
    let kind = if status == 429 {
        "requests"
    } else {
        "server_error"
    };
    Reply::error(status, kind, "", "as scripted")
}

/// A failure that is not waited out in place: the job waits for an hour, unless the test lets the
/// time come.
fn away() -> Reply {
    error(503).with_header("retry-after", "3600")
}

fn run(outcome: &str, code: &str) -> (String, Option<String>) {
    (outcome.to_owned(), Some(code.to_owned()))
}

fn completed() -> (String, Option<String>) {
    ("completed".to_owned(), None)
}

/// Who asks again and again makes the trouble of a server greater.
#[tokio::test]
async fn a_job_that_failed_before_is_asked_for_less_in_each_further_run() {
    Setup::new()
        .set("CHAT_MAX_ATTEMPTS", "3")
        .model(|_| error(500))
        .run(async |s| {
            let result = s.answer(&ask("x")).await;
            assert_eq!(
                (&result["error"]["code"], &result["attempt"]),
                (&json!("model_unavailable"), &json!(3)),
                "{result}"
            );
            assert_eq!(s.model.requests().len(), 3 + 2 + 2);
        })
        .await;
}

#[tokio::test]
async fn jobs_of_a_model_that_is_held_back_wait_as_rows_and_have_not_failed() {
    // Longer than a call waits in place.
    let busy = error(429).with_header("retry-after", "11");
    Setup::new()
        .replies([busy, Reply::text("at last"), Reply::text("at last")])
        .run(async |s| {
            let told = s.send(&ask("x")).await;
            let row = s.waits(&told, "retry").await;
            assert_eq!(row["failures"], json!(1));
            let held = s.send(&ask("y")).await;
            let row = s.waits(&held, "retry").await;
            assert_eq!((&row["failures"], &row["attempt"]), (&json!(0), &json!(1)));
            let ahead = s.seconds(&held, "now()", "due_at").await;
            assert!((5.0..=11.6).contains(&ahead), "{ahead}");
            assert_eq!(s.model.requests().len(), 1);
            for id in [&told, &held] {
                let result = s.result_of(id).await.json();
                assert_eq!(result["message"]["content"], "at last", "{result}");
            }
        })
        .await;
}

#[tokio::test]
async fn a_job_that_is_parked_holds_no_slot_and_is_run_again_when_it_is_due() {
    let setup = Setup::new().set("CHAT_CONCURRENCY", "1");
    setup
        .replies([away(), Reply::text("meanwhile"), Reply::text("at last")])
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            let row = s.waits(&id, "retry").await;
            assert_eq!(
                (&row["attempt"], &row["failures"], &row["turn"]),
                (&json!(1), &json!(1), &json!(1))
            );
            assert_eq!(row["finished_at"], Value::Null);
            let ahead = s.seconds(&id, "now()", "due_at").await;
            assert!((3500.0..=3781.0).contains(&ahead), "{ahead}");
            let parked = s
                .row(format!("SELECT * FROM chat.attempts WHERE job_id = '{id}'"))
                .await;
            assert_eq!(
                (&parked["outcome"], &parked["error_code"]),
                (&json!("parked"), &json!("model_unavailable"))
            );
            assert!(!parked["ended_at"].is_null());
            let message = parked["error_message"].as_str().unwrap();
            assert!(message.contains("503"), "{message}");
            let health = s.row("SELECT * FROM chat.queue_health").await;
            assert_eq!(
                (&health["waiting"], &health["running"]),
                (&json!(1), &json!(0))
            );
            // The only slot is free.
            assert_eq!(s.answer(&ask("y")).await["message"]["content"], "meanwhile");
            s.make_due(&id).await;
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (&result["message"]["content"], &result["attempt"]),
                (&json!("at last"), &json!(2))
            );
            let runs = s.runs_of(&id).await;
            assert_eq!(runs, [run("parked", "model_unavailable"), completed()]);
            let row = s.job(&id).await;
            assert_eq!(
                (&row["failures"], &row["wait_reason"], &row["due_at"]),
                (&json!(0), &Value::Null, &Value::Null)
            );
            assert_eq!(s.model.requests().len(), 3);
            assert!(s.results_so_far().await.is_empty());
            assert!(s.dead_letters_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn tries_in_place_come_first_and_the_job_comes_back_by_itself() {
    let replies = (0..3).map(|_| error(500)).chain([Reply::text("at last")]);
    Setup::new()
        .replies(replies)
        .run(async |s| {
            let result = s.answer(&ask("x")).await;
            assert_eq!(
                (&result["message"]["content"], &result["attempt"]),
                (&json!("at last"), &json!(2))
            );
            let runs = s.runs_of(result["job_id"].as_str().unwrap()).await;
            assert_eq!(runs, [run("parked", "model_unavailable"), completed()]);
            assert_eq!(s.model.requests().len(), 4);
        })
        .await;
}

#[tokio::test]
async fn a_longer_wait_that_the_model_server_asks_for_is_kept() {
    let busy = error(429).with_header("retry-after", "11");
    Setup::new()
        .replies([busy, Reply::text("at last")])
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            let waiting = s.waits(&id, "retry").await;
            assert_eq!(waiting["attempt"], 1);
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (&result["status"], &result["attempt"]),
                (&json!("completed"), &json!(2))
            );
            let asked: Vec<_> = s
                .model
                .requests()
                .iter()
                .map(|request| request.at)
                .collect();
            let waited = asked[1] - asked[0];
            // A tenth more is what spreads jobs that wait for the same; the sweep looks each second.
            assert!(
                (Duration::from_secs(11)..Duration::from_secs(16)).contains(&waited),
                "{waited:?}"
            );
        })
        .await;
}

#[tokio::test]
async fn a_job_that_fails_too_often_is_final() {
    Setup::new()
        .set("CHAT_MAX_ATTEMPTS", "2")
        .replies((0..6).map(|_| error(500)))
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            let received = s.result_of(&id).await;
            let result = received.json();
            assert_eq!(
                (
                    &result["status"],
                    &result["error"]["code"],
                    &result["attempt"]
                ),
                (&json!("failed"), &json!("model_unavailable"), &json!(2))
            );
            let unavailable = |outcome| run(outcome, "model_unavailable");
            let runs = s.runs_of(&id).await;
            assert_eq!(runs, [unavailable("parked"), unavailable("failed")]);
            let row = s.job(&id).await;
            assert_eq!(
                (&row["failures"], &row["error_code"]),
                (&json!(2), &json!("model_unavailable"))
            );
            let letter = s.dead_letters().await.next().await;
            assert_eq!(letter.header("x-chat-attempts").as_deref(), Some("2"));
            assert_eq!(s.rows("SELECT * FROM chat.dead_letters").await.len(), 1);
            assert_eq!(s.model.requests().len(), 3 + 2);
        })
        .await;
}

#[tokio::test]
async fn what_gets_on_between_failures_is_not_given_up() {
    let call = Reply::calls([("calc__add", json!({"a": 1, "b": 2}))]);
    Setup::new()
        .calc()
        .set("CHAT_MAX_ATTEMPTS", "2")
        .replies([away(), call, away(), Reply::text("at last")])
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            for attempt in 1..=2 {
                let row = s
                    .job_where(&id, |row| {
                        row["wait_reason"] == "retry" && row["attempt"] == attempt
                    })
                    .await;
                assert_eq!(row["failures"], 1, "after run {attempt}");
                s.make_due(&id).await;
            }
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (
                    &result["message"]["content"],
                    &result["attempt"],
                    &result["tool_calls"]
                ),
                (&json!("at last"), &json!(3), &json!(1))
            );
            // What was stored is neither asked for nor called again.
            assert_eq!(s.model.requests().len(), 4);
            let calls = s.tool_calls(&id).await;
            assert_eq!((calls.len(), &calls[0]["attempt"]), (1, &json!(2)));
        })
        .await;
}

#[tokio::test]
async fn a_tool_server_that_is_needed_and_down_is_waited_for() {
    let setup = Setup::new();
    let flag = setup.file("refuse");
    std::fs::write(&flag, "").unwrap();
    let refusing = json!({"env": {"CALC_REFUSE": flag}, "start_timeout_secs": 5});
    setup
        .calc_with(&refusing)
        .unready()
        .set("CHAT_MAX_ATTEMPTS", "50")
        .replies([Reply::text("at last")])
        .run(async |s| {
            let id = s
                .send(&with(ask("x"), "tools", json!({"servers": ["calc"]})))
                .await;
            let parked = s
                .row_where(
                    format!("SELECT * FROM chat.attempts WHERE job_id = '{id}'"),
                    |row| row["outcome"] == "parked",
                )
                .await;
            assert_eq!(parked["error_code"], "tools_unavailable");
            let message = parked["error_message"].as_str().unwrap();
            assert!(message.contains("calc"), "{message}");
            std::fs::remove_file(&flag).unwrap();
            s.worker().ready().await;
            let result = s.result_of(&id).await.json();
            assert_eq!(
                (&result["status"], &result["warnings"]),
                (&json!("completed"), &Value::Null)
            );
            assert!(result["attempt"].as_u64().unwrap() >= 2);
        })
        .await;
}

#[tokio::test]
async fn a_tool_server_that_stays_down_is_final() {
    let broken = json!({"command": "/nowhere/at/all", "required": true});
    Setup::new()
        .server("broken", broken)
        .unready()
        .set("CHAT_MAX_ATTEMPTS", "2")
        .run(async |s| {
            let result = s.answer(&ask("x")).await;
            assert_eq!(
                (&result["error"]["code"], &result["attempt"]),
                (&json!("tools_unavailable"), &json!(2)),
                "{result}"
            );
            let unavailable = |outcome| run(outcome, "tools_unavailable");
            let runs = s.runs_of(result["job_id"].as_str().unwrap()).await;
            assert_eq!(runs, [unavailable("parked"), unavailable("failed")]);
            assert!(s.model.requests().is_empty());
        })
        .await;
}

#[tokio::test]
async fn the_next_turn_waits_for_one_that_is_parked() {
    Setup::new()
        .replicas(2)
        .replies([away(), Reply::text("one"), Reply::text("two")])
        .run(async |s| {
            let conversation = Uuid::new_v4().to_string();
            let of = |text| with(ask(text), "conversation_id", conversation.as_str());
            let first = s.send(&of("first")).await;
            s.waits(&first, "retry").await;
            let second = s.send(&of("second")).await;
            let row = s.waits(&second, "turn").await;
            assert_eq!((&row["turn"], &row["attempt"]), (&json!(2), &json!(0)));
            s.make_due(&first).await;
            assert_eq!(
                s.result_of(&first).await.json()["message"]["content"],
                "one"
            );
            assert_eq!(
                s.result_of(&second).await.json()["message"]["content"],
                "two"
            );
            let prompt = s.last_prompt();
            assert_eq!(said(&prompt, "user"), ["first", "second"]);
            assert_eq!(said(&prompt, "assistant"), ["one"]);
        })
        .await;
}

#[tokio::test]
async fn a_repeat_of_a_parked_job_neither_hurries_it_nor_is_run() {
    let setup = Setup::new().replies([away(), Reply::text("once")]);
    setup
        .run(async |s| {
            let job = with(ask("x"), "job_id", Uuid::new_v4().to_string());
            let id = s.send(&job).await;
            let parked = s.waits(&id, "retry").await;
            let queue = s.broker.declare(&s.name("reply.mine")).await;
            let inbox = s.broker.consume(&queue).await;
            let properties = Properties::default()
                .with_reply_to(queue.as_str().into())
                .with_correlation_id("again".into());
            s.send_with(&job, properties).await;
            let redirected = s.job_where(&id, |row| row["reply_to"] == queue).await;
            for column in ["status", "wait_reason", "due_at", "attempt", "failures"] {
                assert_eq!(redirected[column], parked[column], "{column}");
            }
            s.make_due(&id).await;
            let result = inbox.next().await;
            assert_eq!(
                (result.message_id(), result.correlation_id()),
                (id, "again".to_owned())
            );
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn jobs_that_fail_together_are_all_tried_again_on_any_worker() {
    let up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let model = move |_: &Value| {
        if is_up.load(std::sync::atomic::Ordering::Relaxed) {
            Reply::text("up again")
        } else {
            error(502)
        }
    };
    Setup::new()
        .model(model)
        .replicas(2)
        .set("CHAT_MAX_ATTEMPTS", "20")
        .run(async |s| {
            let begin = Instant::now();
            let mut ids = Vec::new();
            for _ in 0..30 {
                ids.push(s.send(&ask("x")).await);
            }
            for id in &ids {
                let parked = format!(
                    "SELECT FROM chat.attempts WHERE job_id = '{id}' AND outcome = 'parked'"
                );
                s.row_where(parked, |_| true).await;
            }
            up.store(true, std::sync::atomic::Ordering::Relaxed);
            for id in &ids {
                assert_eq!(s.result_of(id).await.json()["status"], "completed");
            }
            assert!(s.results_so_far().await.is_empty());
            let open = "SELECT * FROM chat.attempts WHERE ended_at IS NULL OR outcome NOT IN ('parked', 'completed')";
            assert_eq!(s.rows(open).await, Vec::<Value>::new());
            assert!(begin.elapsed() < Duration::from_secs(40));
        })
        .await;
}

/// A slot that waits for its model holds the worker's only slot, a job that waits for a retry none.
#[tokio::test]
async fn a_worker_with_one_slot_gets_through_jobs_that_all_fail_once() {
    let gate = Arc::new(Semaphore::new(0));
    let setup = Setup::new().set("CHAT_CONCURRENCY", "1");
    setup
        .replies((0..5).map(|_| away()))
        .run(async |s: &Scenario| {
            let mut ids = Vec::new();
            for _ in 0..5 {
                ids.push(s.send(&ask("x")).await);
            }
            for id in &ids {
                s.waits(id, "retry").await;
            }
            s.model.push(Reply::text("long").when(&gate));
            let long = s.send(&ask("long")).await;
            s.model.arrived(6).await;
            for id in &ids {
                s.model.push(Reply::text("short"));
                s.make_due(id).await;
            }
            // None of them runs while the slot is taken.
            for id in &ids {
                s.job_where(id, |row| row["status"] == "queued").await;
            }
            assert_eq!(s.model.requests().len(), 6);
            gate.add_permits(1);
            s.result_of(&long).await;
            for id in &ids {
                assert_eq!(s.result_of(id).await.json()["attempt"], 2);
            }
        })
        .await;
}

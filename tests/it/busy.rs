//! Jobs that meet a busy conversation, wait for their time, or run out of it while they wait.

use std::sync::Arc;

use chat_worker::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::scenario::{Properties, Scenario, Setup, ask, call, eventually, puppet, said, with};
use crate::stub_model::Reply;

/// A time that no test sees.
const FAR: &str = "2999-01-01T00:00:00Z";

/// This moment and so many milliseconds, as a job says it.
fn in_ms(milliseconds: i64) -> String {
    let now = SystemClock.now() + chrono::TimeDelta::milliseconds(milliseconds);
    now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// A conversation of a test.
struct Talk(String);

impl Talk {
    fn new() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    fn of(&self, job: Value) -> Value {
        with(job, "conversation_id", self.0.as_str())
    }

    fn ask(&self, text: &str) -> Value {
        self.of(ask(text))
    }

    fn on_busy(&self, text: &str, what: &str) -> Value {
        with(self.ask(text), "on_busy", what)
    }

    async fn turns(&self, s: &Scenario) -> Value {
        let query = format!(
            "SELECT turns FROM chat.conversations WHERE id = '{}'",
            self.0
        );
        s.row(query).await["turns"].clone()
    }
}

async fn no_row(s: &Scenario, id: &str) {
    let jobs = format!("SELECT * FROM chat.jobs WHERE id = '{id}'");
    assert_eq!(s.rows(jobs).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_job_that_would_not_wait_is_refused_and_leaves_no_row() {
    let gate = Arc::new(Semaphore::new(0));
    let replies = [
        Reply::text("one").when(&gate),
        Reply::text("two"),
        Reply::text("three"),
    ];
    Setup::new()
        .replicas(2)
        .replies(replies)
        .run(async |s| {
            let talk = Talk::new();
            let first = s.send(&talk.on_busy("first", "reject")).await;
            s.model.arrived(1).await;
            let refused = s.send(&talk.on_busy("refused", "reject")).await;
            let told = s.result_of(&refused).await;
            let result = told.json();
            assert_eq!(
                (
                    &result["status"],
                    &result["error"]["code"],
                    &result["attempt"]
                ),
                (&json!("failed"), &json!("conversation_busy"), &json!(0))
            );
            assert_eq!(result["conversation_id"], talk.0);
            assert_eq!(told.header("x-chat-status").as_deref(), Some("refused"));
            assert_ne!(told.message_id(), refused);
            no_row(s, &refused).await;
            let letter = s.dead_letters().await.next().await;
            assert_eq!(
                letter.header("x-chat-error-code").as_deref(),
                Some("conversation_busy")
            );
            // To its own inbox, where it has one.
            let queue = s.broker.declare(&s.name("reply.mine")).await;
            let inbox = s.broker.consume(&queue).await;
            let properties = Properties::default().with_reply_to(queue.as_str().into());
            s.send_with(&talk.on_busy("refused too", "reject"), properties)
                .await;
            assert_eq!(
                inbox.next().await.json()["error"]["code"],
                "conversation_busy"
            );
            // A repeat of the job that runs is no other job.
            let again = with(talk.on_busy("first", "reject"), "job_id", first.as_str());
            s.send(&again).await;
            // A waiting turn keeps the conversation busy as well as a running one.
            let second = s.send(&talk.on_busy("second", "enqueue")).await;
            s.waits(&second, "turn").await;
            gate.add_permits(1);
            assert_eq!(s.result_of(&first).await.json()["status"], "completed");
            assert_eq!(s.result_of(&second).await.json()["turn"], 2);
            // The same job may come again when the conversation is idle: nothing of it was kept.
            let later = with(
                talk.on_busy("refused", "reject"),
                "job_id",
                refused.as_str(),
            );
            s.send(&later).await;
            let result = s.result_of(&refused).await.json();
            assert_eq!(
                (&result["status"], &result["turn"]),
                (&json!("completed"), &json!(3))
            );
            assert_eq!(
                said(&s.last_prompt(), "user"),
                ["first", "second", "refused"]
            );
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_job_that_interrupts_ends_all_earlier_turns_and_runs() {
    let setup = Setup::new().calc().replicas(2);
    setup
        .model(|request| match puppet(request) {
            _ if request["messages"].to_string().contains("hang") => Reply::never(),
            reply => reply,
        })
        .run(async |s| {
            let talk = Talk::new();
            // One in a tool call, two that wait, one of them for a retry that never comes.
            let sleep = call(&[("calc__sleep", json!({"ms": 60_000}))]);
            let running = s.send(&talk.of(sleep)).await;
            eventually("a call that sleeps", async || {
                (!s.lines("calc.log").is_empty()).then_some(())
            })
            .await;
            let mut earlier = vec![running];
            for text in ["second", "third"] {
                let id = s.send(&talk.ask(text)).await;
                s.waits(&id, "turn").await;
                earlier.push(id);
            }
            let tomorrow = with(talk.ask("later"), "not_before", FAR);
            let tomorrow = s.send(&tomorrow).await;
            s.waits(&tomorrow, "schedule").await;
            let last = s.send(&talk.on_busy("last", "interrupt")).await;
            for id in &earlier {
                let result = s.result_of(id).await.json();
                assert_eq!(result["status"], "cancelled", "{result}");
                let why = result["error"]["message"].as_str().unwrap();
                assert!(why.contains(&last), "{why}");
            }
            let result = s.result_of(&last).await.json();
            assert_eq!(
                (&result["status"], &result["turn"]),
                (&json!("completed"), &json!(4))
            );
            let waited = s.seconds(&last, "received_at", "finished_at").await;
            assert!(waited < 2.0, "it took {waited} s");
            let prompt = s.last_prompt();
            assert_eq!(said(&prompt, "user")[1..], ["second", "third", "last"]);
            assert!(said(&prompt, "tool").is_empty());
            // What is not due is not earlier.
            s.waits(&tomorrow, "schedule").await;
            assert_eq!(s.tool_calls(&earlier[0]).await[0]["status"], "interrupted");
            assert_eq!(s.rows("SELECT * FROM chat.dead_letters").await.len(), 0);
            // In a model call it is the same.
            let hanging = s.send(&talk.ask("hang")).await;
            s.job_where(&hanging, |row| row["status"] == "running")
                .await;
            let once_more = s.send(&talk.on_busy("once more", "interrupt")).await;
            assert_eq!(s.result_of(&hanging).await.json()["status"], "cancelled");
            s.cancel(&once_more, "").await;
            s.result_of(&once_more).await;
        })
        .await;
}

#[tokio::test]
async fn of_jobs_that_interrupt_each_other_the_last_one_runs() {
    // Who is not the last one is never answered.
    let model = |request: &Value| match said(request["messages"].as_array().unwrap(), "user").len()
    {
        8 => Reply::text("done"),
        _ => Reply::never(),
    };
    Setup::new()
        .replicas(2)
        .model(model)
        .run(async |s| {
            let talk = Talk::new();
            let mut ids = Vec::new();
            for number in 0..8 {
                let job = talk.on_busy(&format!("{number}"), "interrupt");
                ids.push(s.send(&job).await);
            }
            for id in &ids {
                s.result_of(id).await;
            }
            let rows = s
                .rows("SELECT status, turn FROM chat.jobs ORDER BY turn")
                .await;
            assert_eq!(rows[7], json!({"status": "completed", "turn": 8}));
            for row in &rows[..7] {
                assert_eq!(row["status"], "cancelled", "{rows:?}");
            }
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn an_interrupting_job_in_an_idle_conversation_just_runs() {
    Setup::new()
        .model(|_| Reply::text("yes"))
        .run(async |s| {
            let talk = Talk::new();
            for (number, what) in ["interrupt", "reject", "enqueue", "interrupt"]
                .iter()
                .enumerate()
            {
                let result = s.answer(&talk.on_busy("x", what)).await;
                assert_eq!(
                    (&result["status"], &result["turn"]),
                    (&json!("completed"), &json!(number + 1))
                );
            }
        })
        .await;
}

#[tokio::test]
async fn a_scheduled_job_waits_for_its_time_without_slot_and_without_turn() {
    let gate = Arc::new(Semaphore::new(0));
    let replies = [
        Reply::text("today"),
        Reply::text("today too").when(&gate),
        Reply::text("in time"),
    ];
    let setup = Setup::new().set("CHAT_CONCURRENCY", "1");
    setup
        .replies(replies)
        .run(async |s| {
            let talk = Talk::new();
            let job = with(talk.ask("scheduled"), "not_before", FAR);
            let scheduled = s.send(&job).await;
            let row = s.waits(&scheduled, "schedule").await;
            assert_eq!(
                (&row["turn"], &row["attempt"], &row["started_at"]),
                (&Value::Null, &json!(0), &Value::Null)
            );
            assert_eq!(talk.turns(s).await, 0);
            // Today's chat is neither held up nor ordered by it.
            let today = s.answer(&talk.ask("first")).await;
            assert_eq!(
                (&today["turn"], &today["message"]["content"]),
                (&json!(1), &json!("today"))
            );
            let second = s.send(&talk.ask("second")).await;
            s.model.arrived(2).await;
            // When it is due the conversation and the worker are busy.
            s.make_due(&scheduled).await;
            s.job_where(&scheduled, |row| row["status"] == "queued")
                .await;
            gate.add_permits(1);
            assert_eq!(s.result_of(&second).await.json()["turn"], 2);
            let result = s.result_of(&scheduled).await.json();
            assert_eq!(
                (
                    &result["turn"],
                    &result["message"]["content"],
                    &result["attempt"]
                ),
                (&json!(3), &json!("in time"), &json!(1))
            );
            assert_eq!(
                said(&s.last_prompt(), "user"),
                ["first", "second", "scheduled"]
            );
        })
        .await;
}

#[tokio::test]
async fn a_scheduled_job_that_finds_its_conversation_busy_gets_a_turn_and_waits_for_it() {
    let gate = Arc::new(Semaphore::new(0));
    let setup = Setup::new().replies([Reply::text("one").when(&gate), Reply::text("two")]);
    setup
        .run(async |s| {
            let talk = Talk::new();
            let scheduled = s
                .send(&with(talk.ask("scheduled"), "not_before", FAR))
                .await;
            s.waits(&scheduled, "schedule").await;
            let first = s.send(&talk.ask("first")).await;
            s.model.arrived(1).await;
            s.make_due(&scheduled).await;
            assert_eq!(s.waits(&scheduled, "turn").await["turn"], 2);
            assert_eq!(s.model.requests().len(), 1);
            gate.add_permits(1);
            assert_eq!(s.result_of(&first).await.json()["turn"], 1);
            assert_eq!(s.result_of(&scheduled).await.json()["turn"], 2);
        })
        .await;
}

#[tokio::test]
async fn scheduled_jobs_run_soon_after_their_time_and_never_before() {
    Setup::new()
        .replicas(2)
        .model(|_| Reply::text("in time"))
        .run(async |s| {
            let mut ids = Vec::new();
            for number in 0..12 {
                let job = with(ask("x"), "not_before", in_ms(1500 + 250 * number));
                ids.push(s.send(&job).await);
            }
            let past = s.send(&with(ask("x"), "not_before", in_ms(-60_000))).await;
            assert_eq!(s.result_of(&past).await.json()["status"], "completed");
            for id in &ids {
                assert_eq!(s.result_of(id).await.json()["status"], "completed");
                let time = "(request ->> 'not_before')::timestamptz";
                let late = s.seconds(id, time, "started_at").await;
                assert!((0.0..2.0).contains(&late), "it ran {late} s after its time");
            }
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_scheduled_job_finds_the_conversation_as_it_is_when_it_is_due() {
    let gate = Arc::new(Semaphore::new(0));
    let setup = Setup::new().replies([Reply::text("one").when(&gate), Reply::text("three")]);
    setup
        .run(async |s| {
            let talk = Talk::new();
            let reject = with(talk.on_busy("reject", "reject"), "not_before", FAR);
            let reject = s.send(&reject).await;
            s.waits(&reject, "schedule").await;
            let interrupt = with(talk.on_busy("interrupt", "interrupt"), "not_before", FAR);
            let interrupt = s.send(&interrupt).await;
            s.waits(&interrupt, "schedule").await;
            let first = s.send(&talk.ask("first")).await;
            s.model.arrived(1).await;
            s.make_due(&reject).await;
            let result = s.result_of(&reject).await;
            assert_eq!(result.json()["error"]["code"], "conversation_busy");
            // It was taken in, so this is its result and no refusal.
            assert_eq!(result.message_id(), reject);
            assert_eq!(s.job(&reject).await["status"], "failed");
            assert_eq!(s.rows("SELECT * FROM chat.dead_letters").await.len(), 1);
            s.make_due(&interrupt).await;
            assert_eq!(s.result_of(&first).await.json()["status"], "cancelled");
            let result = s.result_of(&interrupt).await.json();
            assert_eq!(
                (&result["turn"], &result["status"]),
                (&json!(2), &json!("completed"))
            );
        })
        .await;
}

#[tokio::test]
async fn a_deadline_that_passes_while_a_job_waits_ends_it_then() {
    let gate = Arc::new(Semaphore::new(0));
    let away = Reply::error(503, "server_error", "", "").with_header("retry-after", "3600");
    Setup::new()
        .replies([Reply::text("first").when(&gate), away])
        .run(async |s| {
            let talk = Talk::new();
            let first = s.send(&talk.ask("first")).await;
            s.model.arrived(1).await;
            let limited = |job| with(job, "deadline", FAR);
            let retry = s.send(&limited(ask("retry"))).await;
            let turn = s.send(&limited(talk.ask("turn"))).await;
            let schedule = with(ask("schedule"), "not_before", FAR);
            let schedule = s.send(&limited(schedule)).await;
            for (id, waits_for) in [(&turn, "turn"), (&schedule, "schedule"), (&retry, "retry")] {
                s.waits(id, waits_for).await;
            }
            s.sql(
                "UPDATE chat.jobs SET deadline = now() + interval '1 s' WHERE deadline IS NOT NULL",
            )
            .await;
            for id in [&turn, &schedule, &retry] {
                let received = s.result_of(id).await;
                let result = received.json();
                assert_eq!(
                    (&result["status"], &result["error"]["code"]),
                    (&json!("failed"), &json!("deadline_exceeded")),
                    "{result}"
                );
                assert_eq!(received.message_id(), *id);
                let late = s.seconds(id, "deadline", "finished_at").await;
                assert!((0.0..2.0).contains(&late), "{late} s");
                let letter = s
                    .dead_letters()
                    .await
                    .find(|letter| letter.json()["job_id"] == **id)
                    .await;
                assert_eq!(
                    letter.header("x-chat-error-code").as_deref(),
                    Some("deadline_exceeded")
                );
            }
            assert_eq!(s.model.requests().len(), 2);
            gate.add_permits(1);
            assert_eq!(s.result_of(&first).await.json()["status"], "completed");
            // A turn that never ran does not hold up the next one.
            s.model.push(Reply::text("third"));
            let third = s.answer(&talk.ask("third")).await;
            assert_eq!(
                (&third["turn"], &third["status"]),
                (&json!(3), &json!("completed"))
            );
            assert_eq!(s.rows("SELECT * FROM chat.dead_letters").await.len(), 3);
        })
        .await;
}

#[tokio::test]
async fn a_deadline_that_passes_during_a_call_ends_the_job_then() {
    Setup::new()
        .calc()
        .model(|request| match puppet(request) {
            _ if request["messages"].to_string().contains("hang") => Reply::never(),
            reply => reply,
        })
        .run(async |s| {
            let sleep = call(&[("calc__sleep", json!({"ms": 60_000}))]);
            for job in [ask("hang"), sleep] {
                let id = s.send(&with(job, "deadline", in_ms(1500))).await;
                let result = s.result_of(&id).await.json();
                assert_eq!(result["error"]["code"], "deadline_exceeded", "{result}");
                let late = s.seconds(&id, "deadline", "finished_at").await;
                assert!((0.0..2.0).contains(&late), "{late} s");
            }
        })
        .await;
}

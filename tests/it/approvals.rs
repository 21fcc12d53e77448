//! Calls that a person approves or denies: over the broker, in SQL, and from the command line.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scenario::{Scenario, Setup, ask, call, eventually, example, puppet, said, with};
use crate::stub_model::Reply;

/// How somebody decides.
#[derive(Clone, Copy, Debug)]
enum Way {
    Broker,
    Sql,
    Command,
}

const WAYS: [Way; 3] = [Way::Broker, Way::Sql, Way::Command];

impl Way {
    async fn decide(self, s: &Scenario, verb: &str, id: &str, call: &str) {
        match self {
            Self::Broker => {
                let body = json!({"version": 1, "type": verb, "job_id": id, "call_id": call,
                                  "by": "ann", "reason": "it\u{0027}s so"});
                s.control(body.to_string()).await;
            }
            Self::Sql => {
                let query =
                    format!("SELECT chat.{verb}('{id}', '{call}', 'ann', 'it''s so') AS it");
                assert_eq!(s.row(query).await, json!({"it": true}));
            }
            Self::Command => {
                let done = if verb == "approve" {
                    "approved"
                } else {
                    "denied"
                };
                let said = s
                    .command(&[verb, id, call, "--by", "ann", "--reason", "it's so"])
                    .await;
                assert!(said.contains(&format!("is {done}")), "{said}");
            }
        }
    }
}

/// The tool server whose `append` needs approval.
fn guarded() -> Setup {
    Setup::new()
        .calc_with(&json!({"approval": ["app*"]}))
        .model(puppet)
}

fn append(line: &str) -> (&'static str, Value) {
    ("calc__append", json!({"line": line}))
}

/// The ids of the calls of a job that wait, in order.
async fn pending(s: &Scenario, id: &str) -> Vec<String> {
    let query = format!(
        "SELECT call_id FROM chat.pending_approvals WHERE job_id = '{id}' ORDER BY iteration, position"
    );
    let rows = s.rows(query).await;
    let ids = rows.iter().map(|row| row["call_id"].as_str().unwrap());
    ids.map(str::to_owned).collect()
}

/// Sends a job, and waits until all that is left of it needs approval.
async fn held(s: &Scenario, job: &Value) -> (String, Vec<String>) {
    let id = s.send(job).await;
    s.waits(&id, "approval").await;
    let calls = pending(s, &id).await;
    assert!(!calls.is_empty());
    (id, calls)
}

async fn outcomes(s: &Scenario, id: &str) -> Vec<String> {
    let runs = s.runs_of(id).await;
    assert!(runs.iter().all(|(_, error)| error.is_none()), "{runs:?}");
    runs.into_iter().map(|(outcome, _)| outcome).collect()
}

#[tokio::test]
async fn a_call_waits_until_somebody_approves_it_in_any_of_three_ways_and_is_made_once() {
    guarded()
        .run(async |s| {
            for (number, way) in WAYS.into_iter().enumerate() {
                let line = format!("line-{number}");
                let (id, calls) = held(s, &call(&[append(&line)])).await;
                let waiting = s.job(&id).await;
                assert_eq!((&waiting["failures"], &waiting["attempt"]), (&json!(0), &json!(1)));
                let hours = format!(
                    "SELECT round(extract(epoch FROM due_at - received_at) / 3600)::integer AS hours FROM chat.jobs WHERE id = '{id}'"
                );
                assert_eq!(s.row(hours).await, json!({"hours": 24}));
                let row = s
                    .row(format!("SELECT * FROM chat.pending_approvals WHERE job_id = '{id}'"))
                    .await;
                assert_eq!(
                    (&row["server"], &row["tool"], &row["arguments"], &row["user_id"]),
                    (&json!("calc"), &json!("append"), &json!({"line": line}), &json!("user-42"))
                );
                assert_eq!(s.tool_calls(&id).await[0]["status"], "requested");
                assert_eq!(s.lines("calc.log").len(), number, "nothing was done yet");
                let shown = s.command(&["show", &id]).await;
                let command = format!("chat-worker approve {id} {}", calls[0]);
                assert!(shown.contains(&command), "{shown}");

                way.decide(s, "approve", &id, &calls[0]).await;
                let result = s.result_of(&id).await.json();
                assert_eq!(
                    (&result["status"], &result["tool_calls"], &result["attempt"]),
                    (&json!("completed"), &json!(1), &json!(2))
                );
                assert_eq!(s.lines("calc.log").len(), number + 1);
                let made = &s.tool_calls(&id).await[0];
                assert_eq!(
                    (&made["status"], &made["approval"], &made["approval_by"], &made["approval_reason"]),
                    (&json!("succeeded"), &json!("approved"), &json!("ann"), &json!("it's so"))
                );
                assert_eq!(outcomes(s, &id).await, ["parked", "completed"]);
                assert_eq!(pending(s, &id).await, Vec::<String>::new());
                let shown = s.command(&["show", &id]).await;
                assert!(shown.contains("approved by ann: it's so"), "{shown}");
                // Said again it changes nothing, also after the end.
                Way::Sql.decide(s, "approve", &id, &calls[0]).await;
            }
            assert!(s.dead_letters_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_call_that_is_denied_is_not_made_and_the_model_reads_why() {
    guarded()
        .run(async |s| {
            for way in WAYS {
                let (id, calls) = held(s, &call(&[append("never")])).await;
                way.decide(s, "deny", &id, &calls[0]).await;
                let result = s.result_of(&id).await.json();
                let text = "A person denied this call, so it was not made. The reason: it's so";
                assert_eq!(result["message"]["content"], text);
                let refused = &s.tool_calls(&id).await[0];
                assert_eq!(
                    (&refused["status"], &refused["approval"], &refused["result"]),
                    (&json!("refused"), &json!("denied"), &json!(text))
                );
                assert_eq!(said(&s.last_prompt(), "tool"), [text]);
            }
            assert_eq!(s.lines("calc.log"), Vec::<String>::new());
        })
        .await;
}

#[tokio::test]
async fn calls_that_need_nobody_are_made_before_and_the_rest_when_all_is_decided() {
    guarded()
        .run(async |s| {
            let sum = ("calc__add", json!({"a": 1, "b": 2}));
            let (id, calls) = held(s, &call(&[append("one"), sum, append("two")])).await;
            assert_eq!(calls.len(), 2);
            let stored = s.tool_calls(&id).await;
            assert_eq!(
                (&stored[1]["status"], &stored[1]["result"]),
                (&json!("succeeded"), &json!("3"))
            );
            Way::Sql.decide(s, "approve", &id, &calls[0]).await;
            // Another job has come and gone since, so that the sweep has had its look.
            s.answer(&ask("no calls")).await;
            assert_eq!(s.job(&id).await["status"], "waiting");
            Way::Sql.decide(s, "deny", &id, &calls[1]).await;
            let result = s.result_of(&id).await.json();
            assert_eq!(result["tool_calls"], 3);
            assert_eq!(s.lines("calc.log"), ["one"]);
            let told = said(&s.last_prompt(), "tool");
            assert_eq!(told.len(), 3);
            assert_eq!(told[1], "3");
            assert!(told[2].starts_with("A person denied"), "{told:?}");
            assert_eq!(outcomes(s, &id).await, ["parked", "completed"]);
        })
        .await;
}

#[tokio::test]
async fn a_word_that_comes_before_the_job_waits_counts() {
    guarded()
        .run(async |s| {
            let slow = ("calc__sleep", json!({"ms": 3_000}));
            let id = s.send(&call(&[slow, append("early")])).await;
            let query = format!("SELECT * FROM chat.pending_approvals WHERE job_id = '{id}'");
            let row = s.row_where(query, |_| true).await;
            assert_eq!(s.job(&id).await["status"], "running");
            Way::Sql
                .decide(s, "approve", &id, row["call_id"].as_str().unwrap())
                .await;
            assert_eq!(s.result_of(&id).await.json()["status"], "completed");
            assert_eq!(
                outcomes(s, &id).await,
                ["completed"],
                "it never had to wait"
            );
            assert!(s.lines("calc.log").contains(&"early".to_owned()));
        })
        .await;
}

#[tokio::test]
async fn a_call_that_nobody_approves_in_time_counts_as_denied() {
    guarded()
        .set("CHAT_APPROVAL_TIMEOUT_SECS", "2")
        .run(async |s| {
            let (id, calls) = held(s, &call(&[append("late")])).await;
            let result = s.result_of(&id).await.json();
            let text = result["message"]["content"].as_str().unwrap();
            assert!(
                text.starts_with("Nobody approved this call in time (by 2"),
                "{text}"
            );
            let expired = &s.tool_calls(&id).await[0];
            assert_eq!(
                (&expired["status"], &expired["approval"]),
                (&json!("refused"), &json!("expired"))
            );
            assert_eq!(s.lines("calc.log"), Vec::<String>::new());
            // Too late, and whoever says so is told.
            let query = format!("SELECT chat.approve('{id}', '{}') AS it", calls[0]);
            assert_eq!(s.row(query).await, json!({"it": false}));
            let said = s.failing_command(&["approve", &id, &calls[0]]).await;
            assert!(said.contains("time to approve the call was up"), "{said}");
        })
        .await;
}

#[tokio::test]
async fn a_job_that_waits_for_approval_can_be_cancelled_and_passes_its_deadline() {
    guarded()
        .run(async |s| {
            let (cancelled, calls) = held(s, &call(&[append("x")])).await;
            s.cancel(&cancelled, "enough").await;
            let result = s.result_of(&cancelled).await.json();
            assert_eq!(
                (&result["status"], &result["iterations"]),
                (&json!("cancelled"), &json!(1))
            );
            assert_eq!(pending(s, &cancelled).await, Vec::<String>::new());
            let query = format!("SELECT chat.approve('{cancelled}', '{}') AS it", calls[0]);
            assert_eq!(s.row(query).await, json!({"it": false}));
            let now = s.row("SELECT now() + interval '4 s' AS then").await;
            let (overdue, _) = held(
                s,
                &with(call(&[append("x")]), "deadline", now["then"].clone()),
            )
            .await;
            let result = s.result_of(&overdue).await.json();
            assert_eq!(result["error"]["code"], "deadline_exceeded");
            assert_eq!(s.lines("calc.log"), Vec::<String>::new());
        })
        .await;
}

#[tokio::test]
async fn nothing_holds_a_slot_meanwhile_and_later_turns_wait() {
    guarded()
        .set("CHAT_CONCURRENCY", "1")
        .run(async |s| {
            let conversation = Uuid::new_v4().to_string();
            let of = |job| with(job, "conversation_id", conversation.as_str());
            let first = of(call(&[append("first")]));
            let (id, calls) = held(s, &first).await;
            let later = s.send(&of(ask("later"))).await;
            s.waits(&later, "turn").await;
            assert_eq!(s.answer(&ask("other")).await["status"], "completed");
            assert_eq!(s.job(&later).await["status"], "waiting");
            // The same job again changes nothing.
            s.send(&with(first, "job_id", id.as_str())).await;
            assert_eq!(s.answer(&ask("another")).await["status"], "completed");
            assert_eq!(s.job(&id).await["wait_reason"], "approval");
            Way::Sql.decide(s, "approve", &id, &calls[0]).await;
            assert_eq!(s.result_of(&id).await.json()["turn"], 1);
            assert_eq!(s.result_of(&later).await.json()["turn"], 2);
        })
        .await;
}

#[tokio::test]
async fn a_word_reaches_a_job_whose_worker_is_gone() {
    guarded()
        .run(async |s| {
            let (approved, yes) = held(s, &call(&[append("yes")])).await;
            let (denied, no) = held(s, &call(&[append("no")])).await;
            let first = s.worker();
            first.signal(Signal::KILL);
            first.ended().await;
            Way::Sql.decide(s, "approve", &approved, &yes[0]).await;
            s.start_worker().await;
            Way::Broker.decide(s, "deny", &denied, &no[0]).await;
            for id in [&approved, &denied] {
                assert_eq!(s.result_of(id).await.json()["status"], "completed");
                assert_eq!(outcomes(s, id).await, ["parked", "completed"]);
                assert_eq!(s.job(id).await["failures"], 0);
            }
            assert_eq!(s.lines("calc.log"), ["yes"]);
        })
        .await;
}

#[tokio::test]
async fn what_needed_approval_when_it_was_asked_for_needs_it_whoever_goes_on() {
    let setup = guarded();
    let loose = setup.file("loose.json");
    let server =
        json!({"command": example("calc_server"), "env": {"CALC_LOG": setup.file("calc.log")}});
    std::fs::write(&loose, json!({"mcpServers": {"calc": server}}).to_string()).unwrap();
    setup
        .run(async |s| {
            let (id, calls) = held(s, &call(&[append("never")])).await;
            assert!(s.worker().stop().await.success());
            s.start_worker_with(&[("MCP_CONFIG", &loose)]).await;
            Way::Sql.decide(s, "deny", &id, &calls[0]).await;
            let result = s.result_of(&id).await.json();
            assert!(
                result["message"]["content"]
                    .as_str()
                    .unwrap()
                    .starts_with("A person denied")
            );
            assert_eq!(s.lines("calc.log"), Vec::<String>::new());
        })
        .await;
}

#[tokio::test]
async fn a_word_that_means_nothing_is_refused_with_a_reason() {
    guarded()
        .run(async |s| {
            let sum = ("calc__add", json!({"a": 1, "b": 2}));
            let (id, calls) = held(s, &call(&[sum, append("x")])).await;
            let free = s.tool_calls(&id).await[0]["call_id"]
                .as_str()
                .unwrap()
                .to_owned();
            let nobody = Uuid::new_v4().to_string();
            Way::Command.decide(s, "deny", &id, &calls[0]).await;
            s.result_of(&id).await;
            for (job, call, says, code) in [
                (&nobody, &calls[0], "there is no", "JB006"),
                (&id, &"call_x".to_owned(), "no ", "JB006"),
                (&id, &free, "needs nobody's approval", "JB007"),
                (&id, &calls[0], "was denied already", "JB007"),
            ] {
                let said = s.failing_command(&["approve", job, call]).await;
                assert!(said.contains(says), "{said}");
                let query = format!(
                    "DO $$ BEGIN PERFORM chat.approve('{job}', '{call}'); RAISE 'taken';
                    EXCEPTION WHEN SQLSTATE '{code}' THEN END $$"
                );
                s.sql(query).await;
                let body = json!({"type": "approve", "job_id": job, "call_id": call});
                s.control(body.to_string()).await;
                let letter = s
                    .dead_letters()
                    .await
                    .find(|letter| letter.json() == body)
                    .await;
                let text = letter.header("x-chat-error-message").unwrap();
                assert!(text.contains(says) && text.starts_with('/'), "{text}");
                assert_eq!(
                    letter.header("x-chat-error-code").as_deref(),
                    Some("invalid_job")
                );
            }
        })
        .await;
}

/// The id that a model gives to all of its calls.
const SAME: &str = "call_0";

#[tokio::test]
async fn a_repeated_word_decides_no_later_call_of_the_same_id() {
    let again = |line: &str| {
        Reply::message(
            &json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": SAME, "type": "function", "function": {"name": "calc__append", "arguments": json!({"line": line}).to_string()}}]}),
        )
    };
    Setup::new()
        .calc_with(&json!({"approval": ["*"]}))
        .replies([again("first"), again("second"), Reply::text("done")])
        .run(async |s| {
            let (id, _) = held(s, &ask("x")).await;
            Way::Broker.decide(s, "approve", &id, SAME).await;
            eventually("the second call", async || {
                let calls = s.tool_calls(&id).await;
                (calls.len() == 2 && s.job(&id).await["status"] == "waiting").then_some(())
            })
            .await;
            // As a worker does that the broker brings the message again.
            let repeat = format!(
                "SELECT chat.decide('{id}', '{SAME}', 'approved', 'ann', 'it''s so', true) AS it"
            );
            assert_eq!(s.row(repeat).await, json!({"it": "repeated"}));
            assert_eq!(pending(s, &id).await, [SAME]);
            Way::Command.decide(s, "deny", &id, SAME).await;
            assert_eq!(s.result_of(&id).await.json()["status"], "completed");
            assert_eq!(s.lines("calc.log"), ["first"]);
        })
        .await;
}

#[tokio::test]
async fn an_event_names_the_calls_that_wait() {
    guarded()
        .run(async |s| {
            let queue = s.broker.declare("").await;
            s.broker
                .bind(&queue, &s.name("events"), "*.job.waiting")
                .await;
            let inbox = s.broker.consume(&queue).await;
            let sum = ("calc__add", json!({"a": 1, "b": 2}));
            let (id, calls) = held(s, &call(&[sum, append("x")])).await;
            let event = inbox.next().await.json();
            assert_eq!(
                (&event["job_id"], &event["reason"]),
                (&json!(id), &json!("approval"))
            );
            assert!(event["due_at"].is_string());
            assert_eq!(
                event["calls"],
                json!([{"iteration": 1, "position": 2, "call_id": calls[0], "tool": "calc__append", "server": "calc"}])
            );
        })
        .await;
}

#[tokio::test]
async fn the_job_goes_on_soon_after_it_was_decided() {
    guarded()
        .run(async |s| {
            let (id, calls) = held(s, &call(&[append("x")])).await;
            Way::Sql.decide(s, "approve", &id, &calls[0]).await;
            s.result_of(&id).await;
            let query = format!(
                "SELECT extract(epoch FROM c.started_at - c.approval_at)::double precision AS seconds FROM chat.tool_calls AS c WHERE job_id = '{id}'"
            );
            let seconds = s.row(query).await["seconds"].as_f64().unwrap();
            assert!(Duration::from_secs_f64(seconds) < Duration::from_secs(3), "{seconds}");
        })
        .await;
}

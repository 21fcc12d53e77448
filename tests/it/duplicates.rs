//! Jobs that come again, and jobs under names that are taken.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::scenario::{Inbox, Properties, Scenario, Setup, ask, said, with};
use crate::stub_model::Reply;

fn numbered() -> Setup {
    Setup::new().replies((1..=9).map(|number| Reply::text(format!("answer {number}"))))
}

/// An inbox of the sender's own, and properties that name it.
async fn own_inbox(s: &Scenario, name: &str) -> (Inbox, Properties) {
    let queue = s.broker.declare(&s.name(&format!("reply.{name}"))).await;
    let properties = Properties::default().with_reply_to(queue.as_str().into());
    (
        s.broker.consume(&queue).await,
        properties.with_correlation_id(name.into()),
    )
}

#[tokio::test]
async fn a_job_seen_again_after_its_end_is_answered_again_without_running() {
    numbered()
        .run(async |s| {
            let job = with(
                with(ask("x"), "job_id", Uuid::new_v4().to_string()),
                "metadata",
                json!({"b": 1, "a": [2.50, "\u{0}"]}),
            );
            let id = s.send(&job).await;
            let first = s.result_of(&id).await;
            let (inbox, properties) = own_inbox(s, "second").await;
            s.send_with(&job, properties).await;
            let again = inbox.next().await;
            assert_eq!(again.message_id(), first.message_id());
            assert_eq!(
                (again.correlation_id(), again.header("x-chat-status")),
                ("second".to_owned(), Some("completed".to_owned()))
            );
            // Postgres keeps microseconds.
            let without_times = |mut result: Value| {
                for time in ["received_at", "started_at", "finished_at"] {
                    let text = result[time].as_str().unwrap()[..23].to_owned();
                    result[time] = text.into();
                }
                result
            };
            assert_eq!(without_times(again.json()), without_times(first.json()));
            assert_eq!(s.model.requests().len(), 1);
            let row = s.job(&id).await;
            assert_eq!(
                (&row["attempt"], &row["reply_to"]),
                (&json!(1), &Value::Null)
            );
        })
        .await;
}

#[tokio::test]
async fn a_total_of_the_providers_own_is_told_the_same_again() {
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 100});
    let message = json!({"role": "assistant", "content": "yes"});
    let reply = json!({"id": "r", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage});
    Setup::new()
        .replies([Reply::json(200, &reply)])
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            let first = s.result_of(&id).await.json();
            s.send(&with(ask("x"), "job_id", id.as_str())).await;
            assert_eq!(s.result_of(&id).await.json()["usage"], first["usage"]);
        })
        .await;
}

#[tokio::test]
async fn a_failed_job_seen_again_is_told_its_failure_again() {
    Setup::new()
        .run(async |s| {
            s.model.push(Reply::error(
                401,
                "invalid_request_error",
                "invalid_api_key",
                "no",
            ));
            let id = s.send(&ask("x")).await;
            let first = s.result_of(&id).await.json();
            s.send(&with(ask("x"), "job_id", id.as_str())).await;
            let again = s.result_of(&id).await.json();
            assert_eq!(first["error"]["code"], "model_auth");
            assert_eq!(first["error"], again["error"]);
            assert_eq!(s.rows("SELECT * FROM chat.dead_letters").await.len(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_job_that_runs_is_not_run_again_and_its_result_goes_to_the_last_who_asked() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .replies([Reply::text("once").when(&gate)])
        .replicas(2)
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            let (inbox, properties) = own_inbox(s, "late").await;
            let again = with(ask("x"), "job_id", id.as_str());
            s.send_with(&again, properties).await;
            let row = format!("SELECT * FROM chat.jobs WHERE id = '{id}'");
            s.row_where(row, |row| row["correlation_id"] == "late")
                .await;
            gate.add_permits(1);
            assert_eq!(inbox.next().await.json()["message"]["content"], "once");
            let other = s.answer(&ask("y")).await;
            assert_eq!(
                other["error"]["code"], "model_rejected",
                "the script is at its end"
            );
            assert_eq!(
                s.rows(format!("SELECT * FROM chat.attempts WHERE job_id = '{id}'"))
                    .await
                    .len(),
                1
            );
        })
        .await;
}

#[tokio::test]
async fn another_content_under_the_same_id_is_told_to_its_own_sender_alone() {
    numbered()
        .run(async |s| {
            let id = s.send(&ask("first")).await;
            s.result_of(&id).await;
            let other = with(ask("second"), "job_id", id.as_str());
            s.send_with(
                &other,
                Properties::default().with_correlation_id("nobody".into()),
            )
            .await;
            let (inbox, properties) = own_inbox(s, "thief").await;
            s.send_with(&other, properties).await;
            let refusal = inbox.next().await;
            assert_eq!(refusal.json()["error"]["code"], "job_id_conflict");
            assert_eq!(
                (refusal.header("x-chat-status"), refusal.correlation_id()),
                (Some("refused".to_owned()), "thief".to_owned())
            );
            assert_ne!(refusal.message_id(), id);
            assert!(!refusal.text().contains("answer 1"));
            assert_eq!(
                s.row(format!("SELECT reply FROM chat.jobs WHERE id = '{id}'"))
                    .await["reply"],
                "answer 1"
            );
            s.answer(&ask("third")).await;
            let told = s.results_so_far().await;
            assert!(told.is_empty(), "the results queue was told: {told:?}");
            assert_eq!(s.model.requests().len(), 2);
            let letters = s.rows("SELECT error_code FROM chat.dead_letters").await;
            assert_eq!(letters, vec![json!({"error_code": "job_id_conflict"}); 2]);
        })
        .await;
}

#[tokio::test]
async fn a_changed_field_of_any_kind_is_other_content() {
    numbered()
        .run(async |s| {
            let job = with(
                with(ask("x"), "job_id", Uuid::new_v4().to_string()),
                "metadata",
                json!({"a": 1}),
            );
            let id = s.send(&job).await;
            s.result_of(&id).await;
            let (inbox, properties) = own_inbox(s, "me").await;
            for changed in [
                with(job.clone(), "metadata", json!({"a": 2})),
                with(job.clone(), "max_iterations", 2),
                with(job.clone(), "user_id", "somebody-else"),
                with(job.clone(), "conversation_id", Uuid::new_v4().to_string()),
                with(job.clone(), "options", json!({"seed": 1})),
            ] {
                s.send_with(&changed, properties.clone()).await;
                assert_eq!(
                    inbox.next().await.json()["error"]["code"],
                    "job_id_conflict",
                    "{changed}"
                );
            }
            // Spaces and the order of members are no content.
            let spaced = serde_json::to_string_pretty(&job).unwrap();
            s.send_bytes(spaced.as_bytes(), properties).await;
            assert_eq!(inbox.next().await.json()["status"], "completed");
            assert_eq!(s.rows("SELECT * FROM chat.conversations").await.len(), 1);
        })
        .await;
}

#[tokio::test]
async fn the_message_id_is_the_jobs_id_where_it_has_none() {
    numbered()
        .run(async |s| {
            let uuid = Uuid::new_v4().to_string();
            let text = Uuid::new_v5(&Uuid::NAMESPACE_OID, b"order 7").to_string();
            for (message_id, job_id) in [(uuid.as_str(), &uuid), ("order 7", &text)] {
                let body = ask("x").to_string();
                for _ in 0..2 {
                    let properties = Properties::default().with_message_id(message_id.into());
                    s.send_bytes(body.as_bytes(), properties).await;
                    let result = s.results().await.next().await;
                    assert_eq!(
                        (result.json()["job_id"].as_str(), &result.message_id()),
                        (Some(job_id.as_str()), job_id)
                    );
                }
            }
            assert_eq!(s.model.requests().len(), 2);
            // Without any id nothing recognises a repeat.
            for _ in 0..2 {
                s.send_bytes(ask("x").to_string().as_bytes(), Properties::default())
                    .await;
                s.results().await.next().await;
            }
            assert_eq!(s.model.requests().len(), 4);
            // The job's own id wins.
            let own = s
                .send_with(
                    &ask("x"),
                    Properties::default().with_message_id("order 7".into()),
                )
                .await;
            s.result_of(&own).await;
        })
        .await;
}

#[tokio::test]
async fn a_conversation_belongs_to_its_first_user() {
    Setup::new()
        .model(|_| Reply::text("the secret word is plover"))
        .run(async |s| {
            let first = s.answer(&ask("my secret")).await;
            let conversation = first["conversation_id"].as_str().unwrap();
            let theirs = with(
                with(ask("tell me"), "conversation_id", conversation),
                "user_id",
                "mallory",
            );
            let (inbox, properties) = own_inbox(s, "mallory").await;
            let id = s.send_with(&theirs, properties).await;
            let told = inbox.next().await;
            assert_eq!(told.json()["error"]["code"], "conversation_forbidden");
            assert!(
                !told.text().contains("user-42") && !told.text().contains("plover"),
                "{}",
                told.text()
            );
            assert_eq!(s.model.requests().len(), 1);
            assert!(
                s.rows(format!("SELECT * FROM chat.jobs WHERE id = '{id}'"))
                    .await
                    .is_empty()
            );
            // Without an inbox of its own it is told where results go.
            let id = s.send(&theirs).await;
            assert_eq!(
                s.result_of(&id).await.json()["error"]["code"],
                "conversation_forbidden"
            );
            let mine = s
                .answer(&with(ask("again"), "conversation_id", conversation))
                .await;
            assert_eq!(mine["turn"], 2);
            assert_eq!(said(&s.last_prompt(), "user"), ["my secret", "again"]);
        })
        .await;
}

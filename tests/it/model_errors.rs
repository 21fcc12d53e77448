//! What a failing model server comes to: the contract's code in the result, the row and the dead letter.

use serde_json::{Value, json};

use crate::scenario::{API_KEY, Scenario, Setup, ask, with};
use crate::stub_model::Reply;

fn error(status: u16, kind: &str, code: &str) -> Reply {
    Reply::error(status, kind, code, "as scripted")
}

fn busy() -> Reply {
    error(429, "requests", "rate_limit_exceeded").with_header("retry-after", "0")
}

/// The job's result, after the row and both dead letters were seen to say the same.
async fn failed(s: &Scenario, code: &str) -> Value {
    let id = s
        .send(&with(ask("x"), "metadata", json!({"case": code})))
        .await;
    let received = s.result_of(&id).await;
    let result = received.json();
    assert_eq!(
        (&result["status"], &result["error"]["code"]),
        (&json!("failed"), &json!(code)),
        "{result}"
    );
    assert_eq!(
        (&result["metadata"]["case"], &result["attempt"]),
        (&json!(code), &json!(1))
    );
    assert_eq!(received.header("x-chat-status").as_deref(), Some("failed"));
    assert_eq!(received.message_id(), id);
    let message = result["error"]["message"].as_str().unwrap();
    assert!(!message.contains(API_KEY), "{message}");
    let row = s.job(&id).await;
    assert_eq!(
        (&row["status"], &row["error_code"], &row["error_message"]),
        (&json!("failed"), &json!(code), &json!(message))
    );
    let attempt = s
        .row(format!("SELECT * FROM chat.attempts WHERE job_id = '{id}'"))
        .await;
    assert_eq!(
        (&attempt["outcome"], &attempt["error_code"]),
        (&json!("failed"), &json!(code))
    );
    let dead = s.row(format!("SELECT *, convert_from(body, 'UTF8') AS text FROM chat.dead_letters WHERE job_id = '{id}'")).await;
    assert_eq!(
        (&dead["error_code"], &dead["error_message"]),
        (&json!(code), &json!(message))
    );
    let copy = s.dead_letters().await.next().await;
    assert_eq!(
        (
            copy.header("x-chat-error-code").as_deref(),
            copy.header("x-chat-attempts").as_deref()
        ),
        (Some(code), Some("1"))
    );
    assert_eq!(copy.json()["job_id"], json!(id));
    assert_eq!(
        serde_json::from_str::<Value>(dead["text"].as_str().unwrap()).unwrap(),
        copy.json()
    );
    result
}

#[tokio::test]
async fn a_model_that_is_busy_for_a_moment_is_asked_again() {
    let replies = [busy(), Reply::close(), Reply::text("at last")];
    Setup::new()
        .replies(replies)
        .run(async |s| {
            let result = s.answer(&ask("x")).await;
            assert_eq!(
                (&result["message"]["content"], &result["iterations"]),
                (&json!("at last"), &json!(1))
            );
            assert_eq!(s.model.requests().len(), 3);
            assert_eq!(s.rows("SELECT * FROM chat.iterations").await.len(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_model_that_stays_away_makes_the_job_fail() {
    let gone = || error(500, "server_error", "");
    Setup::new()
        .set("CHAT_MAX_ATTEMPTS", "1")
        .replies([gone(), gone(), gone()])
        .run(async |s| {
            failed(s, "model_unavailable").await;
            assert_eq!(s.model.requests().len(), 3);
        })
        .await;
}

#[tokio::test]
async fn a_refusal_for_good_is_not_asked_again() {
    let cases = [
        (
            "model_auth",
            error(401, "invalid_request_error", "invalid_api_key"),
        ),
        ("model_auth", error(403, "invalid_request_error", "")),
        (
            "model_quota",
            error(429, "insufficient_quota", "insufficient_quota"),
        ),
        (
            "context_too_long",
            error(400, "invalid_request_error", "context_length_exceeded"),
        ),
        (
            "content_filtered",
            error(400, "invalid_request_error", "content_filter"),
        ),
        (
            "model_rejected",
            error(400, "invalid_request_error", "invalid_value"),
        ),
        (
            "model_rejected",
            error(404, "invalid_request_error", "model_not_found"),
        ),
    ];
    Setup::new()
        .run(async |s| {
            for (number, (code, reply)) in cases.into_iter().enumerate() {
                s.model.push(reply);
                failed(s, code).await;
                assert_eq!(s.model.requests().len(), number + 1);
            }
            s.model.push(Reply::text("fine"));
            assert_eq!(s.answer(&ask("x")).await["message"]["content"], "fine");
        })
        .await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_a_breach_of_protocol() {
    for broken in [
        || Reply::raw(200, "<html>"),
        || Reply::raw(200, r#"{"choices":[]}"#),
        || Reply::raw(200, [0xff, 0xfe, 0x00]),
    ] {
        Setup::new()
            .set("CHAT_MAX_ATTEMPTS", "1")
            .replies([broken(), broken(), broken()])
            .run(async |s| {
                failed(s, "model_protocol").await;
            })
            .await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    Setup::new()
        .replies([Reply::truncated(), Reply::text("whole")])
        .run(async |s| {
            assert_eq!(s.answer(&ask("x")).await["message"]["content"], "whole");
        })
        .await;
}

#[tokio::test]
async fn a_model_that_hangs_is_given_up_after_its_time() {
    let setup = Setup::new()
        .set("CHAT_MAX_ATTEMPTS", "1")
        .replies([Reply::never(), Reply::never()]);
    setup
        .set("CHAT_MODEL_TIMEOUT_SECS", "1")
        .run(async |s| {
            let result = failed(s, "model_unavailable").await;
            assert!(
                result["error"]["message"].as_str().unwrap().contains("1 s"),
                "{result}"
            );
        })
        .await;
}

#[tokio::test]
async fn what_was_done_before_the_failure_stands_in_the_record() {
    let call = Reply::calls([("calc__add", json!({"a": 1, "b": 2}))]);
    let replies = [call, error(401, "invalid_request_error", "invalid_api_key")];
    Setup::new()
        .calc()
        .replies(replies)
        .run(async |s| {
            let result = failed(s, "model_auth").await;
            assert_eq!(
                (&result["iterations"], &result["tool_calls"]),
                (&json!(1), &json!(1))
            );
            let call = s.row("SELECT * FROM chat.tool_calls").await;
            assert_eq!(
                (&call["status"], &call["result"]),
                (&json!("succeeded"), &json!("3"))
            );
            assert!(result["usage"]["total_tokens"].as_u64().unwrap() > 0);
        })
        .await;
}

//! A model that goes nowhere: it says nothing, repeats itself, or asks for what is not there.

use serde_json::{Value, json};

use crate::scenario::{Setup, ask, said, with};
use crate::stub_model::Reply;

#[tokio::test]
async fn a_model_that_says_nothing_is_asked_again_once() {
    Setup::new()
        .replies([
            Reply::text(""),
            Reply::text("here I am"),
            Reply::text(""),
            Reply::message(&json!({"role": "assistant", "content": null})),
        ])
        .run(async |s| {
            let result = s.answer(&ask("hello?")).await;
            assert_eq!(
                (&result["message"]["content"], &result["iterations"]),
                (&json!("here I am"), &json!(2))
            );
            let users = said(&s.last_prompt(), "user");
            assert_eq!((users.len(), &users[0]), (2, &"hello?".to_owned()));
            assert!(users[1].contains("empty"), "{users:?}");
            assert!(result.get("warnings").is_none());
            let silent = s.answer(&ask("and now?")).await;
            assert_eq!(
                (
                    &silent["finish_reason"],
                    &silent["message"]["content"],
                    &silent["iterations"]
                ),
                (&json!("answered"), &json!(""), &json!(2))
            );
            assert_eq!(silent["warnings"], json!(["the model's answer was empty"]));
        })
        .await;
}

#[tokio::test]
async fn the_same_call_again_and_again_is_answered_and_then_the_job_stops() {
    let stubborn = |request: &Value| {
        let messages = request["messages"].as_array().unwrap();
        let line = said(messages, "user").remove(0);
        Reply::calls([("calc__append", json!({ "line": line }))])
    };
    Setup::new()
        .calc()
        .model(stubborn)
        .run(async |s| {
            let job = with(ask("again"), "max_iterations", 10);
            let result = s.answer(&job).await;
            assert_eq!(
                (&result["finish_reason"], &result["iterations"]),
                (&json!("iteration_limit"), &json!(4)),
                "{result}"
            );
            let warning = result["warnings"][0].as_str().unwrap();
            assert!(warning.contains("calc__append"), "{warning}");
            assert_eq!(s.lines("calc.log").len(), 2);
            let calls = s.tool_calls(result["job_id"].as_str().unwrap()).await;
            let statuses: Vec<_> = calls.iter().map(|call| call["status"].clone()).collect();
            assert_eq!(statuses, ["succeeded", "succeeded", "refused", "requested"]);
            let told = said(&s.last_prompt(), "tool").remove(2);
            assert!(told.contains("was not made"), "{told}");
        })
        .await;
}

#[tokio::test]
async fn three_turns_of_nothing_but_invalid_calls_fail_the_job() {
    Setup::new()
        .calc()
        .replies([
            Reply::calls([("calc__fly", json!({}))]),
            Reply::calls([("calc__add", json!({"a": "one"}))]),
            Reply::calls([("calc__swim", json!({})), ("calc__add", json!([]))]),
        ])
        .run(async |s| {
            let result = s.answer(&with(ask("fly"), "max_iterations", 10)).await;
            assert_eq!(
                (
                    &result["status"],
                    &result["error"]["code"],
                    &result["iterations"]
                ),
                (&json!("failed"), &json!("model_protocol"), &json!(3)),
                "{result}"
            );
            assert_eq!(result["attempt"], 1);
            let text = result["error"]["message"].as_str().unwrap();
            assert!(
                text.contains("3 times in a row") && text.contains("calc__swim"),
                "{text}"
            );
        })
        .await;
}

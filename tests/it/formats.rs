//! Replies of a shape, and images in what the user says.

use serde_json::{Value, json};

use crate::scenario::{Properties, Scenario, Setup, ask, said, with};
use crate::stub_model::Reply;

fn city() -> Value {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}},
        "required": ["city"], "additionalProperties": false});
    let named = json!({"name": "city", "strict": true, "schema": schema});
    json!({"response_format": {"type": "json_schema", "json_schema": named}})
}

/// What the sender of a job is told that is none.
async fn refusal(s: &Scenario, job: &Value) -> Value {
    let told = Properties::default().with_correlation_id("who asks".into());
    let id = s.send_with(job, told).await;
    s.result_of(&id).await.json()
}

#[tokio::test]
async fn a_reply_of_a_schema_is_sent_back_once_and_its_value_is_in_the_result() {
    Setup::new()
        .replies([
            Reply::text("Lima, I think"),
            Reply::text(r#"{"city": "Lima"}"#),
            Reply::text(r#"{"town": "Lima"}"#),
            Reply::text(r#"{"city": 7}"#),
        ])
        .run(async |s| {
            let job = with(ask("Where?"), "options", city());
            let id = s.send(&job).await;
            let result = s.result_of(&id).await.json();
            assert_eq!(result["parsed"], json!({"city": "Lima"}), "{result}");
            assert_eq!(
                (&result["message"]["content"], &result["iterations"]),
                (&json!(r#"{"city": "Lima"}"#), &json!(2))
            );
            let prompt = s.last_prompt();
            assert_eq!(prompt[2]["content"], "Lima, I think");
            let told = said(&prompt, "user").remove(1);
            assert!(
                told.contains("not the JSON") && told.contains("no JSON"),
                "{told}"
            );
            let sent = s.model.requests().remove(0).body;
            assert_eq!(sent["response_format"], city()["response_format"]);
            // A repeat is answered from the row, which holds the reply alone.
            let again = with(
                with(job.clone(), "job_id", id.clone()),
                "metadata",
                Value::Null,
            );
            s.send(&again).await;
            assert_eq!(s.result_of(&id).await.json(), result);

            let failed = s.answer(&job).await;
            assert_eq!(
                (
                    &failed["status"],
                    &failed["error"]["code"],
                    &failed["iterations"]
                ),
                (&json!("failed"), &json!("model_protocol"), &json!(2))
            );
            let text = failed["error"]["message"].as_str().unwrap();
            assert!(text.contains("/city: 7 is not of type"), "{text}");
            assert!(failed.get("parsed").is_none());
        })
        .await;
}

#[tokio::test]
async fn what_was_sent_back_is_no_part_of_the_next_turn() {
    Setup::new()
        .replies([
            Reply::text("no object"),
            Reply::text("{}"),
            Reply::text("bye"),
        ])
        .run(async |s| {
            let object = json!({"name": "any", "schema": {"type": "object"}});
            let options =
                json!({"response_format": {"type": "json_schema", "json_schema": object}});
            let first = s.answer(&with(ask("one"), "options", options)).await;
            assert_eq!(first["parsed"], json!({}));
            let next = with(
                ask("two"),
                "conversation_id",
                first["conversation_id"].clone(),
            );
            s.answer(&next).await;
            let prompt = s.last_prompt();
            assert_eq!(said(&prompt, "assistant"), ["{}"]);
            assert_eq!(said(&prompt, "user"), ["one", "two"]);
        })
        .await;
}

#[tokio::test]
async fn in_json_mode_any_object_is_parsed_and_anything_else_is_taken_with_a_warning() {
    Setup::new()
        .replies([Reply::text("{\"a\": 1}"), Reply::text("The answer is 42")])
        .run(async |s| {
            let options = json!({"response_format": {"type": "json_object"}});
            let job = with(ask("x"), "options", options);
            let object = s.answer(&job).await;
            assert_eq!(object["parsed"], json!({"a": 1}));
            let words = s.answer(&job).await;
            assert_eq!(
                (&words["finish_reason"], words.get("parsed")),
                (&json!("answered"), None)
            );
            let warning = words["warnings"][0].as_str().unwrap();
            assert!(warning.contains("no JSON object"), "{warning}");
        })
        .await;
}

#[tokio::test]
async fn a_schema_that_is_none_is_refused_by_its_place() {
    Setup::new()
        .run(async |s| {
            let mut options = city();
            options["response_format"]["json_schema"]["schema"]["type"] = json!("objekt");
            let refused = refusal(s, &with(ask("x"), "options", options)).await;
            assert_eq!(refused["error"]["code"], "invalid_job");
            let text = refused["error"]["message"].as_str().unwrap();
            assert!(
                text.starts_with("/options/response_format/json_schema/schema: "),
                "{text}"
            );
            assert_eq!(s.model.requests().len(), 0);
        })
        .await;
}

#[tokio::test]
async fn images_of_the_user_go_to_the_model_as_they_are() {
    let pixel = "data:image/png;base64,iVBORw0KGgo=";
    let parts = json!([
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": pixel}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.webp"}},
    ]);
    let job = json!({"user_id": "user-42", "messages": [{"role": "user", "content": parts}]});
    Setup::new()
        .replies([Reply::text("a cat"), Reply::text("the same cat")])
        .run(async |s| {
            let first = s.answer(&job).await;
            assert_eq!(first["message"]["content"], "a cat");
            assert_eq!(s.last_prompt()[1]["content"], parts);
            let next = with(
                ask("sure?"),
                "conversation_id",
                first["conversation_id"].clone(),
            );
            s.answer(&next).await;
            assert_eq!(s.last_prompt()[1]["content"], parts);

            let mut bad = job.clone();
            bad["messages"][0]["content"][2]["image_url"]["url"] =
                json!("data:image/bmp;base64,AAAA");
            let refused = refusal(s, &bad).await;
            let text = refused["error"]["message"].as_str().unwrap();
            assert!(
                text.starts_with("/messages/0/content/2/image_url/url: "),
                "{text}"
            );
        })
        .await;
}

//! Answers that come piece by piece, over HTTP: the client against a scripted server that can also end
//! too soon, fall silent, break off, and answer in one piece all the same.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chat_worker::chat::{
    Answer, Content, Message, ModelOptions, Prompt, PromptMessage, Role, ToolChoice,
};
use chat_worker::clock::Deadline;
use chat_worker::config::{ModelConfig, ModelProfile, ProviderConfig};
use chat_worker::model::{Along, Ear, Heard, Model, ModelError};
use serde_json::{Value, json};

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../examples/stub_model/server.rs"]
mod stub_model;

use stub_model::{Reply, Script, StubModel};

const TEXT: &str = "Veinte más veintidós son cuarenta y dos. \u{1F600}";

fn config(stub: &StubModel) -> ModelConfig {
    let profile = ModelProfile::at(ProviderConfig::new(stub.base_url(), None));
    ModelConfig::new("gpt-4o-mini", profile, Duration::from_secs(20))
}

fn prompt() -> Prompt {
    let content = Content::Text("Hello".to_owned());
    let role = Role::User;
    Prompt {
        model: "gpt-4o-mini".into(),
        messages: vec![PromptMessage::Given(Arc::new(Message { role, content }))],
        tools: Arc::new([]),
        tool_choice: ToolChoice::Auto,
        options: Arc::new(ModelOptions::default()),
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_mins(1))
}

/// What a listener heard: texts, and that all before is void.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<(Vec<String>, Vec<String>)>>);

impl Notes {
    fn ear(&self) -> Ear {
        let notes = self.clone();
        Ear::new(true, move |heard| {
            let mut notes = notes.0.lock().unwrap();
            match heard {
                Heard::Text(text) => notes.0.push(text.to_owned()),
                Heard::Again(error) => {
                    notes.0.clear();
                    notes.1.push(error.to_string());
                }
            }
        })
    }

    fn pieces(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }

    /// Why the model was asked again.
    fn restarts(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }
}

/// Asks aloud; what was heard, and what came.
async fn ask(model: &Model) -> (Notes, Result<Answer, ModelError>) {
    let notes = Notes::default();
    let ear = notes.ear();
    let along = Along {
        ear: Some(&ear),
        ..Along::default()
    };
    let answer = model.complete_along(&prompt(), soon(), along).await;
    (notes, answer)
}

fn same(streamed: &Answer, plain: &Answer) {
    let message = |answer: &Answer| serde_json::from_str::<Value>(answer.message.get()).unwrap();
    assert_eq!(message(streamed), message(plain));
    assert_eq!(streamed.content, plain.content);
    assert_eq!(streamed.tool_calls, plain.tool_calls);
    assert_eq!(streamed.finish_reason, plain.finish_reason);
    assert_eq!(streamed.model, plain.model);
    assert_eq!(
        streamed.usage.output_tokens, plain.usage.output_tokens,
        "the prompts differ in what asks for a stream, the answers do not"
    );
}

#[tokio::test]
async fn an_answer_is_the_same_whether_or_not_it_comes_piece_by_piece() {
    let calls = json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "calc__add", "arguments": r#"{"a": 20, "b": 22}"#}},
        {"id": "call_2", "type": "function", "function": {"name": "calc__add", "arguments": "{}"}},
    ]});
    let refusal = json!({"role": "assistant", "content": null, "refusal": "I will not."});
    for message in [
        json!({"role": "assistant", "content": TEXT}),
        calls,
        refusal,
    ] {
        let reply = || Reply::message(&message);
        let stub = StubModel::start(Script::queue([reply(), reply()]));
        let model = Model::connect(&config(&stub)).unwrap();
        let plain = model.complete(&prompt(), soon()).await.unwrap();
        let (notes, streamed) = ask(&model).await;
        same(&streamed.unwrap(), &plain);
        assert_eq!(
            notes.pieces().concat(),
            plain.content.unwrap_or_default(),
            "the pieces joined are what is said"
        );
        let requests = stub.requests();
        assert_eq!(requests[0].body.get("stream"), None);
        assert_eq!(requests[1].body["stream"], true);
        assert_eq!(
            requests[1].body["stream_options"],
            json!({"include_usage": true})
        );
        assert_eq!(stub.refusals(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn words_are_heard_before_the_answer_is_there() {
    let paced = Reply::text("one two three four").paced(Duration::from_millis(20));
    let stub = StubModel::start(Script::queue([paced]));
    let model = Model::connect(&config(&stub)).unwrap();
    let (notes, _) = ask(&model).await;
    assert!(notes.pieces().len() > 2, "{:?}", notes.pieces());
}

#[tokio::test]
async fn a_stream_that_fails_half_way_is_asked_for_again_and_says_so() {
    for (fault, says) in [
        (Reply::text(TEXT).ends_after(4), "ended before"),
        (Reply::text(TEXT).breaks_after(4), "broke off"),
        (Reply::text(TEXT).fails_after(4), "as scripted"),
        (Reply::text(TEXT).stalls_after(4), "fell silent for 1 s"),
        (Reply::text(TEXT).ends_after(0), "ended before"),
        (Reply::close(), ""),
    ] {
        let stub = StubModel::start(Script::queue([fault, Reply::text(TEXT)]));
        let model = Model::connect(&ModelConfig {
            idle: Duration::from_secs(1),
            ..config(&stub)
        })
        .unwrap();
        let (notes, answer) = ask(&model).await;
        assert_eq!(answer.unwrap().content.as_deref(), Some(TEXT));
        let [why] = &*notes.restarts() else {
            panic!("one restart: {:?}", notes.restarts());
        };
        assert!(why.contains(says), "{why}");
        assert_eq!(notes.pieces().concat(), TEXT);
        assert_eq!(stub.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_stream_that_always_ends_too_soon_is_given_up() {
    let stub = StubModel::start(Script::closure(|_| Reply::text(TEXT).ends_after(3)));
    let model = Model::connect(&config(&stub)).unwrap();
    let (notes, answer) = ask(&model).await;
    let error = answer.unwrap_err();
    assert_eq!(error.code().as_str(), "model_unavailable");
    assert_eq!(notes.restarts().len(), 2);
    assert_eq!(stub.requests().len(), 3);
}

#[tokio::test]
async fn a_server_that_answers_in_one_piece_all_the_same_is_understood() {
    let stub = StubModel::start(Script::queue([Reply::text(TEXT).in_one_piece()]));
    let model = Model::connect(&config(&stub)).unwrap();
    let (notes, answer) = ask(&model).await;
    assert_eq!(answer.unwrap().content.as_deref(), Some(TEXT));
    assert_eq!(notes.restarts(), Vec::<String>::new());
}

#[tokio::test]
async fn an_error_before_the_stream_is_classified_as_ever() {
    let busy = Reply::error(429, "requests", "rate_limit_exceeded", "slow down")
        .with_header("retry-after", "0.1");
    let denied = Reply::error(401, "invalid_request_error", "invalid_api_key", "no");
    let stub = StubModel::start(Script::queue([busy, denied]));
    let model = Model::connect(&config(&stub)).unwrap();
    let (notes, answer) = ask(&model).await;
    assert_eq!(answer.unwrap_err().code().as_str(), "model_auth");
    assert_eq!(notes.restarts().len(), 1);
}

#[tokio::test]
async fn a_stream_that_nobody_asked_for_is_an_answer_all_the_same() {
    let chunk = |delta: &Value, finish: &Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", json!({"id": "c", "choices": [choice]}))
    };
    let body = [
        chunk(&json!({"role": "assistant", "content": "He"}), &Value::Null),
        chunk(&json!({"content": "llo"}), &Value::Null),
        chunk(&json!({}), &json!("stop")),
        "data: [DONE]\n\n".to_owned(),
    ];
    let reply = Reply::raw(200, body.concat()).with_header("content-type", "text/event-stream");
    let stub = StubModel::start(Script::queue([reply]));
    let model = Model::connect(&config(&stub)).unwrap();
    let answer = model.complete(&prompt(), soon()).await.unwrap();
    assert_eq!(answer.content.as_deref(), Some("Hello"));
    assert_eq!(stub.requests()[0].body.get("stream"), None);
}

/// What strict servers say of a field that they do not know, and looser ones.
#[tokio::test]
async fn a_server_without_stream_options_is_not_asked_for_them_again() {
    let detail =
        json!([{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]);
    for (status, message) in [
        (422, json!({"detail": detail})),
        (
            400,
            json!({"error": {"message": "Unrecognized request argument supplied: stream_options"}}),
        ),
    ] {
        let refuse = move |request: &Value| match request.get("stream_options") {
            Some(_) => Reply::json(status, &message),
            None => Reply::text(TEXT),
        };
        let stub = StubModel::start(Script::closure(refuse));
        let model = Model::connect(&config(&stub)).unwrap();
        for requests in [2, 3] {
            let (notes, answer) = ask(&model).await;
            assert_eq!(answer.unwrap().content.as_deref(), Some(TEXT));
            assert_eq!(notes.restarts(), Vec::<String>::new());
            assert_eq!(stub.requests().len(), requests);
        }
    }
}

#[tokio::test]
async fn a_stream_that_goes_on_and_on_ends_with_the_time_for_a_call() {
    let endless = Reply::text("x".repeat(4_000)).paced(Duration::from_millis(50));
    let stub = StubModel::start(Script::closure(move |_| endless.clone()));
    let config = ModelConfig {
        timeout: Duration::from_secs(1),
        ..config(&stub)
    };
    let model = Model::connect(&config).unwrap();
    let (notes, answer) = ask(&model).await;
    let error = answer.unwrap_err();
    assert!(
        error.to_string().contains("no answer within 1 s"),
        "{error}"
    );
    assert!(!notes.pieces().is_empty(), "some of it was heard");
}

/// The model has said why it stopped; that its server keeps the connection open is no reason to wait.
#[tokio::test]
async fn an_answer_that_is_complete_is_not_held_up_by_a_stream_that_stays_open() {
    // Who speaks, "done", and why it stopped.
    let stub = StubModel::start(Script::queue([Reply::text("done").stalls_after(3)]));
    let model = Model::connect(&config(&stub)).unwrap();
    let begun = Instant::now();
    let (notes, answer) = ask(&model).await;
    assert_eq!(answer.unwrap().content.as_deref(), Some("done"));
    assert_eq!(notes.restarts(), Vec::<String>::new());
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn the_configuration_has_every_answer_come_piece_by_piece() {
    let stub = StubModel::start(Script::queue([Reply::text(TEXT)]));
    let config = ModelConfig {
        stream: true,
        ..config(&stub)
    };
    let model = Model::connect(&config).unwrap();
    let answer = model.complete(&prompt(), soon()).await.unwrap();
    assert_eq!(answer.content.as_deref(), Some(TEXT));
    assert_eq!(stub.requests()[0].body["stream"], true);
}

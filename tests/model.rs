//! The model client against a scripted server, over real HTTP.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what is missing in a test ends it"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chat_worker::chat::{
    Content, Message, ModelOptions, Prompt, PromptMessage, Role, Stop, ToolCall, ToolChoice,
    ToolSpec,
};
use chat_worker::clock::Deadline;
use chat_worker::config::{Api, ModelConfig, ModelProfile, ProviderConfig, Secret};
use chat_worker::fault::{ErrorCode, Fault};
use chat_worker::model::{Along, Model, ModelError};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

#[expect(dead_code, reason = "the program uses the rest of it")]
#[path = "../examples/stub_model/server.rs"]
mod server;

use server::{Recorded, Reply, Script, StubModel};

const KEY: &str = "sk-test-0123456789";

fn config(base_url: String) -> ModelConfig {
    configured(base_url, Some(Secret::new(KEY)))
}

fn configured(base_url: String, key: Option<Secret>) -> ModelConfig {
    let profile = ModelProfile::at(ProviderConfig::new(base_url, key));
    ModelConfig::new("gpt-4o-mini", profile, Duration::from_secs(20))
}

/// A client that speaks one dialect.
fn speaking(stub: &StubModel, api: Api) -> Model {
    let profile = ModelProfile {
        api,
        ..ModelProfile::at(ProviderConfig::new(stub.base_url(), None))
    };
    let config = ModelConfig::new("gpt-4o-mini", profile, Duration::from_secs(20));
    Model::connect(&config).expect("a client")
}

fn connect(stub: &StubModel) -> Model {
    Model::connect(&config(stub.base_url())).expect("a client")
}

fn replies(replies: impl IntoIterator<Item = Reply>) -> (StubModel, Model) {
    let stub = StubModel::start(Script::queue(replies));
    let model = connect(&stub);
    (stub, model)
}

fn user(text: &str) -> PromptMessage {
    let content = Content::Text(text.to_owned());
    PromptMessage::Given(Arc::new(Message {
        role: Role::User,
        content,
    }))
}

fn raw(json: &str) -> Arc<RawValue> {
    RawValue::from_string(json.to_owned()).expect("JSON").into()
}

fn prompt(messages: impl IntoIterator<Item = PromptMessage>) -> Prompt {
    Prompt {
        model: "gpt-4o-mini".into(),
        messages: messages.into_iter().collect(),
        tools: Arc::new([ToolSpec {
            name: "calc__add".to_owned(),
            description: "Adds.".to_owned(),
            schema: raw(
                r#"{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}}}"#,
            ),
        }]),
        tool_choice: ToolChoice::Auto,
        options: Arc::new(ModelOptions::default()),
    }
}

fn hello() -> Prompt {
    prompt([user("Hello")])
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_mins(1))
}

/// Permits so many attempts.
struct Permits(Mutex<u32>);

impl chat_worker::model::Permit for Permits {
    fn attempt(&self) -> futures_util::future::BoxFuture<'_, bool> {
        let mut left = self.0.lock().unwrap();
        let permitted = *left > 0;
        *left = left.saturating_sub(1);
        Box::pin(std::future::ready(permitted))
    }
}

#[tokio::test]
async fn each_attempt_is_permitted_or_not_made() {
    let down = || Reply::error(503, "server_error", "overloaded", "Down");
    for (permits, requests) in [(0, 0), (1, 1), (2, 2)] {
        let (stub, model) = replies([down(), down(), Reply::text("Hi")]);
        let permit = Permits(Mutex::new(permits));
        let along = Along {
            permit: Some(&permit),
            ..Along::default()
        };
        let error = model.complete_along(&hello(), soon(), along).await;
        assert!(
            matches!(error, Err(ModelError::NotPermitted)),
            "{permits}: {error:?}"
        );
        assert_eq!(stub.requests().len(), requests);
    }
}

/// The time between two requests.
fn gap(requests: &[Recorded], first: usize) -> Duration {
    requests[first + 1].at - requests[first].at
}

#[tokio::test]
async fn an_answer_in_words_comes_back_with_its_usage() {
    let (stub, model) = replies([Reply::text("Hi there")]);
    let answer = model.complete(&hello(), soon()).await.unwrap();
    assert_eq!(answer.content.as_deref(), Some("Hi there"));
    assert_eq!(answer.stop, Stop::Done);
    assert_eq!(answer.model.as_deref(), Some("gpt-4o-mini-2024-07-18"));
    assert!(answer.response_id.unwrap().starts_with("chatcmpl-"));
    assert!(answer.usage.input_tokens > 0);
    let total = answer.usage.input_tokens + answer.usage.output_tokens;
    assert_eq!(answer.usage.total_tokens, total);
    let requests = stub.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        requests[0].headers["authorization"],
        format!("Bearer {KEY}")
    );
    assert_eq!(requests[0].headers["content-type"], "application/json");
}

#[tokio::test]
async fn without_a_key_no_authorization_is_sent() {
    let stub = StubModel::start(Script::queue([Reply::text("Hi")]));
    let model = Model::connect(&configured(stub.base_url(), None)).unwrap();
    model.complete(&hello(), soon()).await.unwrap();
    assert!(!stub.requests()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_turn_with_a_tool_goes_all_the_way_round() {
    let stub = StubModel::start(Script::arithmetic());
    let model = connect(&stub);
    let mut prompt = prompt([user("What is 20 plus 22?")]);
    let asked = model.complete(&prompt, soon()).await.unwrap();
    assert_eq!(asked.content, None);
    let [call] = &*asked.tool_calls else {
        panic!("one call: {:?}", asked.tool_calls);
    };
    assert_eq!(call.name, "calc__add");
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
    assert_eq!(arguments, json!({"a": 20, "b": 22}));
    let call_id = call.call_id.clone();
    prompt.messages.push(PromptMessage::Assistant {
        message: asked.message,
        tool_calls: asked.tool_calls,
        asked: asked.asked,
    });
    prompt.messages.push(PromptMessage::Tool {
        call_id,
        content: "42".into(),
        media: Arc::default(),
    });
    let answered = model.complete(&prompt, soon()).await.unwrap();
    assert_eq!(answered.content.as_deref(), Some("The answer is 42"));
    assert!(answered.tool_calls.is_empty());
}

#[tokio::test]
async fn what_the_provider_said_is_replayed_byte_for_byte() {
    let said = r#"{ "role":"assistant", "content":null, "reasoning_content":"first … \u00e9", "n":1.50,"tool_calls":[{"id":"a","type":"function","extra":{"signature":"x=="},"function":{"name":"calc__add","arguments":"{ \"a\": 1 }"}}]}"#;
    let (stub, model) = replies([Reply::message_text(said), Reply::text("2")]);
    let asked = model.complete(&hello(), soon()).await.unwrap();
    assert_eq!(asked.message.get(), said);
    let history = prompt([
        user("Hello"),
        PromptMessage::Assistant {
            message: asked.message,
            tool_calls: asked.tool_calls,
            asked: asked.asked,
        },
        PromptMessage::Tool {
            call_id: "a".to_owned(),
            content: "2".into(),
            media: Arc::default(),
        },
    ]);
    model.complete(&history, soon()).await.unwrap();
    let requests = stub.requests();
    assert!(requests[1].text.contains(said), "{}", requests[1].text);
}

#[tokio::test]
async fn malformed_arguments_are_repaired_when_they_are_replayed() {
    let said = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"calc__add","arguments":"{\"a\": 1, "}}]}"#;
    let (stub, model) = replies([Reply::message_text(said), Reply::text("Sorry")]);
    let asked = model.complete(&hello(), soon()).await.unwrap();
    assert_eq!(asked.tool_calls[0].arguments, r#"{"a": 1, "#);
    let history = prompt([
        user("Hello"),
        PromptMessage::Assistant {
            message: asked.message,
            tool_calls: asked.tool_calls,
            asked: asked.asked,
        },
        PromptMessage::Tool {
            call_id: "a".to_owned(),
            content: "no JSON".into(),
            media: Arc::default(),
        },
    ]);
    model.complete(&history, soon()).await.unwrap();
    assert_eq!(stub.refusals(), [""; 0]);
    let replayed = &stub.requests()[1].body["messages"][1]["tool_calls"][0];
    assert_eq!(replayed["function"]["arguments"], "{}");
}

#[tokio::test]
async fn an_answer_cut_off_in_a_call_asks_for_nothing_and_can_be_replayed() {
    let cut = Reply::calls([("calc__add", json!({"a": 1}))]).finish("length");
    let (stub, model) = replies([cut, Reply::text("Again")]);
    let asked = model.complete(&hello(), soon()).await.unwrap();
    assert_eq!(asked.stop, Stop::Length);
    assert!(asked.tool_calls.is_empty());
    let history = prompt([
        user("Hello"),
        PromptMessage::Assistant {
            message: asked.message,
            tool_calls: asked.tool_calls,
            asked: asked.asked,
        },
        user("Go on"),
    ]);
    model.complete(&history, soon()).await.unwrap();
    assert_eq!(stub.refusals(), [""; 0]);
}

#[tokio::test]
async fn replies_that_are_off_the_specification_are_understood() {
    let odd = [
        r#"{"choices":[{"message":{"content":"x"},"finish_reason":"eos"}]}"#,
        r#"{"id":null,"created":1.5,"service_tier":"on_demand","choices":[{"message":{"role":"model","content":"x"}}]}"#,
        r#"{"choices":[{"message":{"role":"assistant","content":[{"type":"text","text":"x"}]},"finish_reason":""}],"usage":{"prompt_tokens":-1}}"#,
        "\n\n  {\"choices\":[{\"message\":{\"content\":\"x\"}}]}  \n",
    ];
    let (stub, model) = replies(odd.map(|body| Reply::raw(200, body)));
    for body in odd {
        let answer = model.complete(&hello(), soon()).await.unwrap();
        assert_eq!(answer.content.as_deref(), Some("x"), "{body}");
    }
    assert_eq!(stub.requests().len(), odd.len());
}

#[tokio::test]
async fn an_unreadable_success_is_asked_for_again_and_then_given_up() {
    for body in ["<html>", "", "{\"choices\":[", "[]", r#"{"choices":[]}"#] {
        let (stub, model) = replies([Reply::raw(200, body), Reply::text("Better")]);
        let answer = model.complete(&hello(), soon()).await.unwrap();
        assert_eq!(answer.content.as_deref(), Some("Better"), "{body}");
        assert_eq!(stub.requests().len(), 2, "{body}");
    }
    let stub = StubModel::start(Script::closure(|_| Reply::raw(200, "<html>")));
    let error = connect(&stub).complete(&hello(), soon()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelProtocol);
    assert_eq!(error.fault(), Fault::Retry { after: None });
    assert_eq!(stub.requests().len(), 3);
    assert!(error.to_string().contains("3 times in a row"), "{error}");
}

#[tokio::test]
async fn an_error_inside_a_success_is_tried_again() {
    let error = json!({"error": {"code": 502, "message": "Provider returned error"}});
    let (stub, model) = replies([Reply::json(200, &error), Reply::text("Better")]);
    model.complete(&hello(), soon()).await.unwrap();
    assert_eq!(stub.requests().len(), 2);
}

#[tokio::test]
async fn the_wait_that_a_server_asks_for_is_kept() {
    for (header, value, wait) in [
        ("retry-after-ms", "300", Duration::from_millis(300)),
        ("retry-after", "0.3", Duration::from_millis(300)),
        ("retry-after", "1", Duration::from_secs(1)),
    ] {
        let busy = Reply::error(429, "requests", "rate_limit_exceeded", "Slow down");
        let (stub, model) = replies([busy.with_header(header, value), Reply::text("Hi")]);
        model.complete(&hello(), soon()).await.unwrap();
        let waited = gap(&stub.requests(), 0);
        assert!(waited >= wait, "{header} {value}: {waited:?}");
    }
}

#[tokio::test]
async fn a_wait_too_long_for_a_slot_is_handed_to_the_caller() {
    let busy = Reply::error(429, "requests", "rate_limit_exceeded", "Slow down");
    let (stub, model) = replies([busy.with_header("retry-after", "30")]);
    let error = model.complete(&hello(), soon()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelUnavailable);
    let after = Some(Duration::from_secs(30));
    assert_eq!(error.fault(), Fault::Retry { after });
    assert_eq!(stub.requests().len(), 1);
    // Others are held back, too. One that has no time for that does not even ask.
    let hurried = Deadline::after(Duration::from_secs(1));
    let held = model.complete(&hello(), hurried).await.unwrap_err();
    let Fault::Retry { after: Some(left) } = held.fault() else {
        panic!("{held}");
    };
    assert!(
        left > Duration::from_secs(20) && left <= Duration::from_secs(30),
        "{left:?}"
    );
    assert_eq!(stub.requests().len(), 1);
}

#[tokio::test]
async fn all_calls_of_a_model_wait_when_one_is_told_to() {
    let stub = StubModel::start(Script::closure(|_| Reply::text("Hi")));
    let busy = Reply::error(429, "requests", "rate_limit_exceeded", "Slow down");
    stub.push(busy.with_header("retry-after-ms", "2000"));
    let model = connect(&stub);
    // Told to wait beyond its deadline, this call gives up at once.
    let hurried = Deadline::after(Duration::from_millis(1500));
    let told = model.complete(&hello(), hurried).await.unwrap_err();
    assert_eq!(told.code(), ErrorCode::ModelUnavailable);
    // The others were not told by the server, and wait all the same.
    let prompt = hello();
    let others = (0..5).map(|_| model.complete(&prompt, soon()));
    let elsewhere = Prompt {
        model: "gpt-4o".into(),
        ..hello()
    };
    let (others, of_another_model) = tokio::join!(
        futures_util::future::join_all(others),
        model.complete(&elsewhere, soon())
    );
    assert!(others.iter().all(Result::is_ok));
    of_another_model.unwrap();
    let requests = stub.requests();
    assert_eq!(requests.len(), 7);
    assert_eq!(requests[1].body["model"], "gpt-4o");
    for request in &requests[2..] {
        let waited = request.at - requests[0].at;
        assert!(waited >= Duration::from_secs(2), "{waited:?}");
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_made_once_more() {
    let stub = StubModel::start(Script::closure(|_| Reply::never()));
    let timeout = Duration::from_millis(500);
    let config = ModelConfig {
        timeout,
        ..config(stub.base_url())
    };
    let model = Model::connect(&config).unwrap();
    let error = model.complete(&hello(), soon()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelUnavailable);
    assert_eq!(error.fault(), Fault::Retry { after: None });
    let requests = stub.requests();
    assert_eq!(requests.len(), 2);
    assert!(gap(&requests, 0) >= timeout);
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again() {
    for broken in [Reply::close(), Reply::truncated()] {
        let (stub, model) = replies([broken.clone(), broken, Reply::text("Hi")]);
        let answer = model.complete(&hello(), soon()).await.unwrap();
        assert_eq!(answer.content.as_deref(), Some("Hi"));
        assert_eq!(stub.requests().len(), 3);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let gone = StubModel::start(Script::arithmetic());
    let model = connect(&gone);
    drop(gone);
    let error = model.complete(&hello(), soon()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelUnavailable);
    assert_eq!(error.fault(), Fault::Retry { after: None });
}

#[tokio::test]
async fn the_deadline_ends_a_call_that_is_under_way() {
    let stub = StubModel::start(Script::closure(|_| Reply::never()));
    let before = Instant::now();
    let deadline = Deadline::after(Duration::from_secs(1));
    let error = connect(&stub)
        .complete(&hello(), deadline)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ModelError::Deadline { attempts: 1 }),
        "{error}"
    );
    assert_eq!(
        (error.code(), error.fault()),
        (ErrorCode::DeadlineExceeded, Fault::Permanent)
    );
    assert!(before.elapsed() < Duration::from_secs(15));
    assert_eq!(stub.requests().len(), 1);
}

#[tokio::test]
async fn after_the_deadline_nothing_is_asked() {
    let (stub, model) = replies([Reply::text("Hi")]);
    let error = model
        .complete(&hello(), Deadline::after(Duration::ZERO))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ModelError::Deadline { attempts: 0 }),
        "{error}"
    );
    assert_eq!(stub.requests().len(), 0);
}

#[tokio::test]
async fn nothing_is_waited_for_that_comes_after_the_deadline() {
    let busy = Reply::error(503, "server_error", "overloaded", "Busy");
    let (stub, model) = replies([busy.with_header("retry-after", "8")]);
    let before = Instant::now();
    let deadline = Deadline::after(Duration::from_secs(5));
    let error = model.complete(&hello(), deadline).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelUnavailable);
    assert!(before.elapsed() < Duration::from_secs(4));
    assert_eq!(stub.requests().len(), 1);
}

#[tokio::test]
async fn a_refusal_for_good_is_not_repeated() {
    for (status, code, expected) in [
        (400, "unknown_parameter", ErrorCode::ModelRejected),
        (400, "context_length_exceeded", ErrorCode::ContextTooLong),
        (400, "content_filter", ErrorCode::ContentFiltered),
        (401, "invalid_api_key", ErrorCode::ModelAuth),
        (402, "no_credit", ErrorCode::ModelQuota),
        (429, "insufficient_quota", ErrorCode::ModelQuota),
        (404, "model_not_found", ErrorCode::ModelRejected),
    ] {
        let (stub, model) = replies([Reply::error(status, "invalid_request_error", code, "No")]);
        let error = model.complete(&hello(), soon()).await.unwrap_err();
        assert_eq!(
            (error.code(), error.fault()),
            (expected, Fault::Permanent),
            "{code}"
        );
        assert_eq!(stub.requests().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = StubModel::start(Script::arithmetic());
    let away = format!("{}/chat/completions", elsewhere.base_url());
    let (_stub, model) = replies([Reply::raw(307, "").with_header("location", &away)]);
    let error = model.complete(&hello(), soon()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelRejected);
    assert!(error.to_string().contains("OPENAI_BASE_URL"), "{error}");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn a_reply_too_large_is_refused_and_not_asked_for_again() {
    let filler = " ".repeat(8 << 20);
    let (stub, model) = replies([Reply::raw(200, filler)]);
    let error = model.complete(&hello(), soon()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelProtocol);
    assert!(error.to_string().contains("7 MiB"), "{error}");
    assert_eq!(error.fault(), Fault::Permanent);
    assert_eq!(stub.requests().len(), 1);
}

/// Some servers say so when the prompt fills the context to the last token.
#[tokio::test]
async fn an_answer_cut_off_before_its_first_token_says_that_the_prompt_is_too_long() {
    let reply = |tokens: u64| {
        let message = json!({"role": "assistant", "content": ""});
        Reply::json(
            200,
            &json!({"choices": [{"message": message, "finish_reason": "length"}],
                    "usage": {"prompt_tokens": 4000, "completion_tokens": tokens}}),
        )
    };
    let cut = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]});
    let call = Reply::json(
        200,
        &json!({"choices": [{"message": cut, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 4000, "completion_tokens": 0}}),
    );
    let (_stub, model) = replies([reply(0), reply(1), call]);
    let error = model.complete(&hello(), soon()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ContextTooLong);
    assert!(error.overflow().is_some());
    // What thought first has used tokens.
    let answer = model.complete(&hello(), soon()).await.unwrap();
    assert_eq!(answer.stop, Stop::Length);
    // A server that does not count what was cut off.
    let answer = model.complete(&hello(), soon()).await.unwrap();
    assert_eq!((answer.stop, answer.tool_calls.len()), (Stop::Length, 0));
}

#[tokio::test]
async fn a_short_key_is_taken_out_as_a_word_and_not_out_of_words() {
    let echo = "key: EMPTY, the field is not EMPTYABLE";
    let stub = StubModel::start(Script::queue([Reply::error(
        401,
        "e",
        "invalid_api_key",
        echo,
    )]));
    let api_key = Some(Secret::new("EMPTY"));
    let model = Model::connect(&configured(stub.base_url(), api_key)).unwrap();
    let error = model.complete(&hello(), soon()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("key: [secret], the field is not EMPTYABLE"),
        "{text}"
    );
}

#[tokio::test]
async fn the_key_is_in_no_text() {
    let echo = format!("Incorrect API key provided: {KEY}.");
    let refused = Reply::error(401, "invalid_request_error", "invalid_api_key", &echo);
    let (_stub, model) = replies([refused]);
    let error = model.complete(&hello(), soon()).await.unwrap_err();
    for text in [
        error.to_string(),
        format!("{error:?}"),
        format!("{model:?}"),
    ] {
        assert!(!text.contains(KEY), "{text}");
    }
    assert!(error.to_string().contains("[secret]"), "{error}");
}

#[tokio::test]
async fn a_key_that_no_header_can_carry_is_an_error_and_no_panic() {
    let stub = StubModel::start(Script::arithmetic());
    let api_key = Some(Secret::new("sk-with-newline\n"));
    let error = Model::connect(&configured(stub.base_url(), api_key)).unwrap_err();
    assert!(!error.to_string().contains("sk-with"), "{error}");
}

#[tokio::test]
async fn a_check_says_whether_the_model_is_there() {
    let stub = StubModel::start(Script::arithmetic());
    let said = connect(&stub).check("gpt-4o-mini").await.unwrap();
    assert!(said.contains("has gpt-4o-mini"), "{said}");
    let said = connect(&stub).check("gpt-9").await.unwrap();
    assert!(said.contains("gpt-9 is not among its 2 models"), "{said}");
    let elsewhere = configured(format!("{}/other", stub.base_url()), None);
    let elsewhere = Model::connect(&elsewhere).unwrap();
    let said = elsewhere.check("gpt-4o-mini").await.unwrap();
    assert!(said.contains("does not list"), "{said}");
}

#[tokio::test]
async fn a_check_finds_a_key_that_is_wrong_and_does_not_show_it() {
    // Some servers show their models to everybody: that proves no key.
    for lists_publicly in [false, true] {
        let stub =
            StubModel::start(Script::arithmetic()).wants_key("sk-right-0123", lists_publicly);
        let wrong = Model::connect(&config(stub.base_url())).unwrap();
        let error = wrong.check("gpt-4o-mini").await.unwrap_err();
        assert!(matches!(error, ModelError::Auth(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("did not accept the credentials"), "{text}");
        assert!(text.contains("OPENAI_API_KEY"), "{text}");
        assert!(!text.contains("sk-test"), "{text}");
        let key = Some(Secret::new("sk-right-0123"));
        let right = Model::connect(&configured(stub.base_url(), key)).unwrap();
        let said = right.check("gpt-4o-mini").await.unwrap();
        assert!(said.contains("has gpt-4o-mini"), "{said}");
    }
}

#[tokio::test]
async fn a_thousand_calls_can_be_under_way_at_once() {
    open_files(2_500);
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let stub = StubModel::start(Script::closure(move |_| Reply::text("Hi").when(&waiting)));
    let model = connect(&stub);
    let prompt = hello();
    let calls = (0..1000).map(|_| model.complete(&prompt, soon()));
    let size = std::mem::size_of_val(&model.complete(&prompt, soon()));
    assert!(size <= 512, "the future of a call has {size} bytes");
    let all = futures_util::future::join_all(calls);
    let opened = async {
        stub.arrived(1000).await;
        gate.add_permits(1000);
    };
    let (answers, ()) = tokio::join!(all, opened);
    assert!(answers.iter().all(Result::is_ok));
}

/// Lets this process open so many files: both ends of every connection are in it.
fn open_files(least: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(
        most >= least,
        "this test opens {least} files, `ulimit -Hn` says {most}"
    );
    if limit.current.is_some_and(|current| current < least) {
        limit.current = Some(least);
        setrlimit(Resource::Nofile, limit).unwrap();
    }
}

#[tokio::test]
async fn no_log_line_holds_what_was_said() {
    const SAID: &str = "the-secret-of-the-conversation";
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(lines.clone())
        .finish();
    // For the whole process: tracing remembers of each place in the code, over all threads, whether
    // anybody listens to it.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let (_stub, model) = replies([
        Reply::raw(200, SAID),
        Reply::error(500, "server_error", "x", SAID),
        Reply::text(SAID),
        Reply::error(400, "invalid_request_error", "x", SAID),
    ]);
    let prompt = prompt([user(SAID)]);
    model.complete(&prompt, soon()).await.unwrap();
    model.complete(&prompt, soon()).await.unwrap_err();
    let log = lines.text();
    assert!(
        log.contains("model.complete") && log.contains("made again"),
        "{log}"
    );
    assert!(log.contains("tokens.input"), "{log}");
    assert!(!log.contains(SAID) && !log.contains(KEY), "{log}");
}

/// What is logged, kept.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[path = "model/dialects.rs"]
mod dialects;
#[path = "model/strictness.rs"]
mod strictness;

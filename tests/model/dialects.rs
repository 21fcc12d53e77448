//! The same conversations over Chat Completions and over Responses, and across both.

use chat_worker::chat::{Answer, ImageUrl, Media, Part};
use chat_worker::model::{Ear, Heard};

use super::*;

const BOTH: [Api; 2] = [Api::Chat, Api::Responses];

/// What a job sees of an answer.
#[derive(Debug, PartialEq)]
struct Seen {
    content: Option<String>,
    refusal: Option<String>,
    stop: Stop,
    finish_reason: Option<String>,
    calls: Vec<(String, String, String)>,
}

fn seen(answer: &Answer) -> Seen {
    let call = |call: &ToolCall| {
        let (id, name, arguments) = (&call.call_id, &call.name, &call.arguments);
        (id.clone(), name.clone(), arguments.clone())
    };
    Seen {
        content: answer.content.clone(),
        refusal: answer.refusal.clone(),
        stop: answer.stop,
        finish_reason: answer.finish_reason.clone(),
        calls: answer.tool_calls.iter().map(call).collect(),
    }
}

fn said(answer: &Answer) -> PromptMessage {
    PromptMessage::Assistant {
        message: Arc::clone(&answer.message),
        tool_calls: Arc::clone(&answer.tool_calls),
        asked: answer.asked.clone(),
    }
}

fn result(call: &ToolCall, content: &str) -> PromptMessage {
    PromptMessage::Tool {
        call_id: call.call_id.clone(),
        content: content.into(),
        media: Arc::default(),
    }
}

fn call(id: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": "calc__add", "arguments": arguments}})
}

fn calling(calls: &[Value]) -> Reply {
    Reply::message(&json!({"role": "assistant", "content": null, "tool_calls": calls}))
}

fn of_gpt_5(messages: impl IntoIterator<Item = PromptMessage>) -> Prompt {
    Prompt {
        model: "gpt-5.5".into(),
        ..prompt(messages)
    }
}

/// What was refused, but for the sealing of thoughts: whether a model does that is found out by asking.
fn refusals(stub: &StubModel) -> Vec<String> {
    let mut refusals = stub.refusals();
    refusals.retain(|refusal| refusal != "Encrypted content is not supported with this model.");
    refusals
}

#[tokio::test]
async fn an_answer_is_the_same_in_both_dialects() {
    let refusal = json!({"role": "assistant", "content": null, "refusal": "No."});
    let calls = [call("call_1", r#"{"a": 1}"#), call("call_2", "{\"a\": ")];
    for (reply, expected) in [
        (Reply::text("Hi"), ("stop", Stop::Done)),
        (Reply::message(&refusal), ("stop", Stop::Done)),
        (calling(&calls), ("tool_calls", Stop::Done)),
        (
            Reply::text("Cut").finish("length"),
            ("length", Stop::Length),
        ),
        (calling(&calls).finish("length"), ("length", Stop::Length)),
        (
            Reply::text("Cut").finish("content_filter"),
            ("content_filter", Stop::ContentFilter),
        ),
    ] {
        for model in ["gpt-4o", "gpt-5.5"] {
            let mut answers = Vec::new();
            for api in BOTH {
                let stub = StubModel::start(Script::queue([reply.clone()]));
                let prompt = Prompt {
                    model: model.into(),
                    ..hello()
                };
                let answer = speaking(&stub, api)
                    .complete(&prompt, soon())
                    .await
                    .unwrap();
                assert_eq!(answer.finish_reason.as_deref(), Some(expected.0));
                assert_eq!(answer.stop, expected.1);
                assert_eq!(answer.asked.as_deref(), Some(model));
                assert!(answer.usage.input_tokens > 0 && answer.usage.output_tokens > 0);
                answers.push(seen(&answer));
            }
            assert_eq!(answers[0], answers[1]);
        }
    }
}

#[tokio::test]
async fn nothing_is_kept_at_the_provider_and_what_was_thought_goes_back_whole() {
    let calls = [call("call_1", "{}"), call("call_2", "{}")];
    let stub = StubModel::start(Script::queue([
        calling(&calls),
        Reply::text("42"),
        Reply::text("Bye"),
    ]));
    let model = speaking(&stub, Api::Responses);
    let asked = model
        .complete(&of_gpt_5([user("Add")]), soon())
        .await
        .unwrap();
    let mut messages = vec![user("Add"), said(&asked)];
    messages.extend(asked.tool_calls.iter().map(|call| result(call, "42")));
    let answered = model
        .complete(&of_gpt_5(messages.clone()), soon())
        .await
        .unwrap();
    messages.extend([said(&answered), user("Bye")]);
    model.complete(&of_gpt_5(messages), soon()).await.unwrap();
    assert_eq!(refusals(&stub), [""; 0]);
    let requests = stub.requests();
    for request in &requests {
        assert_eq!(request.path, "/v1/responses");
        assert_eq!(request.body["store"], false);
        assert_eq!(
            request.body["include"],
            json!(["reasoning.encrypted_content"])
        );
        assert_eq!(request.body["tools"][0]["strict"], false);
    }
    for answer in [&asked, &answered] {
        let items: Vec<Box<RawValue>> = serde_json::from_str(answer.message.get()).unwrap();
        assert!(
            items[0].get().contains("sealed rs_thought_"),
            "{}",
            items[0]
        );
        for item in items {
            assert!(
                requests[2].text.contains(item.get()),
                "{item} is not unchanged"
            );
        }
    }
}

#[tokio::test]
async fn a_conversation_changes_its_dialect_and_its_model_at_every_turn() {
    let stub = StubModel::start(Script::arithmetic());
    let completions = speaking(&stub, Api::Chat);
    let responses = speaking(&stub, Api::Responses);
    let mut messages = Vec::new();
    for turn in 0..8 {
        let model = if turn % 2 == 0 {
            &completions
        } else {
            &responses
        };
        let name = if turn % 4 < 2 { "gpt-4o" } else { "gpt-5.5" };
        let prompt = |messages: &[PromptMessage]| Prompt {
            model: name.into(),
            ..prompt(messages.to_vec())
        };
        messages.push(user("What is 20 plus 22?"));
        let asked = model.complete(&prompt(&messages), soon()).await.unwrap();
        assert_eq!(asked.tool_calls.len(), 1, "turn {turn}");
        messages.push(said(&asked));
        // The other dialect goes on in the middle of a turn, too.
        let model = if turn % 3 == 0 {
            &responses
        } else {
            &completions
        };
        messages.push(result(&asked.tool_calls[0], "42"));
        let answered = model.complete(&prompt(&messages), soon()).await.unwrap();
        assert_eq!(answered.content.as_deref(), Some("The answer is 42"));
        messages.push(said(&answered));
    }
    assert_eq!(refusals(&stub), [""; 0]);
}

#[tokio::test]
async fn a_broken_history_is_mended_in_both_dialects() {
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call("a", "{"), call("b", "[1]")]});
    let calls = ["a", "b"].map(|id| ToolCall {
        call_id: id.to_owned(),
        name: "no name".to_owned(),
        arguments: "{".to_owned(),
    });
    let asks = || PromptMessage::Assistant {
        message: raw(&message.to_string()),
        tool_calls: calls.to_vec().into(),
        asked: None,
    };
    let answer = |id: &str, content: &str| PromptMessage::Tool {
        call_id: id.to_owned(),
        content: content.into(),
        media: Arc::default(),
    };
    for messages in [
        vec![user("Hi"), answer("a", "orphan")],
        vec![user("Hi"), asks()],
        vec![
            user("Hi"),
            asks(),
            answer("b", ""),
            user("So?"),
            answer("a", "late"),
        ],
        vec![
            user("Hi"),
            asks(),
            answer("a", "x"),
            answer("a", "x"),
            answer("b", "x"),
        ],
        vec![user(""), asks(), answer("a", ""), asks()],
    ] {
        for api in BOTH {
            let stub = StubModel::start(Script::queue([Reply::text("Hi")]));
            let answer = speaking(&stub, api)
                .complete(&prompt(messages.clone()), soon())
                .await;
            answer.unwrap_or_else(|error| panic!("{api:?}: {error}"));
            assert_eq!(refusals(&stub), [""; 0]);
        }
    }
}

#[tokio::test]
async fn pictures_go_in_and_come_from_tools_in_both_dialects() {
    let picture = |url: &str| {
        let text = Part::Text {
            text: "See:".to_owned(),
        };
        let image = Part::ImageUrl {
            image_url: ImageUrl {
                url: url.to_owned(),
            },
        };
        PromptMessage::Given(Arc::new(Message {
            role: Role::User,
            content: Content::Parts(vec![text, image]),
        }))
    };
    let calls = [call("call_1", "{}")];
    for (api, takes) in [
        (Api::Chat, true),
        (Api::Responses, true),
        (Api::Chat, false),
        (Api::Responses, false),
    ] {
        let stub = StubModel::start(Script::queue([calling(&calls), Reply::text("A cat")]));
        let profile = ModelProfile {
            api,
            images: takes,
            ..ModelProfile::at(ProviderConfig::new(stub.base_url(), None))
        };
        let config = ModelConfig::new("gpt-4o-mini", profile, Duration::from_secs(20));
        let model = Model::connect(&config).unwrap();
        let first = picture("https://example.org/cat.png");
        let asked = model
            .complete(&prompt([first.clone()]), soon())
            .await
            .unwrap();
        let shown = PromptMessage::Tool {
            call_id: "call_1".to_owned(),
            content: "[image]".into(),
            media: [Media {
                mime_type: "image/png".to_owned(),
                data: "QUJD".to_owned(),
                name: None,
            }]
            .into(),
        };
        model
            .complete(&prompt([first, said(&asked), shown]), soon())
            .await
            .unwrap();
        assert_eq!(refusals(&stub), [""; 0]);
        let text = stub.requests().pop().unwrap().text;
        assert_eq!(
            text.contains("https://example.org/cat.png"),
            takes,
            "{text}"
        );
        assert_eq!(text.contains("data:image/png;base64,QUJD"), takes, "{text}");
        assert_eq!(text.contains("takes none"), !takes, "{text}");
    }
}

#[tokio::test]
async fn a_model_that_wants_responses_is_asked_so_from_then_on_unless_it_was_told_otherwise() {
    let refusal = || {
        Reply::error(
            400,
            "invalid_request_error",
            "",
            "Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
        )
    };
    let stub = StubModel::start(Script::queue([
        refusal(),
        Reply::text("Hi"),
        Reply::text("Hi"),
    ]));
    let model = speaking(&stub, Api::Auto);
    for _ in 0..2 {
        model.complete(&hello(), soon()).await.unwrap();
    }
    let paths: Vec<_> = stub
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(
        paths,
        // There it turns out that this model seals nothing.
        [
            "/v1/chat/completions",
            "/v1/responses",
            "/v1/responses",
            "/v1/responses"
        ]
    );
    let stub = StubModel::start(Script::queue([refusal()]));
    let error = speaking(&stub, Api::Chat)
        .complete(&hello(), soon())
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelRejected);
    let text = error.to_string();
    assert!(
        text.contains("CHAT_API") && text.contains("`responses`"),
        "{text}"
    );
}

#[tokio::test]
async fn what_a_model_cannot_seal_and_what_nobody_can_read_any_more_is_left_out() {
    let named = |model: &str, messages: Vec<PromptMessage>| Prompt {
        model: model.into(),
        ..prompt(messages)
    };
    // A deployment's name does not tell that its model does not think.
    let unsealed = Reply::error(
        400,
        "invalid_request_error",
        "",
        "Encrypted content is not supported with this model.",
    );
    let stub = StubModel::start(Script::queue([
        unsealed,
        Reply::text("Hi"),
        Reply::text("Hi"),
    ]));
    let model = speaking(&stub, Api::Responses);
    for _ in 0..2 {
        model
            .complete(&named("my-deployment", vec![user("Hi")]), soon())
            .await
            .unwrap();
    }
    let asked_for = |request: &Recorded| !request.body["include"].is_null();
    let asked_for: Vec<_> = stub.requests().iter().map(asked_for).collect();
    assert_eq!(asked_for, [true, false, false]);
    // What was sealed with another key.
    let output = json!([
        {"type": "reasoning", "id": "rs_thought_1", "summary": [], "encrypted_content": "by somebody else"},
        {"type": "function_call", "id": "fc_thought_1", "call_id": "a", "name": "calc__add", "arguments": "{}"},
    ]);
    let calls = [ToolCall {
        call_id: "a".to_owned(),
        name: "calc__add".to_owned(),
        arguments: "{}".to_owned(),
    }];
    let history = vec![
        user("Hi"),
        PromptMessage::Assistant {
            message: raw(&output.to_string()),
            tool_calls: calls.to_vec().into(),
            asked: None,
        },
        result(&calls[0], "42"),
    ];
    let stub = StubModel::start(Script::queue([Reply::text("Hi")]));
    let model = speaking(&stub, Api::Responses);
    model
        .complete(&named("gpt-5.5", history), soon())
        .await
        .unwrap();
    assert_eq!(stub.refusals().len(), 1);
    let requests = stub.requests();
    assert_eq!(requests.len(), 2);
    assert!(
        !requests[1].text.contains("thought_1"),
        "{}",
        requests[1].text
    );
}

#[tokio::test]
async fn every_option_reaches_responses_that_it_knows() {
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": {"type": "object"}}});
    let options = ModelOptions {
        temperature: Some(0.2),
        top_p: Some(1.0),
        max_output_tokens: Some(5),
        seed: Some(7),
        stop: Some(vec!["END".to_owned()]),
        reasoning_effort: Some(chat_worker::chat::ReasoningEffort::Low),
        parallel_tool_calls: Some(false),
        response_format: serde_json::from_value(format.clone()).unwrap(),
    };
    let stub = StubModel::start(Script::queue([Reply::text("{}")]));
    let prompt = Prompt {
        options: Arc::new(options),
        tool_choice: ToolChoice::Required,
        ..hello()
    };
    speaking(&stub, Api::Responses)
        .complete(&prompt, soon())
        .await
        .unwrap();
    let body = &stub.requests()[0].body;
    for (field, expected) in [
        ("temperature", json!(0.2)),
        ("top_p", json!(1.0)),
        ("max_output_tokens", json!(16)),
        ("reasoning", json!({"effort": "low"})),
        ("parallel_tool_calls", json!(false)),
        ("tool_choice", json!("required")),
        (
            "text",
            json!({"format": {"type": "json_schema", "name": "x", "strict": true, "schema": {"type": "object"}}}),
        ),
        ("seed", Value::Null),
        ("stop", Value::Null),
    ] {
        assert_eq!(body[field], expected, "{field}");
    }
}

#[tokio::test]
async fn each_model_is_asked_where_and_how_its_table_says() {
    let (here, there) = (
        StubModel::start(Script::arithmetic()),
        StubModel::start(Script::arithmetic()),
    );
    let azure = there.base_url().replace("/v1", "");
    let file = format!(
        r#"
        [models.alias]
        name = "gpt-4o"
        headers = {{ "X-Title" = "${{TITLE}}" }}
        organization = "org-1"
        project = "proj-1"
        drop = ["temperature", "tool_choice"]
        max_output_tokens = 100
        max_tokens_field = "max_completion_tokens"
        [models.azure]
        base_url = "{azure}"
        api_key_env = "AZURE_KEY"
        azure = {{ api_version = "2024-10-21", deployment = "d/1" }}
        "#
    );
    let lookup = |name: &str| Some(format!("value-of-{name}"));
    let config = config(here.base_url()).with_file(&file, &lookup).unwrap();
    let model = Model::connect(&config).unwrap();
    let options = ModelOptions {
        temperature: Some(0.5),
        top_p: Some(0.5),
        max_output_tokens: Some(200),
        ..ModelOptions::default()
    };
    for name in ["alias", "azure"] {
        let prompt = Prompt {
            model: name.into(),
            options: Arc::new(options.clone()),
            tool_choice: ToolChoice::Required,
            ..hello()
        };
        model.complete(&prompt, soon()).await.unwrap();
    }
    let [request] = &here.requests()[..] else {
        panic!("one request")
    };
    for (header, value) in [
        ("authorization", format!("Bearer {KEY}").as_str()),
        ("x-title", "value-of-TITLE"),
        ("openai-organization", "org-1"),
        ("openai-project", "proj-1"),
    ] {
        assert_eq!(request.headers[header], value, "{header}");
    }
    assert_eq!(request.body["model"], "gpt-4o");
    assert_eq!(request.body["temperature"], Value::Null);
    assert_eq!(request.body["tool_choice"], Value::Null);
    assert_eq!(request.body["top_p"], 0.5);
    assert_eq!(request.body["max_completion_tokens"], 100);
    let [request] = &there.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.path, "/openai/deployments/d%2F1/chat/completions");
    assert_eq!(request.headers["api-key"], "value-of-AZURE_KEY");
    assert!(!request.headers.contains_key("authorization"));
    assert_eq!(request.body["max_completion_tokens"], 200);
}

#[tokio::test]
async fn an_answer_that_comes_piece_by_piece_is_the_same_in_both_dialects() {
    let calls = [call("call_1", r#"{"a": 1, "b": 2}"#), call("call_2", "{}")];
    for reply in [Reply::text("Guten Tag, ja. 42"), calling(&calls)] {
        for model in ["gpt-4o", "gpt-5.5"] {
            let mut answers = Vec::new();
            for (api, aloud) in [
                (Api::Chat, true),
                (Api::Responses, true),
                (Api::Responses, false),
            ] {
                let stub = StubModel::start(Script::queue([reply.clone(), Reply::text("Hi")]));
                let heard = Arc::<Mutex<String>>::default();
                let kept = Arc::clone(&heard);
                let ear = Ear::new(aloud, move |heard| {
                    if let Heard::Text(text) = heard {
                        kept.lock().unwrap().push_str(text);
                    }
                });
                let prompt = Prompt {
                    model: model.into(),
                    ..hello()
                };
                let asked = speaking(&stub, api);
                let along = Along {
                    ear: Some(&ear),
                    ..Along::default()
                };
                let asked = asked.complete_along(&prompt, soon(), along).await;
                let answer = asked.unwrap();
                if aloud {
                    let said = answer.content.clone().unwrap_or_default();
                    assert_eq!(*heard.lock().unwrap(), said, "{api:?}");
                    assert_eq!(stub.requests()[0].body["stream"], true);
                }
                // It goes back like any other.
                let mut messages = vec![user("Hello"), said(&answer)];
                messages.extend(answer.tool_calls.iter().map(|call| result(call, "3")));
                let next = Prompt { messages, ..prompt };
                speaking(&stub, api).complete(&next, soon()).await.unwrap();
                answers.push(seen(&answer));
            }
            assert_eq!(answers[0], answers[1]);
            assert_eq!(answers[1], answers[2]);
        }
    }
}

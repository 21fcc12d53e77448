use std::sync::Arc;

use serde_json::json;

use super::{body, body_for, call, json, profile, prompt, raw, user};
use crate::chat::{
    Content, ImageUrl, Media, Message, ModelOptions, Part, PromptMessage, ReasoningEffort, Role,
    ToolChoice, ToolSpec,
};
use crate::config::{MaxTokensField, ModelProfile};

fn add() -> Arc<[ToolSpec]> {
    Arc::new([ToolSpec {
        name: "calc__add".to_owned(),
        description: String::new(),
        schema: raw(r#"{"type":"object", "z":1, "a":2}"#),
    }])
}

#[test]
fn a_small_prompt_is_a_small_request() {
    let mut prompt = prompt(vec![PromptMessage::System("Be brief.".into()), user("Hi")]);
    insta::assert_snapshot!(body(&prompt), @r#"{"model":"gpt-4o-mini","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]}"#);
    prompt.tools = add();
    insta::assert_snapshot!(body(&prompt), @r#"{"model":"gpt-4o-mini","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"calc__add","parameters":{"type":"object", "z":1, "a":2},"strict":false}}]}"#);
}

#[test]
fn parts_are_sent_as_they_are() {
    let content = Content::Parts(vec![
        Part::Text {
            text: "What is it?".to_owned(),
        },
        Part::ImageUrl {
            image_url: ImageUrl {
                url: "https://example.org/a.png".to_owned(),
            },
        },
    ]);
    let given = PromptMessage::Given(Arc::new(Message {
        role: Role::User,
        content,
    }));
    let sent = json(&body(&prompt(vec![given])));
    let expected = json!([{"role": "user", "content": [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]}]);
    assert_eq!(sent["messages"], expected);
}

#[test]
fn what_tools_show_follows_all_tool_messages_of_the_round_as_the_users() {
    let shown = |mime_type: &str, name: Option<&str>| Media {
        mime_type: mime_type.to_owned(),
        data: "QUJD".to_owned(),
        name: name.map(str::to_owned),
    };
    let tool = |call_id: &str, media: Vec<Media>| PromptMessage::Tool {
        call_id: call_id.to_owned(),
        content: "[a mark]".into(),
        media: media.into(),
    };
    let asks = |ids: &[&str]| PromptMessage::Assistant {
        message: raw(r#"{"role":"assistant","content":null}"#),
        tool_calls: ids.iter().map(|id| call(id, "show", "{}")).collect(),
        asked: None,
    };
    let sent = json(&body(&prompt(vec![
        asks(&["a", "b", "c"]),
        tool("a", vec![shown("image/png", None)]),
        tool("b", vec![]),
        tool(
            "c",
            vec![
                shown("application/pdf", Some("x.pdf")),
                shown("image/gif", None),
            ],
        ),
        asks(&["d"]),
        tool("d", vec![shown("image/webp", None)]),
        user("Hi"),
    ])));
    let roles: Vec<_> = sent["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    let round = ["assistant", "tool", "tool", "tool", "user"];
    assert_eq!(roles[..5], round);
    assert_eq!(roles[5..], ["assistant", "tool", "user", "user"]);
    assert_eq!(sent["messages"][1]["content"], "[a mark]");
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    assert_eq!(
        sent["messages"][4]["content"],
        json!([
            {"type": "text", "text": "Shown by the tool call a:"},
            image("data:image/png;base64,QUJD"),
            {"type": "text", "text": "Shown by the tool call c:"},
            {"type": "file", "file": {"filename": "x.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
            image("data:image/gif;base64,QUJD"),
        ])
    );
}

#[test]
fn what_is_about_tools_is_sent_with_tools_alone() {
    let mut prompt = prompt(vec![user("Hi")]);
    prompt.options = Arc::new(ModelOptions {
        parallel_tool_calls: Some(false),
        ..ModelOptions::default()
    });
    for (choice, expected) in [
        (ToolChoice::Auto, json!(null)),
        (ToolChoice::None, json!("none")),
        (ToolChoice::Required, json!("required")),
    ] {
        prompt.tool_choice = choice;
        prompt.tools = Arc::new([]);
        let bare = json(&body(&prompt));
        assert_eq!(bare["tool_choice"], json!(null));
        assert_eq!(bare["parallel_tool_calls"], json!(null));
        prompt.tools = add();
        let sent = json(&body(&prompt));
        assert_eq!(sent["tool_choice"], expected);
        assert_eq!(sent["parallel_tool_calls"], json!(false));
        assert_eq!(sent["tools"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn every_option_reaches_the_server() {
    let mut prompt = prompt(vec![user("Hi")]);
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {}}});
    prompt.options = Arc::new(ModelOptions {
        temperature: Some(0.2),
        top_p: Some(1.0),
        max_output_tokens: Some(800),
        seed: Some(-7),
        stop: Some(vec!["END".to_owned()]),
        reasoning_effort: Some(ReasoningEffort::Low),
        parallel_tool_calls: None,
        response_format: serde_json::from_value(format.clone()).unwrap(),
    });
    let compatible = json(&body(&prompt));
    assert_eq!(
        compatible,
        json!({
            "model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.2, "top_p": 1.0, "max_tokens": 800, "seed": -7, "stop": ["END"],
            "reasoning_effort": "low", "response_format": format,
        })
    );
    let openai = ModelProfile {
        max_tokens_field: Some(MaxTokensField::MaxCompletionTokens),
        ..profile()
    };
    let openai = json(&body_for(&prompt, &openai));
    assert_eq!(openai["max_completion_tokens"], json!(800));
    assert_eq!(openai["max_tokens"], json!(null));
}

#[test]
fn the_properties_of_a_schema_stay_in_their_order() {
    let options = r#"{"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","properties":{"reasoning":{},"answer":{}}}}}}"#;
    let mut prompt = prompt(vec![user("Hi")]);
    prompt.options = serde_json::from_str(options).unwrap();
    let sent = body(&prompt);
    let at = |word: &str| sent.find(word).unwrap_or_else(|| panic!("{word}: {sent}"));
    assert!(at("reasoning") < at("answer"), "{sent}");
}

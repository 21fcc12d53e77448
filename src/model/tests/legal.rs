//! Whatever a model said, what is sent to it is legal: judged by a checker that shares no code with
//! the mapping.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::{body, json, prompt, raw, user};
use crate::chat::{PromptMessage, ToolCall};
use crate::model::completions::reply;

/// Panics where `OpenAI` would answer 400.
pub(super) fn assert_legal(body: &Value) {
    let mut open: Vec<String> = Vec::new();
    for message in body["messages"].as_array().unwrap() {
        let role = message["role"].as_str().unwrap();
        if role == "tool" {
            let id = message["tool_call_id"].as_str().unwrap();
            let position = open.iter().position(|open| open == id);
            open.remove(position.unwrap_or_else(|| panic!("orphan {id}: {body}")));
            assert!(!message["content"].as_str().unwrap().is_empty());
            continue;
        }
        assert!(open.is_empty(), "unanswered {open:?}: {body}");
        assert!(["system", "user", "assistant"].contains(&role), "{body}");
        let has_content = message["content"].is_string()
            || message["content"]
                .as_array()
                .is_some_and(|parts| !parts.is_empty());
        let Some(calls) = message.get("tool_calls") else {
            let refused = message["refusal"]
                .as_str()
                .is_some_and(|refusal| !refusal.is_empty());
            assert!(
                has_content || (refused && message["content"].is_null()),
                "{body}"
            );
            continue;
        };
        assert!(has_content || message["content"].is_null(), "{body}");
        let calls = calls.as_array().unwrap();
        assert!(!calls.is_empty(), "{body}");
        open = calls.iter().map(id_of_legal_call).collect();
    }
    assert!(open.is_empty(), "unanswered {open:?}: {body}");
}

fn id_of_legal_call(call: &Value) -> String {
    assert_eq!(call["type"], "function", "{call}");
    let name = call["function"]["name"].as_str().unwrap();
    assert!((1..=64).contains(&name.len()), "{call}");
    assert!(
        name.chars()
            .all(|char| char.is_ascii_alphanumeric() || "_-".contains(char)),
        "{call}"
    );
    let arguments = call["function"]["arguments"].as_str().unwrap();
    assert!(json(arguments).is_object(), "{call}");
    let id = call["id"].as_str().unwrap();
    assert!(!id.is_empty(), "{call}");
    id.to_owned()
}

/// Any JSON that is no container.
fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        Just(r#""""#.to_owned()),
        Just(r#""assistant""#.to_owned()),
        Just(r#""function""#.to_owned()),
        Just(r#""{\"a\": 1}""#.to_owned()),
        Just(r#""{\"a\": ""#.to_owned()),
        Just(r#""half \ud83d""#.to_owned()),
        "call_[ab]".prop_map(|id| format!("\"{id}\"")),
    ]
}

/// Objects with the keys that matter, some twice, some missing, each with values of any kind.
fn object(
    value: impl Strategy<Value = String>,
    keys: &'static [&'static str],
) -> impl Strategy<Value = String> {
    let field = (proptest::sample::select(keys), value);
    proptest::collection::vec(field, 0..7).prop_map(|fields| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(key, value)| format!("\"{key}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    })
}

fn array(element: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    proptest::collection::vec(element, 0..4)
        .prop_map(|elements| format!("[{}]", elements.join(",")))
}

fn provider_message() -> impl Strategy<Value = String> {
    let function = prop_oneof![
        4 => object(scalar(), &["name", "arguments", "extra"]),
        1 => scalar(),
    ];
    let value = prop_oneof![1 => scalar(), 2 => function];
    let call = prop_oneof![
        5 => object(value, &["id", "type", "function", "custom", "index"]),
        1 => scalar(),
    ];
    let parts = array(prop_oneof![
        object(scalar(), &["type", "text", "refusal"]),
        scalar()
    ]);
    let value = prop_oneof![2 => scalar(), 3 => array(call), 1 => parts];
    prop_oneof![
        8 => object(value, &["role", "content", "refusal", "tool_calls", "reasoning_content"]),
        1 => scalar(),
    ]
}

/// Calls as a store might hold them for a message, whatever the message says now.
fn stored_calls() -> impl Strategy<Value = Vec<ToolCall>> {
    let call = (
        any::<String>(),
        prop_oneof![any::<String>(), Just(r#"{"a":1}"#.to_owned())],
    );
    proptest::collection::vec(call, 0..4).prop_map(|calls| {
        let number = calls.into_iter().enumerate();
        number
            .map(|(index, (name, arguments))| ToolCall {
                call_id: format!("call_{index}"),
                name,
                arguments,
            })
            .collect()
    })
}

fn turn(
    message: Arc<serde_json::value::RawValue>,
    tool_calls: Arc<[ToolCall]>,
) -> Vec<PromptMessage> {
    let answers = tool_calls.iter().map(|call| PromptMessage::Tool {
        call_id: call.call_id.clone(),
        content: "42".into(),
        media: Arc::default(),
    });
    let answers: Vec<_> = answers.collect();
    let mut turn = vec![
        user("Hi"),
        PromptMessage::Assistant {
            message,
            tool_calls,
            asked: None,
        },
    ];
    turn.extend(answers);
    turn
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_from_a_reply_can_be_sent_back(messages in proptest::collection::vec((provider_message(), any::<bool>()), 1..4)) {
        let mut history = Vec::new();
        for (message, cut) in &messages {
            let finish = if *cut { "length" } else { "stop" };
            let reply = format!(r#"{{"choices":[{{"message":{message},"finish_reason":"{finish}"}}]}}"#);
            // A message that is no object is no answer, and never stored.
            if let Ok(answer) = reply::read(&raw(&reply)) {
                history.extend(turn(answer.message, answer.tool_calls));
            }
        }
        assert_legal(&json(&body(&prompt(history))));
    }

    #[test]
    fn whatever_is_stored_can_be_sent(message in provider_message(), calls in stored_calls()) {
        // Half surrogate pairs are mended when a reply is read.
        let message = message.replace(r"\ud83d", "");
        assert_legal(&json(&body(&prompt(turn(raw(&message), calls.into())))));
    }
}

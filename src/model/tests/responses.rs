//! Responses: replies read, answers sent again, and the law that whatever was said can be sent.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ELSEWHERE, body, call, json, prompt, raw, response_body, user};
use crate::chat::{Answer, PromptMessage, Stop, ToolCall};
use crate::model::classify::{Class, Verdict};
use crate::model::manner::Reasoning;
use crate::model::responses::reply::read;

fn answer(output: &str) -> Answer {
    let reply = format!(r#"{{"id":"resp_1","status":"completed","output":{output}}}"#);
    read(&raw(&reply)).unwrap_or_else(|verdict| panic!("{verdict:?}: {output}"))
}

fn refused(reply: &str) -> Verdict {
    read(&raw(reply)).expect_err(reply)
}

const THOUGHT: &str =
    r#"{ "id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"sealed" }"#;
const CALL: &str = r#"{"type":"function_call","id":"fc_1","call_id":"a","name":"f","arguments":"{ \"a\":1 }","status":"completed"}"#;
const WORDS: &str = r#"{"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Hi","annotations":[],"n":1.50}]}"#;

#[test]
fn a_plain_response_is_read_whole() {
    let reply = format!(
        r#"{{"id":"resp_1","object":"response","created_at":1,"status":"completed","model":"gpt-5.5-2026-01-01","error":null,
        "incomplete_details":null,"output":[{THOUGHT},{WORDS}],"usage":{{"input_tokens":10,"output_tokens":7,"total_tokens":17,
        "input_tokens_details":{{"cached_tokens":4}},"output_tokens_details":{{"reasoning_tokens":5}}}}}}"#
    );
    let answer = read(&raw(&reply)).unwrap();
    assert_eq!(answer.content.as_deref(), Some("Hi"));
    assert_eq!(answer.message.get(), format!("[{THOUGHT},{WORDS}]"));
    assert_eq!(
        (answer.stop, answer.finish_reason.as_deref()),
        (Stop::Done, Some("stop"))
    );
    assert_eq!(answer.model.as_deref(), Some("gpt-5.5-2026-01-01"));
    assert_eq!(answer.response_id.as_deref(), Some("resp_1"));
    let usage = answer.usage;
    assert_eq!((usage.input_tokens, usage.cached_tokens), (10, 4));
    assert_eq!((usage.output_tokens, usage.reasoning_tokens), (7, 5));
    assert_eq!(usage.total_tokens, 17);
}

#[test]
fn what_typed_clients_stumble_over_is_no_obstacle_here_either() {
    let words = |item: &str| format!(r#"{{"output":[{item}]}}"#);
    for (what, reply) in [
        (
            "usage without details",
            format!(
                r#"{{"output":[{WORDS}],"usage":{{"input_tokens":1,"output_tokens":1,"total_tokens":2}}}}"#
            ),
        ),
        (
            "usage null",
            format!(r#"{{"output":[{WORDS}],"usage":null}}"#),
        ),
        (
            "usage negative",
            format!(r#"{{"output":[{WORDS}],"usage":{{"input_tokens":-1}}}}"#),
        ),
        ("id null", format!(r#"{{"id":null,"output":[{WORDS}]}}"#)),
        (
            "created_at as a float",
            format!(r#"{{"created_at":1.5,"output":[{WORDS}]}}"#),
        ),
        (
            "created_at in ms",
            format!(r#"{{"created_at":1767225600000,"output":[{WORDS}]}}"#),
        ),
        ("status missing", words(WORDS)),
        (
            "status unknown",
            format!(r#"{{"status":"done","output":[{WORDS}]}}"#),
        ),
        (
            "service_tier unknown",
            format!(r#"{{"service_tier":"on_demand","output":[{WORDS}]}}"#),
        ),
        (
            "an unknown item",
            format!(r#"{{"output":[{{"type":"shell_call","id":"x"}},{WORDS}]}}"#),
        ),
        (
            "an item that is no object",
            format!(r#"{{"output":[null,7,{WORDS}]}}"#),
        ),
        (
            "an unknown part",
            words(
                r#"{"type":"message","role":"assistant","content":[{"type":"new"},{"type":"output_text","text":"Hi"}]}"#,
            ),
        ),
        (
            "an unknown annotation",
            words(
                r#"{"type":"message","content":[{"type":"output_text","text":"Hi","annotations":[{"type":"new"}]}]}"#,
            ),
        ),
        (
            "content as a text",
            words(r#"{"type":"message","role":"assistant","content":"Hi"}"#),
        ),
        (
            "parts with the type text",
            words(r#"{"type":"message","content":[{"type":"text","text":"Hi"}]}"#),
        ),
        (
            "no type",
            words(r#"{"role":"assistant","content":[{"text":"Hi"}]}"#),
        ),
        (
            "role model",
            words(r#"{"type":"message","role":"model","content":"Hi"}"#),
        ),
        (
            "two messages",
            words(r#"{"type":"message","content":"H"},{"type":"message","content":"i"}"#),
        ),
    ] {
        let answer = read(&raw(&reply)).unwrap_or_else(|verdict| panic!("{what}: {verdict:?}"));
        assert_eq!(answer.content.as_deref(), Some("Hi"), "{what}");
        assert_eq!(answer.stop, Stop::Done, "{what}");
    }
}

#[test]
fn calls_are_read_in_every_shape() {
    for (what, item, expected) in [
        (
            "arguments as an object",
            r#"{"type":"function_call","call_id":"a","name":"f","arguments":{"a": 1}}"#,
            call("a", "f", r#"{"a": 1}"#),
        ),
        (
            "arguments null",
            r#"{"type":"function_call","call_id":"a","name":"f","arguments":null}"#,
            call("a", "f", "{}"),
        ),
        (
            "arguments broken",
            r#"{"type":"function_call","call_id":"a","name":"f","arguments":"{"}"#,
            call("a", "f", "{"),
        ),
        (
            "no call_id",
            r#"{"type":"function_call","id":"a","name":"f","arguments":"{}"}"#,
            call("a", "f", "{}"),
        ),
        (
            "a custom call",
            r#"{"type":"custom_tool_call","call_id":"a","name":"f","input":"x"}"#,
            call("a", "f", "x"),
        ),
    ] {
        let answer = answer(&format!("[{item}]"));
        assert_eq!(&*answer.tool_calls, [expected], "{what}");
        assert_eq!(
            answer.finish_reason.as_deref(),
            Some("tool_calls"),
            "{what}"
        );
    }
    let unnamed = answer(
        r#"[{"type":"function_call","name":"f"},{"type":"function_call","call_id":null,"name":"f"}]"#,
    );
    let ids: HashSet<_> = unnamed
        .tool_calls
        .iter()
        .map(|call| &call.call_id)
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(answer("[]").content, None);
}

#[test]
fn what_is_no_answer_is_a_named_error() {
    for (reply, class) in [
        ("null", Class::Protocol),
        ("[]", Class::Protocol),
        ("{}", Class::Protocol),
        (r#"{"output":null}"#, Class::Protocol),
        (r#"{"output":"Hi"}"#, Class::Protocol),
        (r#"{"status":"in_progress","output":[]}"#, Class::Protocol),
        (r#"{"status":"queued","output":[]}"#, Class::Protocol),
        (r#"{"status":"cancelled","output":[]}"#, Class::Protocol),
        (r#"{"status":"failed","output":[]}"#, Class::Protocol),
        (
            r#"{"status":"failed","error":{"code":"rate_limit_exceeded","message":"x"},"output":[]}"#,
            Class::Unavailable,
        ),
        (
            r#"{"status":"failed","error":{"code":"server_error","message":"x"},"output":[]}"#,
            Class::Unavailable,
        ),
        (
            r#"{"error":{"code":402,"message":"no credit"}}"#,
            Class::Quota,
        ),
    ] {
        assert_eq!(refused(reply).class, class, "{reply}");
    }
}

#[test]
fn a_response_that_was_cut_off_asks_for_nothing() {
    for (details, stop, finish) in [
        (r#"{"reason":"max_output_tokens"}"#, Stop::Length, "length"),
        ("null", Stop::Length, "length"),
        (
            r#"{"reason":"content_filter"}"#,
            Stop::ContentFilter,
            "content_filter",
        ),
    ] {
        let reply = format!(
            r#"{{"status":"incomplete","incomplete_details":{details},"output":[{THOUGHT},{CALL}]}}"#
        );
        let answer = read(&raw(&reply)).unwrap();
        assert_eq!(
            (answer.stop, answer.finish_reason.as_deref()),
            (stop, Some(finish))
        );
        assert!(answer.tool_calls.is_empty());
    }
}

/// What `sent` is in the next request, without the results of `calls`.
fn again(sent: &str, calls: Vec<ToolCall>, asked: Option<&str>, reasoning: Reasoning) -> Value {
    let message = PromptMessage::Assistant {
        message: raw(sent),
        tool_calls: calls.into(),
        asked: asked.map(Into::into),
    };
    let body = json(&response_body(&prompt(vec![message]), reasoning));
    let mut input = body["input"].as_array().unwrap().clone();
    input.retain(|item| item["type"] != "function_call_output");
    Value::Array(input)
}

#[test]
fn what_was_sent_goes_back_byte_for_byte() {
    let message = PromptMessage::Assistant {
        message: raw(&format!(
            r#"[{THOUGHT}, {{"type":"new","n":1.0}}, {WORDS}, {CALL}]"#
        )),
        tool_calls: vec![call("a", "f", r#"{ "a":1 }"#)].into(),
        asked: Some("gpt-5.5".into()),
    };
    let body = response_body(&prompt(vec![message]), Reasoning::Kept);
    let expected = format!(r#""input":[{THOUGHT},{{"type":"new","n":1.0}},{WORDS},{CALL},"#);
    assert!(body.contains(&expected), "{body}");
}

/// Servers that count their calls begin anew with each answer, and outputs are found by the id alone.
#[test]
fn calls_of_several_answers_with_one_id_are_told_apart() {
    let asks = || PromptMessage::Assistant {
        message: raw(&format!("[{CALL}]")),
        tool_calls: vec![call("a", "f", r#"{ "a":1 }"#)].into(),
        asked: Some("gpt-5.5".into()),
    };
    let result = |content: &str| PromptMessage::Tool {
        call_id: "a".to_owned(),
        content: content.into(),
        media: std::sync::Arc::default(),
    };
    let messages = vec![
        asks(),
        result("one"),
        asks(),
        result("two"),
        asks(),
        result("three"),
    ];
    let body = json(&response_body(&prompt(messages), Reasoning::Kept));
    assert_legal(&body);
    let input = body["input"].as_array().unwrap();
    let ids = |kind: &str| -> Vec<_> {
        let items = input.iter().filter(|item| item["type"] == kind);
        items
            .map(|item| item["call_id"].as_str().unwrap())
            .collect()
    };
    assert_eq!(ids("function_call"), ["a", "a_2", "a_3"]);
    assert_eq!(ids("function_call_output"), ["a", "a_2", "a_3"]);
    assert_eq!(input[3]["output"], "two");
    assert_eq!(input[2]["name"], "f");
}

#[test]
fn what_cannot_go_back_is_written_anew() {
    let words = json!({"type": "message", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "Hi", "annotations": [], "n": 1.5}]});
    let called = |arguments: &str| json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": arguments, "status": "completed"});
    let plain = json!({"role": "assistant", "content": "Hi"});
    let bare =
        json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{ \"a\":1 }"});
    let calls = || vec![call("a", "f", r#"{ "a":1 }"#)];
    let chat = r#"{"role":"assistant","content":"Hi","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}],"reasoning_content":"hm"}"#;
    let all = format!("[{THOUGHT},{WORDS},{CALL}]");
    for (what, sent, calls, reasoning, expected) in [
        // Then no id may tell the provider that something is missing.
        (
            "forgotten thoughts",
            all.as_str(),
            calls(),
            Reasoning::Forgotten,
            json!([words, called("{ \"a\":1 }")]),
        ),
        (
            "unsealed thoughts",
            r#"[{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}]},{"type":"message","id":"m","role":"assistant","content":"Hi"}]"#,
            vec![],
            Reasoning::Kept,
            json!([{"type": "message", "role": "assistant", "content": "Hi"}]),
        ),
        (
            "thoughts before nothing",
            &format!("[{WORDS},{THOUGHT}]"),
            vec![],
            Reasoning::Kept,
            json!([words]),
        ),
        (
            "calls that were cut off",
            &format!("[{THOUGHT},{CALL}]"),
            vec![],
            Reasoning::Kept,
            json!([]),
        ),
        (
            "a message that says nothing",
            r#"[{"type":"message","role":"assistant","content":[]}]"#,
            vec![],
            Reasoning::Kept,
            json!([]),
        ),
        (
            "calls that are not in the output",
            &format!("[{WORDS}]"),
            calls(),
            Reasoning::Kept,
            json!([json(WORDS), bare]),
        ),
        (
            "an answer of Chat Completions",
            chat,
            calls(),
            Reasoning::Kept,
            json!([plain, bare]),
        ),
        (
            "a refusal",
            r#"{"role":"assistant","content":null,"refusal":"No."}"#,
            vec![],
            Reasoning::Kept,
            json!([{"role": "assistant", "content": "No."}]),
        ),
    ] {
        assert_eq!(again(sent, calls, None, reasoning), expected, "{what}");
    }
    let broken = CALL.replace(r#""{ \"a\":1 }""#, r#""{ \"a\":""#);
    let mended = again(
        &format!("[{THOUGHT},{broken}]"),
        vec![call("a", "f", "{ \"a\":")],
        None,
        Reasoning::Kept,
    );
    assert_eq!(mended[1]["arguments"], "{}");
    assert_eq!(
        (&mended[1]["id"], &mended[0]["id"]),
        (&json!("fc_1"), &json!("rs_1"))
    );
}

#[test]
fn an_answer_from_elsewhere_goes_on_in_plain_words() {
    let calls = || vec![call("functions.f:0", "f", r#"{ "a":1 }"#)];
    let output = format!("[{THOUGHT},{WORDS},{CALL}]");
    let there = again(&output, calls(), Some(ELSEWHERE), Reasoning::Kept);
    assert_eq!(there[0], json!({"role": "assistant", "content": "Hi"}));
    let id = there[1]["call_id"].as_str().unwrap();
    assert!(
        id.len() == 9 && id.chars().all(|char| char.is_ascii_alphanumeric()),
        "{id}"
    );
    assert_eq!(there.as_array().unwrap().len(), 2);
    for sent in [
        output.as_str(),
        r#"{"role":"assistant","content":"Hi","reasoning_content":"hm","audio":null}"#,
    ] {
        let message = PromptMessage::Assistant {
            message: raw(sent),
            tool_calls: calls().into(),
            asked: Some(ELSEWHERE.into()),
        };
        let sent = json(&body(&prompt(vec![message])));
        let expected = json!([
            {"role": "assistant", "content": "Hi", "tool_calls": [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{ \"a\":1 }"}}]},
            {"role": "tool", "tool_call_id": id, "content": "There is no result: this call was not made."},
        ]);
        assert_eq!(sent["messages"], expected);
    }
}

/// Panics where `OpenAI` would answer 400.
fn assert_legal(body: &Value) {
    let input = body["input"].as_array().unwrap();
    let (mut open, mut seen): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (index, item) in input.iter().enumerate() {
        match item["type"].as_str().unwrap_or("message") {
            "reasoning" => {
                assert!(
                    item["encrypted_content"].is_string()
                        || !item["content"].as_array().unwrap().is_empty(),
                    "{body}"
                );
                assert!(
                    input
                        .get(index + 1)
                        .is_some_and(|next| next["type"] != "function_call_output"),
                    "{body}"
                );
            }
            "function_call" => {
                let name = item["name"].as_str().unwrap();
                assert!((1..=64).contains(&name.len()), "{body}");
                assert!(
                    name.chars()
                        .all(|char| char.is_ascii_alphanumeric() || "_-".contains(char)),
                    "{body}"
                );
                assert!(
                    json(item["arguments"].as_str().unwrap()).is_object(),
                    "{body}"
                );
                let id = item["call_id"].as_str().unwrap();
                assert!(!seen.contains(&id), "twice {id}: {body}");
                seen.push(id);
                open.push(id);
            }
            "function_call_output" => {
                let id = item["call_id"].as_str().unwrap();
                let at = open.iter().position(|open| *open == id);
                open.remove(at.unwrap_or_else(|| panic!("orphan {id}: {body}")));
                assert!(!item["output"].as_str().unwrap().is_empty(), "{body}");
            }
            "message" => {
                assert!(
                    ["system", "user", "assistant"].contains(&item["role"].as_str().unwrap()),
                    "{body}"
                );
                let content = &item["content"];
                assert!(
                    content.as_str().is_some_and(|text| !text.is_empty())
                        || content.as_array().is_some_and(|parts| !parts.is_empty()),
                    "{body}"
                );
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "unanswered {open:?}: {body}");
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        Just(r#""assistant""#.to_owned()),
        Just(r#""{\"a\": 1}""#.to_owned()),
        Just(r#""{\"a\": ""#.to_owned()),
        Just(r#"[{"type":"output_text","text":"Hi"}]"#.to_owned()),
        Just("[]".to_owned()),
        Just(r#"{"a":1}"#.to_owned()),
        "call_[ab]".prop_map(|id| format!("\"{id}\"")),
    ]
}

/// Items with the keys that matter, some twice, some missing, each with values of any kind.
fn item() -> impl Strategy<Value = String> {
    const KEYS: [&str; 9] = [
        "id",
        "role",
        "content",
        "call_id",
        "name",
        "arguments",
        "input",
        "encrypted_content",
        "summary",
    ];
    let kind = prop_oneof![
        3 => proptest::sample::select(vec!["message", "function_call", "reasoning", "custom_tool_call"]).prop_map(|kind| format!("\"{kind}\"")),
        1 => scalar(),
    ];
    let field = (proptest::sample::select(KEYS.as_slice()), scalar());
    let object = (kind, proptest::collection::vec(field, 0..8)).prop_map(|(kind, fields)| {
        let mut object = format!("{{\"type\":{kind}");
        for (key, value) in fields {
            object.extend([",\"", key, "\":", &value]);
        }
        object + "}"
    });
    prop_oneof![9 => object, 1 => scalar()]
}

fn reasoning() -> impl Strategy<Value = Reasoning> {
    proptest::sample::select(vec![
        Reasoning::Kept,
        Reasoning::Unknown,
        Reasoning::Forgotten,
    ])
}

/// Messages as they should never stand in a prompt.
fn messages() -> impl Strategy<Value = Vec<PromptMessage>> {
    let id = || "call_[abc]";
    let tool_call = (id(), any::<String>(), scalar())
        .prop_map(|(id, name, arguments)| call(&id, &name, &arguments));
    let calls = proptest::collection::vec(tool_call, 0..4).prop_map(|calls| {
        // A reply never has two calls of one id.
        let mut seen = HashSet::new();
        calls
            .into_iter()
            .filter(|call| seen.insert(call.call_id.clone()))
            .collect::<Vec<_>>()
    });
    let output =
        proptest::collection::vec(item(), 0..5).prop_map(|items| format!("[{}]", items.join(",")));
    let chat =
        Just(r#"{"role":"assistant","content":null,"tool_calls":[{"id":"call_a"}]}"#.to_owned());
    let sent = prop_oneof![3 => output, 1 => chat, 1 => scalar()];
    let from = proptest::option::of(proptest::sample::select(vec!["gpt-5.5", ELSEWHERE]));
    let assistant = (sent, calls, from).prop_map(|(sent, calls, from)| PromptMessage::Assistant {
        message: raw(&sent),
        tool_calls: calls.into(),
        asked: from.map(Into::into),
    });
    let tool = (id(), "[x]?").prop_map(|(id, content)| PromptMessage::Tool {
        call_id: id,
        content: content.as_str().into(),
        media: std::sync::Arc::default(),
    });
    let user = "[x]?".prop_map(|text| user(&text));
    proptest::collection::vec(prop_oneof![2 => assistant, 3 => tool, 1 => user], 0..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_stands_in_a_prompt_a_legal_request_is_made_of_it(messages in messages(), reasoning in reasoning()) {
        let prompt = prompt(messages);
        assert_legal(&json(&response_body(&prompt, reasoning)));
        super::legal::assert_legal(&json(&body(&prompt)));
    }

    #[test]
    fn what_is_read_from_a_response_can_be_sent_back(items in proptest::collection::vec(item(), 0..6), reasoning in reasoning()) {
        let answer = answer(&format!("[{}]", items.join(",")));
        let message = PromptMessage::Assistant { message: answer.message, tool_calls: answer.tool_calls, asked: None };
        let prompt = prompt(vec![user("Hi"), message, user("So?")]);
        assert_legal(&json(&response_body(&prompt, reasoning)));
        super::legal::assert_legal(&json(&body(&prompt)));
    }
}

use serde_json::value::RawValue;

use crate::chat::{PromptMessage, ToolCall};

use super::{body, call, prompt, raw};

#[derive(serde::Deserialize)]
struct Body {
    messages: Vec<Box<RawValue>>,
}

/// How `message` goes back when `calls` were read from it.
fn replayed(message: &str, calls: Vec<ToolCall>) -> String {
    let message = PromptMessage::Assistant {
        message: raw(message),
        tool_calls: calls.into(),
        asked: None,
    };
    // Results of the calls may follow.
    let body = body(&prompt(vec![message]));
    let body: Body = serde_json::from_str(&body).unwrap();
    body.messages[0].get().to_owned()
}

#[test]
fn a_legal_message_goes_back_byte_for_byte() {
    for message in [
        r#"{"role":"assistant","content":"Hi"}"#,
        r#"{ "z":1.00, "role":"assistant","content":"Hi", "reasoning_content":"hm","n":12345678901234567890.5 }"#,
        r#"{"role":"assistant","content":null,"refusal":"No."}"#,
        r#"{"role":"assistant","content":[{"type":"text","text":"Hi"}]}"#,
        r#"{"role":"assistant","content":""}"#,
    ] {
        assert_eq!(replayed(message, vec![]), message);
    }
    let calls = r#"{"tool_calls": [{"function":{"arguments":"{ \"a\":1.0 }","name":"f"},"type":"function","id":"a","extra_content":{"signature":"x=="}}],"role":"assistant"}"#;
    assert_eq!(
        replayed(calls, vec![call("a", "f", "{ \"a\":1.0 }")]),
        calls
    );
}

#[test]
fn malformed_arguments_alone_are_written_anew() {
    let message = |arguments: &str| {
        format!(
            r#"{{"role":"assistant","content":null,"tool_calls":[{{"id":"a","type":"function","function":{{"name":"f","arguments":{arguments}}},"sig":1.0}}],"x":2.0}}"#
        )
    };
    for (given, text, expected) in [
        (r#""{broken""#, "{broken", r#""{}""#),
        (r#""[1]""#, "[1]", r#""{}""#),
        (r#""null""#, "null", r#""{}""#),
        (r#""""#, "{}", r#""{}""#),
        ("null", "{}", r#""{}""#),
        (r#"{"a":1}"#, r#"{"a":1}"#, r#""{\"a\":1}""#),
        ("[1]", "[1]", r#""{}""#),
    ] {
        let replayed = replayed(&message(given), vec![call("a", "f", text)]);
        assert_eq!(replayed, message(expected), "{given}");
    }
}

#[test]
fn ids_and_types_come_from_the_calls_that_were_stored() {
    insta::assert_snapshot!(
        replayed(
            r#"{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
            vec![call("a", "f", "{}"), call("call_2", "f", "{}")],
        ),
        @r#"{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"},"type":"function"},{"id":"call_2","type":"function","function":{"name":"f","arguments":"{}"}}]}"#
    );
}

#[test]
fn calls_that_are_not_answered_are_not_asked() {
    let message = r#"{"role":"assistant","content":"So","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"cut"}}]}"#;
    assert_eq!(
        replayed(message, vec![]),
        r#"{"role":"assistant","content":"So"}"#
    );
    for empty in ["[]", "null"] {
        let message = format!(r#"{{"role":"assistant","content":"So","tool_calls":{empty}}}"#);
        assert_eq!(
            replayed(&message, vec![]),
            r#"{"role":"assistant","content":"So"}"#
        );
    }
}

#[test]
fn a_message_always_has_a_role_and_something_to_say() {
    let silent = r#"{"role":"assistant","content":""}"#;
    for message in [
        r#"{"role":"assistant","content":null}"#,
        r#"{"role":"assistant"}"#,
        r#"{"role":"assistant","content":7}"#,
        r#"{"role":"assistant","content":[]}"#,
        r#"{"role":"model","content":""}"#,
        r#"{"role":"user","role":"user","content":""}"#,
    ] {
        assert_eq!(replayed(message, vec![]), silent, "{message}");
    }
    for message in ["{}", "[]", "7", "null"] {
        assert_eq!(replayed(message, vec![]), silent, "{message}");
    }
}

#[test]
fn names_that_a_model_made_up_are_put_into_legal_characters() {
    let message = |name: &str| {
        format!(
            r#"{{"role":"assistant","tool_calls":[{{"id":"a","type":"function","function":{{"name":"{name}","arguments":"{{}}"}}}}]}}"#
        )
    };
    for (name, expected) in [
        ("functions.add it", "functions_add_it"),
        ("", "unnamed"),
        ("añadir", "a_adir"),
    ] {
        assert_eq!(
            replayed(&message(name), vec![call("a", name, "{}")]),
            message(expected)
        );
    }
    let long = "n".repeat(65);
    assert_eq!(
        replayed(&message(&long), vec![call("a", &long, "{}")]),
        message(&"n".repeat(64))
    );
}

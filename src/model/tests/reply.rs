use crate::chat::{Answer, Stop, Usage};
use crate::model::classify::{Class, Verdict};
use crate::model::completions::reply::read;

use super::{call, raw};

fn completion(message: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{message},"finish_reason":{finish}}}]}}"#
    )
}

fn answer(message: &str, finish: &str) -> Answer {
    read(&raw(&completion(message, finish))).unwrap()
}

fn refused(reply: &str) -> Verdict {
    read(&raw(reply)).expect_err(reply)
}

#[test]
fn a_plain_answer_is_read_whole() {
    let reply = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini-2024-07-18",
        "choices":[{"index":0,"message":{"role":"assistant","content":"Hi","refusal":null},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,
                 "prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":1}}}"#;
    let answer = read(&raw(reply)).unwrap();
    assert_eq!(answer.content.as_deref(), Some("Hi"));
    assert_eq!(
        answer.message.get(),
        r#"{"role":"assistant","content":"Hi","refusal":null}"#
    );
    assert_eq!(
        (answer.stop, answer.finish_reason.as_deref()),
        (Stop::Done, Some("stop"))
    );
    assert_eq!(answer.model.as_deref(), Some("gpt-4o-mini-2024-07-18"));
    assert_eq!(answer.response_id.as_deref(), Some("chatcmpl-1"));
    let usage = Usage {
        input_tokens: 10,
        cached_tokens: 4,
        output_tokens: 2,
        reasoning_tokens: 1,
        total_tokens: 12,
        cost_usd: None,
    };
    assert_eq!(answer.usage, usage);
}

#[test]
fn content_is_read_in_every_shape() {
    for (content, expected) in [
        (r#""Hi""#, Some("Hi")),
        (r#""""#, None),
        ("null", None),
        ("7", None),
        (
            r#"[{"type":"text","text":"A"},{"type":"thinking","thinking":[]},{"type":"text","text":"B"}]"#,
            Some("AB"),
        ),
        (r#"["A","B"]"#, Some("AB")),
        ("[]", None),
        (r#""cut \ud83d""#, Some("cut ␛d83d")),
    ] {
        let answer = answer(
            &format!(r#"{{"role":"assistant","content":{content}}}"#),
            r#""stop""#,
        );
        assert_eq!(answer.content.as_deref(), expected, "{content}");
    }
    assert_eq!(answer("{}", r#""stop""#).content, None);
}

#[test]
fn the_finish_reason_is_an_open_set() {
    for (finish, expected) in [
        (r#""stop""#, Stop::Done),
        (r#""eos""#, Stop::Done),
        (r#""""#, Stop::Done),
        ("null", Stop::Done),
        ("7", Stop::Done),
        (r#""length""#, Stop::Length),
        (r#""MAX_TOKENS""#, Stop::Length),
        (r#""content_filter""#, Stop::ContentFilter),
        (r#""SAFETY""#, Stop::ContentFilter),
    ] {
        assert_eq!(
            answer(r#"{"content":"x"}"#, finish).stop,
            expected,
            "{finish}"
        );
    }
}

#[test]
fn calls_count_whatever_the_finish_reason_says_unless_they_may_be_cut() {
    let message = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"add","arguments":"{\"a\":1}"}}]}"#;
    for finish in [r#""tool_calls""#, r#""stop""#, r#""""#, "null"] {
        let answer = answer(message, finish);
        assert_eq!(
            &*answer.tool_calls,
            [call("a", "add", "{\"a\":1}")],
            "{finish}"
        );
    }
    for finish in [r#""length""#, r#""content_filter""#] {
        let answer = answer(message, finish);
        assert!(answer.tool_calls.is_empty(), "{finish}");
        assert_ne!(answer.stop, Stop::Done, "{finish}");
    }
}

#[test]
fn arguments_are_read_in_every_shape() {
    for (function, expected) in [
        (r#"{"name":"f","arguments":"{\"a\": 1}"}"#, r#"{"a": 1}"#),
        (r#"{"name":"f","arguments":{"a": 1}}"#, r#"{"a": 1}"#),
        (r#"{"name":"f","arguments":null}"#, "{}"),
        (r#"{"name":"f","arguments":""}"#, "{}"),
        (r#"{"name":"f","arguments":" "}"#, "{}"),
        (r#"{"name":"f"}"#, "{}"),
        (r#"{"name":"f","arguments":"{broken"}"#, "{broken"),
        (r#"{"name":"f","arguments":[1]}"#, "[1]"),
    ] {
        let message = format!(r#"{{"tool_calls":[{{"id":"a","function":{function}}}]}}"#);
        let answer = answer(&message, r#""tool_calls""#);
        assert_eq!(
            &*answer.tool_calls,
            [call("a", "f", expected)],
            "{function}"
        );
    }
}

#[test]
fn missing_and_repeated_ids_are_made_distinct() {
    let message = r#"{"tool_calls":[
        {"id":"a","function":{"name":"f"}},{"id":"a","function":{"name":"f"}},
        {"id":null,"function":{"name":"f"}},{"id":"","function":{"name":"f"}},
        {"function":{"name":"f"}},{"id":7,"function":{"name":"f"}},null,"x"]}"#;
    let answer = answer(message, r#""tool_calls""#);
    let ids: Vec<_> = answer
        .tool_calls
        .iter()
        .map(|call| call.call_id.as_str())
        .collect();
    assert_eq!(ids.len(), 8);
    assert_eq!(ids[0], "a");
    for (index, id) in ids.iter().enumerate().skip(1) {
        assert!(id.starts_with("call_") && id.len() <= 40, "{id}");
        assert!(!ids[..index].contains(id), "{id}");
    }
}

#[test]
fn odd_usage_never_costs_the_answer() {
    for (usage, input, output, total) in [
        ("null", 0, 0, 0),
        (r#""none""#, 0, 0, 0),
        (r#"{"prompt_tokens":5}"#, 5, 0, 5),
        (r#"{"prompt_tokens":-5,"completion_tokens":2}"#, 0, 2, 2),
        (
            r#"{"prompt_tokens":5.0,"completion_tokens":2,"prompt_tokens_details":null}"#,
            5,
            2,
            7,
        ),
        (
            r#"{"input_tokens":5,"output_tokens":2,"total_tokens":9}"#,
            5,
            4,
            9,
        ),
        (
            r#"{"prompt_tokens":18446744073709551615,"completion_tokens":2}"#,
            100_000_000,
            2,
            100_000_002,
        ),
    ] {
        let reply = format!(r#"{{"choices":[{{"message":{{"content":"x"}}}}],"usage":{usage}}}"#);
        let read = read(&raw(&reply)).unwrap().usage;
        assert_eq!(
            (read.input_tokens, read.output_tokens, read.total_tokens),
            (input, output, total),
            "{usage}"
        );
    }
}

#[test]
fn what_typed_clients_stumble_over_is_no_obstacle() {
    for extra in [
        r#""service_tier":"on_demand""#,
        r#""created":1.5"#,
        r#""created":1767225600000"#,
        r#""id":null"#,
        r#""id":7"#,
        r#""model":null"#,
        r#""object":null"#,
        r#""timings":{"a":[1,2]}"#,
        r#""error":null"#,
    ] {
        let reply = format!(
            r#"{{"choices":[{{"message":{{"role":"model","content":"x","annotations":[{{"type":"new"}}]}}}}],{extra}}}"#
        );
        assert_eq!(
            read(&raw(&reply)).unwrap().content.as_deref(),
            Some("x"),
            "{extra}"
        );
    }
}

/// The replies of real servers at which typed clients give up, each by what is odd about it.
#[test]
fn each_of_the_known_odd_replies_is_an_answer_or_a_named_error() {
    let words = |extra: &str| {
        format!(
            r#"{{"choices":[{{"message":{{"role":"assistant","content":"x"}},"finish_reason":"stop"}}]{extra}}}"#
        )
    };
    let finish = |finish: &str| completion(r#"{"role":"assistant","content":"x"}"#, finish);
    let message = |message: &str| completion(message, r#""stop""#);
    for (what, reply) in [
        ("finish_reason eos", finish(r#""eos""#)),
        ("finish_reason empty", finish(r#""""#)),
        (
            "finish_reason missing",
            r#"{"choices":[{"message":{"content":"x"}}]}"#.to_owned(),
        ),
        (
            "service_tier on_demand",
            words(r#","service_tier":"on_demand""#),
        ),
        (
            "an unknown annotation",
            message(r#"{"content":"x","annotations":[{"type":"new"}]}"#),
        ),
        (
            "content as an array",
            message(r#"{"content":[{"type":"text","text":"x"}]}"#),
        ),
        ("role model", message(r#"{"role":"model","content":"x"}"#)),
        ("role missing", message(r#"{"content":"x"}"#)),
        ("created in ms", words(r#","created":1767225600000"#)),
        ("created as a float", words(r#","created":1.5"#)),
        ("created missing", words("")),
        ("id missing", words(r#","created":1"#)),
        (
            "usage without completion_tokens",
            words(r#","usage":{"prompt_tokens":5}"#),
        ),
        (
            "usage negative",
            words(r#","usage":{"prompt_tokens":-5,"completion_tokens":2}"#),
        ),
        ("object missing", words(r#","id":"chatcmpl-1""#)),
    ] {
        let answer = read(&raw(&reply)).unwrap_or_else(|verdict| panic!("{what}: {verdict:?}"));
        assert_eq!(answer.content.as_deref(), Some("x"), "{what}");
        assert_eq!(answer.stop, Stop::Done, "{what}");
    }
    for (what, odd) in [
        (
            "a call without type",
            r#"{"id":"a","function":{"name":"f","arguments":"{}"}}"#,
        ),
        (
            "arguments as an object",
            r#"{"id":"a","type":"function","function":{"name":"f","arguments":{}}}"#,
        ),
        (
            "arguments null",
            r#"{"id":"a","type":"function","function":{"name":"f","arguments":null}}"#,
        ),
        (
            "a call of type custom",
            r#"{"id":"a","type":"custom","custom":{"name":"f","input":"{}"}}"#,
        ),
    ] {
        let answer = answer(&format!(r#"{{"tool_calls":[{odd}]}}"#), r#""tool_calls""#);
        assert_eq!(&*answer.tool_calls, [call("a", "f", "{}")], "{what}");
    }
    let nameless = r#"{"tool_calls":[{"id":null,"type":"function","function":{"name":"f"}}]}"#;
    let nameless = answer(nameless, r#""tool_calls""#);
    assert!(
        nameless.tool_calls[0].call_id.starts_with("call_"),
        "id null in a call"
    );
    let broke_off = refused(&finish(r#""error""#));
    assert_eq!(broke_off.class, Class::Protocol, "finish_reason error");
    assert!(broke_off.refusal.what.contains("`error`"));
}

#[test]
fn a_refusal_is_told_apart_from_an_answer() {
    let plain = answer(
        r#"{"role":"assistant","content":null,"refusal":"No."}"#,
        r#""stop""#,
    );
    assert_eq!(
        (plain.refusal.as_deref(), plain.content),
        (Some("No."), None)
    );
    let part = answer(
        r#"{"content":[{"type":"refusal","refusal":"No."}],"refusal":null}"#,
        r#""stop""#,
    );
    assert_eq!((part.refusal.as_deref(), part.content), (Some("No."), None));
}

#[test]
fn a_reply_without_a_message_is_a_protocol_error() {
    for reply in [
        "null",
        "7",
        "[]",
        "{}",
        r#"{"choices":null}"#,
        r#"{"choices":[]}"#,
        r#"{"choices":{}}"#,
        r#"{"choices":[{}]}"#,
        r#"{"choices":[{"message":null}]}"#,
        r#"{"choices":[{"message":"hi"}]}"#,
        r#"{"choices":[{"message":{"content":"x"},"finish_reason":"error"}]}"#,
    ] {
        assert_eq!(refused(reply).class, Class::Protocol, "{reply}");
    }
}

#[test]
fn an_error_inside_a_success_is_that_error() {
    assert_eq!(
        refused(r#"{"error":{"code":429,"message":"slow"}}"#).class,
        Class::Unavailable
    );
    assert_eq!(refused(r#"{"error":"broken"}"#).class, Class::Unavailable);
    let in_choice =
        r#"{"choices":[{"error":{"code":402,"message":"no credit"},"message":{"content":""}}]}"#;
    assert_eq!(refused(in_choice).class, Class::Quota);
}

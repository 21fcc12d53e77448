use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::server::Dialect;
use super::reading::Reading;
use super::{Ear, Heard};
use crate::chat::Answer;
use crate::model::classify::{Class, Verdict};
use crate::model::completions::reply;

const MOST: usize = 7 << 20;

/// What a stream of these bytes comes to, and the text that was heard of it.
fn read_in(dialect: Dialect, pieces: &[&[u8]]) -> (Result<String, Verdict>, String) {
    let heard = Arc::<Mutex<String>>::default();
    let kept = Arc::clone(&heard);
    let ear = Ear::new(true, move |heard| {
        if let Heard::Text(text) = heard {
            kept.lock().unwrap().push_str(text);
        }
    });
    let mut reading = Reading::new(dialect, MOST, Some(&ear));
    let mut failed = None;
    for piece in pieces {
        match reading.take(piece) {
            Ok(super::reading::Course::GoesOn) => {}
            Ok(super::reading::Course::Over) => break,
            Err(verdict) => {
                failed = Some(verdict);
                break;
            }
        }
    }
    let came = match failed {
        Some(verdict) => Err(verdict),
        None => reading
            .end()
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()),
    };
    let heard = heard.lock().unwrap().clone();
    (came, heard)
}

fn read(body: &str) -> (Result<String, Verdict>, String) {
    read_in(Dialect::Completions, &[body.as_bytes()])
}

fn answer(reply: &str) -> Answer {
    let reply = RawValue::from_string(reply.to_owned()).unwrap();
    reply::read(&reply).unwrap_or_else(|verdict| panic!("{verdict:?}: {reply}"))
}

/// A body of these chunks, and the end that is usual.
fn body(chunks: &[Value]) -> String {
    let chunks = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    chunks.chain(["data: [DONE]\n\n".to_owned()]).collect()
}

fn chunk(delta: &Value) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn stop(reason: &str) -> Value {
    json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

/// The message that deltas of tool calls come to: names and arguments.
fn calls(deltas: &[Value]) -> Vec<(String, String)> {
    let mut chunks: Vec<_> = deltas
        .iter()
        .map(|deltas| chunk(&json!({ "tool_calls": deltas })))
        .collect();
    chunks.push(stop("tool_calls"));
    let (reply, heard) = read(&body(&chunks));
    assert_eq!(heard, "");
    let answer = answer(&reply.unwrap());
    let call = |call: &crate::chat::ToolCall| (call.name.clone(), call.arguments.clone());
    answer.tool_calls.iter().map(call).collect()
}

fn pair(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

#[test]
fn a_stream_by_the_book_adds_up_to_the_reply_without_one() {
    let chunks = [
        chunk(&json!({"role": "assistant", "content": "", "refusal": null})),
        chunk(&json!({"content": "Hell"})),
        chunk(&json!({"content": "é \u{1F600}"})),
        stop("stop"),
        json!({"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}),
    ];
    let (reply, heard) = read(&body(&chunks));
    let reply: Value = serde_json::from_str(&reply.unwrap()).unwrap();
    let expected = json!({
        "id": "c", "model": "m",
        "choices": [{"message": {"role": "assistant", "content": "Hellé \u{1F600}", "refusal": null}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    });
    assert_eq!(reply, expected);
    assert_eq!(heard, "Hellé \u{1F600}");
}

#[test]
fn calls_come_together_in_all_the_ways_in_use() {
    let function = |name: &str, arguments: &str| json!({"name": name, "arguments": arguments});
    let by_the_book = [
        json!([{"index": 0, "id": "a", "type": "function", "function": function("add", "")}]),
        json!([{"index": 1, "id": "b", "type": "function", "function": function("sub", "")}]),
        json!([{"index": 1, "function": {"arguments": "{\"x\""}}, {"index": 0, "function": {"arguments": "{\"a\":"}}]),
        json!([{"index": 0, "function": {"arguments": "1}"}}]),
        json!([{"index": 1, "function": {"arguments": ":2}"}}]),
    ];
    let expected = [pair("add", r#"{"a":1}"#), pair("sub", r#"{"x":2}"#)];
    assert_eq!(calls(&by_the_book), expected);
    let out_of_order = [
        json!([{"index": 1, "id": "b", "function": function("sub", r#"{"x":2}"#)}]),
        json!([{"index": 0, "id": "a", "function": function("add", r#"{"a":1}"#)}]),
    ];
    assert_eq!(calls(&out_of_order), expected);
    let no_index = [
        json!([{"id": "a", "function": function("add", "")}]),
        json!([{"function": {"arguments": "{\"a\":1}"}}]),
        json!([{"id": "b", "function": function("sub", "{\"x\":")}]),
        json!([{"id": "b", "function": {"arguments": "2}"}}]),
    ];
    assert_eq!(calls(&no_index), expected);
    let always_0 = [
        json!([{"index": 0, "id": "a", "function": function("add", r#"{"a":1}"#)}]),
        json!([{"index": 0, "id": "b", "function": function("sub", "")}]),
        json!([{"index": 0, "id": "b", "function": {"name": null, "arguments": r#"{"x":2}"#}}]),
    ];
    assert_eq!(calls(&always_0), expected);
    let all_again_each_time = [
        json!([{"index": 0, "id": "a", "function": function("add", "{\"a\"")}]),
        json!([{"index": 0, "id": "a", "function": function("add", ":1}")}]),
        json!([{"index": 1, "id": "b", "function": function("sub", "{\"x\"")}]),
        json!([{"index": 1, "id": "b", "function": function("sub", ":2}")}]),
    ];
    assert_eq!(calls(&all_again_each_time), expected);
    let a_new_id_each_time = [
        json!([{"index": 0, "id": "a", "function": function("add", "{\"a\"")}]),
        json!([{"index": 0, "id": "a2", "function": function("add", ":1}")}]),
        json!([{"index": 1, "id": "b", "function": function("sub", "{\"x\"")}]),
        json!([{"index": 1, "id": "b2", "function": {"arguments": ":2}"}}]),
    ];
    assert_eq!(calls(&a_new_id_each_time), expected);
    let nothing_to_tell_them_by = [
        json!([{"function": function("add", r#"{"a":1}"#)}, {"function": function("sub", r#"{"x":2}"#)}]),
    ];
    assert_eq!(calls(&nothing_to_tell_them_by), expected);
    let one_after_the_other = [
        json!([{"function": function("add", r#"{"a":1}"#)}]),
        json!([{"function": function("sub", "{\"x\":")}]),
        json!([{"function": {"arguments": "2}"}}]),
    ];
    assert_eq!(calls(&one_after_the_other), expected);
    let twice_the_same = [
        json!([{"function": function("add", r#"{"a":1}"#)}]),
        json!([{"function": function("add", r#"{"a":1}"#)}]),
    ];
    assert_eq!(
        calls(&twice_the_same),
        [pair("add", r#"{"a":1}"#), pair("add", r#"{"a":1}"#)]
    );
    let always_0_and_no_id = [
        json!([{"index": 0, "id": "", "function": function("add", r#"{"a":1}"#)}]),
        json!([{"index": 0, "id": "", "function": function("add", "{\"a\":")}]),
        json!([{"index": 0, "id": "", "function": function("add", "2}")}]),
        json!([{"index": 0, "id": "", "function": function("add", "")}]),
        json!([{"index": 0, "id": "", "function": function("add", "{\"a\":2}")}]),
    ];
    assert_eq!(
        calls(&always_0_and_no_id),
        [pair("add", r#"{"a":1}"#), pair("add", r#"{"a":2}"#)]
    );
    let objects = [
        json!([{"index": 0, "id": "a", "function": {"name": "add", "arguments": {"a": 1}}}]),
        json!([{"index": 1, "id": "b", "function": {"name": "su"}}]),
        json!([{"index": 1, "function": {"name": "b", "arguments": null}}]),
        json!([{"index": 1, "function": {"arguments": r#"{"x":2}"#}}]),
    ];
    assert_eq!(calls(&objects), expected);
}

#[test]
fn what_servers_add_to_a_call_or_a_message_is_kept() {
    let chunks = [
        chunk(&json!({"role": "assistant", "content": "", "reasoning_content": "So"})),
        chunk(
            &json!({"role": "assistant", "reasoning_content": " then", "reasoning_details": [{"n": 1}]}),
        ),
        chunk(&json!({"reasoning_details": [{"n": 2}], "tool_calls": [
            {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}, "extra_content": {"google": {"thought_signature": "s"}}}]})),
        stop("tool_calls"),
    ];
    let (reply, _) = read(&body(&chunks));
    let reply: Value = serde_json::from_str(&reply.unwrap()).unwrap();
    let expected = json!({
        "role": "assistant", "content": null, "reasoning_content": "So then", "reasoning_details": [{"n": 1}, {"n": 2}],
        "tool_calls": [{"id": "a", "type": "function", "extra_content": {"google": {"thought_signature": "s"}},
                        "function": {"name": "f", "arguments": ""}}],
    });
    assert_eq!(reply["choices"][0]["message"], expected);
}

#[test]
fn content_in_parts_is_heard_as_text() {
    let chunks = [
        chunk(
            &json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
        ),
        chunk(&json!({"content": "So "})),
        chunk(&json!({"content": [{"type": "text", "text": "be it"}]})),
        stop("stop"),
    ];
    let (reply, heard) = read(&body(&chunks));
    assert_eq!(heard, "So be it");
    assert_eq!(answer(&reply.unwrap()).content.as_deref(), Some("So be it"));
}

#[test]
fn a_pair_that_is_cut_in_two_is_heard_and_kept_as_one_character() {
    let piece = |content: &str| {
        format!(r#"data: {{"choices":[{{"index":0,"delta":{{"content":"{content}"}}}}]}}"#) + "\n\n"
    };
    let body = [
        piece(r"a\ud83d"),
        piece(r"\ude00b\\ud83d"),
        piece(r"c\u0000"),
        format!("data: {}\n\n", stop("stop")),
    ]
    .concat();
    let (reply, heard) = read(&body);
    assert_eq!(heard, "a\u{1F600}b\\ud83dc␛0000");
    assert_eq!(answer(&reply.unwrap()).content, Some(heard));
}

#[test]
fn a_stream_that_ends_too_soon_is_no_answer() {
    let whole = body(&[chunk(&json!({"content": "Hello"})), stop("stop")]);
    let end = whole.find("data: [DONE]").unwrap();
    // All that says why it stopped is there: the rest is not missed.
    assert!(read(&whole[..end]).0.is_ok());
    assert!(read(&whole[..end - 2]).0.is_ok());
    for cut in [0, 1, 5, 60, end - 30] {
        let (cut, _) = read(&whole[..cut]);
        let verdict = cut.unwrap_err();
        assert!(
            matches!(verdict.class, Class::Unavailable | Class::Protocol),
            "{verdict:?}"
        );
    }
    let silent_about_it = body(&[chunk(&json!({"content": "Hello"}))]);
    assert_eq!(
        read(&silent_about_it).0.unwrap_err().class,
        Class::Unavailable
    );
}

#[test]
fn an_error_in_the_stream_is_one() {
    let error = json!({"error": {"message": "slow down", "type": "requests", "code": 429}});
    for body in [
        body(&[chunk(&json!({"content": "He"})), error.clone()]),
        format!("event: error\ndata: {error}\n\n"),
    ] {
        let verdict = read(&body).0.unwrap_err();
        assert_eq!(verdict.name(), "rate_limited", "{body}");
    }
    let verdict = read("data: {\"choices\": oops\n\n").0.unwrap_err();
    assert_eq!(verdict.class, Class::Protocol);
}

#[test]
fn a_piece_that_cannot_be_read_is_missing_in_the_answer_and_never_passed_over() {
    let hello = chunk(&json!({"content": "Hello"}));
    for odd in [
        json!("garbage"),
        json!(42),
        json!([1]),
        json!({"choices": "oops"}),
        json!({"choices": ["oops"]}),
        json!({"choices": [{"delta": "lo"}]}),
        chunk(&json!({"content": 7})),
        chunk(&json!({"content": {"text": "lo"}})),
    ] {
        let (read, _) = read(&body(&[hello.clone(), odd.clone(), stop("stop")]));
        assert_eq!(read.unwrap_err().class, Class::Protocol, "{odd}");
    }
    // What says nothing is none of them.
    for idle in [
        json!({"choices": null}),
        json!({"choices": [{"delta": null}]}),
    ] {
        let (read, _) = read(&body(&[hello.clone(), idle, stop("stop")]));
        assert_eq!(answer(&read.unwrap()).content.as_deref(), Some("Hello"));
    }
}

#[test]
fn a_server_that_never_says_why_it_stopped_or_parts_its_events_by_single_lines_is_understood() {
    let chunks = [chunk(&json!({"content": "Hel"})), stop("")];
    let (reply, _) = read(&body(&chunks));
    assert_eq!(answer(&reply.unwrap()).content.as_deref(), Some("Hel"));
    let cut = read(&body(&chunks).replace("data: [DONE]\n\n", ""));
    assert!(cut.0.is_err(), "it broke off");
    let joined = body(&[chunk(&json!({"content": "Hel"})), stop("stop")]);
    let (reply, _) = read(&joined.replace("\n\n", "\n"));
    assert_eq!(answer(&reply.unwrap()).content.as_deref(), Some("Hel"));
}

#[test]
fn an_event_of_responses_is_what_its_line_or_its_type_says() {
    let error = json!({"code": "rate_limit_exceeded", "message": "slow down"});
    let body = format!("event: error\ndata: {error}\n\n");
    let (read, _) = read_in(Dialect::Responses, &[body.as_bytes()]);
    assert_eq!(read.unwrap_err().name(), "rate_limited");
    let delta = |text: &str| {
        format!("event: response.output_text.delta\ndata: {{\"delta\": \"{text}\"}}\n\n")
    };
    let end = json!({"response": {"id": "r", "output": []}});
    let end = format!("event: response.completed\ndata: {end}\n\n");
    let body = [delta("a\\ud83d"), delta("\\ude00b"), end].concat();
    let (read, heard) = read_in(Dialect::Responses, &[body.as_bytes()]);
    assert!(read.is_ok());
    assert_eq!(heard, "a\u{1F600}b");
}

#[test]
fn a_body_that_is_no_stream_is_the_reply() {
    let plain = r#" {"choices":[{"message":{"content":"plain"},"finish_reason":"stop"}]}"#;
    let (reply, heard) = read(plain);
    assert_eq!(answer(&reply.unwrap()).content.as_deref(), Some("plain"));
    assert_eq!(heard, "");
    let (page, _) = read("<html>busy</html>");
    assert_eq!(page.unwrap(), "<html>busy</html>");
}

#[test]
fn a_stream_without_bounds_is_not_read_to_its_end() {
    let piece = "x".repeat(1 << 20);
    let chunk = format!("data: {}\n\n", chunk(&json!({ "content": piece })));
    let pieces = [chunk.as_bytes(); 9];
    let (read, _) = read_in(Dialect::Completions, &pieces);
    assert!(read.unwrap_err().refusal.what.contains("MiB"));
    let comment = format!(": {}\n", "x".repeat(1 << 20));
    let pieces = [comment.as_bytes(); 70];
    assert!(read_in(Dialect::Completions, &pieces).0.is_err());
}

#[test]
fn a_response_comes_whole_with_its_last_event() {
    let event = |event: Value| {
        let kind = event["type"].as_str().unwrap().to_owned();
        format!("event: {kind}\ndata: {event}\n\n")
    };
    let item = json!({"type": "message", "content": [{"type": "output_text", "text": "Hello"}]});
    let response = |output: Value| json!({"id": "r", "status": "completed", "output": output});
    let delta = |text: &str| event(json!({"type": "response.output_text.delta", "delta": text}));
    let done = event(json!({"type": "response.output_item.done", "item": item}));
    for output in [json!([item]), json!([])] {
        let body = [
            event(json!({"type": "response.created", "response": {"status": "in_progress"}})),
            delta("Hel"),
            delta("lo"),
            done.clone(),
            event(json!({"type": "response.completed", "response": response(output)})),
        ];
        let body = body.concat();
        let (reply, heard) = read_in(Dialect::Responses, &[body.as_bytes()]);
        let reply: Value = serde_json::from_str(&reply.unwrap()).unwrap();
        assert_eq!(reply, response(json!([item])));
        assert_eq!(heard, "Hello");
    }
    let (cut, _) = read_in(
        Dialect::Responses,
        &[delta("Hel").as_bytes(), done.as_bytes()],
    );
    assert_eq!(cut.unwrap_err().class, Class::Unavailable);
    let error =
        event(json!({"type": "error", "code": "rate_limit_exceeded", "message": "slow down"}));
    assert!(read_in(Dialect::Responses, &[error.as_bytes()]).0.is_err());
}

/// A message, and how its texts are cut and mixed.
fn messages() -> impl Strategy<Value = (Option<String>, Vec<(String, Value)>)> {
    let content = proptest::option::of(any::<String>());
    let arguments = proptest::collection::btree_map("[a-z]{1,3}", any::<String>(), 0..4);
    let call = ("[a-z_]{1,8}", arguments.prop_map(|map| json!(map)));
    (content, proptest::collection::vec(call, 0..4))
}

/// Cuts a text at random into 1 to 5 pieces.
fn cut(text: &str, random: &mut fastrand::Rng) -> Vec<String> {
    let mut chars: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    for _ in 0..random.usize(0..5) {
        let tail = chars.split_off(random.usize(0..=chars.len()));
        pieces.push(chars.into_iter().collect());
        chars = tail;
    }
    pieces.push(chars.into_iter().collect());
    pieces
}

/// The chunks of a message: the pieces of each text in their order, those of different texts mixed.
fn chunks(
    content: Option<&str>,
    calls: &[(String, Value)],
    random: &mut fastrand::Rng,
) -> Vec<Value> {
    let mut lanes: Vec<Vec<Value>> = Vec::new();
    if let Some(content) = content {
        let pieces = cut(content, random).into_iter();
        lanes.push(pieces.map(|piece| json!({ "content": piece })).collect());
    }
    let mut opened = Vec::new();
    for (index, (name, arguments)) in calls.iter().enumerate() {
        let function = json!({"name": name, "arguments": ""});
        let id = format!("call_{index}");
        opened.push(json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}));
        let pieces = cut(&arguments.to_string(), random).into_iter();
        let delta =
            |piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]});
        lanes.push(pieces.map(delta).collect());
    }
    let mut chunks = vec![chunk(
        &json!({"role": "assistant", "content": null, "refusal": null}),
    )];
    chunks.extend(opened.iter().map(chunk));
    while !lanes.is_empty() {
        let at = random.usize(0..lanes.len());
        chunks.push(chunk(&lanes[at].remove(0)));
        lanes.retain(|lane| !lane.is_empty());
    }
    chunks.push(stop(if calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    }));
    chunks.push(json!({"id": "c", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}}));
    chunks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever is said, however the model cuts it, however the network cuts that.
    #[test]
    fn deltas_joined_are_the_reply_and_the_reply_is_that_without_a_stream(
        (content, calls) in messages(),
        seed in any::<u64>(),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !calls.is_empty() {
            let call = |(index, (name, arguments)): (usize, &(String, Value))| {
                json!({"id": format!("call_{index}"), "type": "function",
                       "function": {"name": name, "arguments": arguments.to_string()}})
            };
            message["tool_calls"] = calls.iter().enumerate().map(call).collect();
            if content.as_deref() == Some("") {
                message["content"] = Value::Null;
            }
        }
        let finish = if calls.is_empty() { "stop" } else { "tool_calls" };
        let plain = json!({
            "id": "c", "model": "m", "choices": [{"message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11},
        });
        let bytes = body(&chunks(content.as_deref(), &calls, &mut random)).into_bytes();
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(random.usize(1..=rest.len().min(64)));
            pieces.push(piece);
            rest = tail;
        }
        let (reply, heard) = read_in(Dialect::Completions, &pieces);
        let reply = reply.unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(&reply).unwrap(), plain.clone());
        let (streamed, whole) = (answer(&reply), answer(&plain.to_string()));
        prop_assert_eq!(heard, streamed.content.clone().unwrap_or_default());
        prop_assert_eq!(&streamed.content, &whole.content);
        prop_assert_eq!(&streamed.tool_calls, &whole.tool_calls);
        prop_assert_eq!(streamed.usage, whole.usage);
    }
}

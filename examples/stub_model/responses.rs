//! A reply of Chat Completions as one of the Responses API.
//!
//! What the model "thought" before a call or an answer is an item that only this server can read: it
//! has to come back whole, or not at all.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// Whether a model of this name thinks, and seals what it thinks.
pub(super) fn thinks(model: &str) -> bool {
    !["gpt-4", "gpt-3.5"]
        .iter()
        .any(|name| model.starts_with(name))
}

pub(super) fn seal(id: &str) -> String {
    format!("sealed {id}")
}

/// The reply that an assistant message of Chat Completions is, to a request for `model`.
pub(super) fn reply(
    message: &str,
    finish: Option<&str>,
    model: &str,
    tokens: (usize, usize),
) -> Vec<u8> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let message: Value = serde_json::from_str(message).unwrap_or_default();
    let mut output = Vec::new();
    let thought = if thinks(model) { "thought_" } else { "" };
    if thinks(model) {
        let id = format!("rs_thought_{number:020}");
        output.push(
            json!({"id": id, "type": "reasoning", "summary": [], "encrypted_content": seal(&id)}),
        );
    }
    let mut content = Vec::new();
    if let Some(text) = of(&message, "content").as_str() {
        content
            .push(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}));
    }
    if let Some(refusal) = of(&message, "refusal").as_str() {
        content.push(json!({"type": "refusal", "refusal": refusal}));
    }
    let status = if finish.is_some_and(|finish| finish == "length" || finish == "content_filter") {
        "incomplete"
    } else {
        "completed"
    };
    if !content.is_empty() {
        output.push(
            json!({"id": format!("msg_{thought}{number:020}"), "type": "message", "status": status,
                           "role": "assistant", "content": content}),
        );
    }
    for (place, call) in of(&message, "tool_calls")
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        output.push(json!({"id": format!("fc_{thought}{number:020}.{place}"), "type": "function_call", "status": status,
                           "call_id": of(call, "id"), "name": of(of(call, "function"), "name"),
                           "arguments": of(of(call, "function"), "arguments")}));
    }
    let reason = match finish {
        Some("length") => json!({"reason": "max_output_tokens"}),
        Some("content_filter") => json!({"reason": "content_filter"}),
        _ => Value::Null,
    };
    let (input, said) = tokens;
    let body = json!({
        "id": format!("resp_stub{number:020}"), "object": "response", "created_at": 1_767_225_600, "status": status,
        "error": null, "incomplete_details": reason, "model": format!("{model}-2024-07-18"), "output": output,
        "store": false, "usage": {
            "input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": said, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + said,
        },
    });
    body.to_string().into_bytes()
}

/// The events of a response that comes piece by piece.
pub(super) fn events(response: &[u8]) -> Vec<String> {
    let response: Value = serde_json::from_slice(response).unwrap_or_default();
    let mut going = response.clone();
    set(&mut going, "status", json!("in_progress"));
    set(&mut going, "output", json!([]));
    set(&mut going, "usage", Value::Null);
    let mut events = vec![json!({"type": "response.created", "response": going})];
    for (index, item) in of(&response, "output")
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let id = of(item, "id");
        let mut opening = item.clone();
        set(&mut opening, "status", json!("in_progress"));
        events.push(
            json!({"type": "response.output_item.added", "output_index": index, "item": opening}),
        );
        let (kind, said) = match of(item, "type").as_str() {
            Some("message") => (
                "response.output_text",
                of(first(of(item, "content")), "text"),
            ),
            Some("function_call") => ("response.function_call_arguments", of(item, "arguments")),
            _ => ("", &Value::Null),
        };
        for piece in super::stream::pieces(said.as_str().unwrap_or_default()) {
            events.push(json!({"type": format!("{kind}.delta"), "item_id": id, "output_index": index, "content_index": 0, "delta": piece}));
        }
        events.push(
            json!({"type": "response.output_item.done", "output_index": index, "item": item}),
        );
    }
    let last = format!(
        "response.{}",
        of(&response, "status").as_str().unwrap_or("completed")
    );
    events.push(json!({"type": last, "response": response}));
    let event = |(number, mut event): (usize, Value)| {
        set(&mut event, "sequence_number", json!(number));
        format!(
            "event: {}\ndata: {event}\n\n",
            of(&event, "type").as_str().unwrap_or_default()
        )
    };
    events.into_iter().enumerate().map(event).collect()
}

/// The field of an object; null where there is none.
pub(super) fn of<'a>(json: &'a Value, field: &str) -> &'a Value {
    json.get(field).unwrap_or(&Value::Null)
}

/// The first of a list; null where there is none.
fn first(json: &Value) -> &Value {
    json.get(0).unwrap_or(&Value::Null)
}

fn set(json: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = json {
        fields.insert(field.to_owned(), value);
    }
}

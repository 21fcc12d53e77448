use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::stub_model::Reply;

/// A job in which `user-42` says `text`.
pub(crate) fn ask(text: &str) -> Value {
    json!({"user_id": "user-42", "messages": [{"role": "user", "content": text}]})
}

/// The job with another field.
pub(crate) fn with(mut job: Value, field: &str, value: impl Into<Value>) -> Value {
    job[field] = value.into();
    job
}

/// What was said in a prompt by `role`, in order.
pub(crate) fn said(prompt: &[Value], role: &str) -> Vec<String> {
    let by = prompt.iter().filter(|message| message["role"] == role);
    by.map(|message| text_or_json(&message["content"]))
        .collect()
}

/// What the prompt's system messages say.
pub(crate) fn systems(prompt: &[Value]) -> Vec<String> {
    said(prompt, "system")
}

/// A job that has [`puppet`] call these tools, together.
pub(crate) fn call(calls: &[(&str, Value)]) -> Value {
    let calls: Vec<_> = calls
        .iter()
        .map(|(name, arguments)| json!([name, arguments]))
        .collect();
    ask(&json!(calls).to_string())
}

/// A model that makes the calls that the last message asks for, and says then what came of them.
/// Arguments that are a text are sent as they are.
pub(crate) fn puppet(request: &Value) -> Reply {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let messages = request["messages"].as_array().expect("messages");
    // What tools show comes as the user's, too.
    let at = messages
        .iter()
        .rposition(|message| message["role"] == "user" && message["content"].is_string())
        .expect("a message of the user");
    let results = said(&messages[at..], "tool");
    if !results.is_empty() {
        return Reply::text(results.join("\n"));
    }
    let text = messages[at]["content"].as_str().expect("a text");
    let Ok(calls) = serde_json::from_str::<Vec<(String, Value)>>(text) else {
        return Reply::text("no calls");
    };
    let calls = calls.into_iter().map(|(name, arguments)| {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let arguments = text_or_json(&arguments);
        json!({"id": format!("call_{number}"), "type": "function",
               "function": {"name": name, "arguments": arguments}})
    });
    Reply::message(
        &json!({"role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>()}),
    )
}

fn text_or_json(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

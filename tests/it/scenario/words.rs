use serde_json::{Value, json};

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
    by.map(|message| match &message["content"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
    .collect()
}

/// What the prompt's system messages say.
pub(crate) fn systems(prompt: &[Value]) -> Vec<String> {
    said(prompt, "system")
}

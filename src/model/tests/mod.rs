//! Tests of the pure parts: no runtime, no server.

mod classify;
mod legal;
mod replay;
mod reply;
mod request;

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::completions::request::{Dialect, Request};
use crate::chat::{
    Content, Message, ModelOptions, Prompt, PromptMessage, Role, ToolCall, ToolChoice,
};

fn raw(json: &str) -> Arc<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap().into()
}

fn user(text: &str) -> PromptMessage {
    PromptMessage::Given(Arc::new(Message {
        role: Role::User,
        content: Content::Text(text.to_owned()),
    }))
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall {
        call_id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    }
}

fn prompt(messages: Vec<PromptMessage>) -> Prompt {
    Prompt {
        model: "gpt-4o-mini".into(),
        messages,
        tools: Arc::new([]),
        tool_choice: ToolChoice::Auto,
        options: Arc::new(ModelOptions::default()),
    }
}

/// The body that `prompt` is sent as.
fn body(prompt: &Prompt) -> String {
    serde_json::to_string(&Request::new(prompt, Dialect::Compatible)).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

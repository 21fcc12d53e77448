//! The rules of the Chat Completions API that a tool-calling client can break, in `OpenAI`'s words.

use std::collections::HashSet;

use serde::de::IgnoredAny;
use serde_json::json;

use super::reply::Reply;
use super::request::{Call, Chat, Said};
use super::tool_rules::{self, check_name};

/// Why a request is refused.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    param: String,
    code: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: param.into(),
            code: None,
        }
    }

    pub(super) fn coded(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    pub(super) fn into_reply(self) -> Reply {
        let param = Some(self.param).filter(|param| !param.is_empty());
        let error = json!({
            "message": self.message, "type": "invalid_request_error", "param": param, "code": self.code,
        });
        Reply::json(400, &json!({ "error": error }))
    }
}

/// Whether `OpenAI` would take the request.
pub(super) fn check(chat: &Chat<'_>) -> Result<(), Refusal> {
    if chat.model.is_empty() {
        return Err(Refusal::new("", "you must provide a model parameter"));
    }
    if chat.messages.is_empty() {
        return Err(empty_array("messages"));
    }
    if chat.max_tokens.is_some() && chat.max_completion_tokens.is_some() {
        let message =
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(Refusal::new("max_tokens", message).coded("invalid_parameter_combination"));
    }
    if chat.stream_options.is_some() && chat.stream != Some(true) {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Refusal::new("stream_options", message));
    }
    tool_rules::check(chat)?;
    check_messages(&chat.messages)
}

/// The order of messages, and each of them, in one pass.
fn check_messages(messages: &[Said<'_>]) -> Result<(), Refusal> {
    // The calls of the assistant message before that no tool message has answered yet.
    let mut open: Vec<&str> = Vec::new();
    let mut asked_at = 0;
    for (index, message) in messages.iter().enumerate() {
        if message.role == "tool" {
            check_answer(index, message, &mut open)?;
            continue;
        }
        all_answered(asked_at, &open)?;
        match &*message.role {
            "system" | "developer" | "user" => check_content(index, message)?,
            "assistant" => check_assistant(index, message)?,
            role => {
                let message = format!(
                    "Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."
                );
                return Err(
                    Refusal::new(format!("messages[{index}].role"), message).coded("invalid_value")
                );
            }
        }
        asked_at = index;
        open.clear();
        open.extend(message.tool_calls.iter().flatten().map(|call| &*call.id));
    }
    all_answered(asked_at, &open)
}

fn check_answer(index: usize, message: &Said<'_>, open: &mut Vec<&str>) -> Result<(), Refusal> {
    let Some(id) = message.tool_call_id.as_deref() else {
        let message = format!("Missing required parameter: 'messages[{index}].tool_call_id'.");
        return Err(
            Refusal::new(format!("messages[{index}].tool_call_id"), message)
                .coded("missing_required_parameter"),
        );
    };
    let Some(position) = open.iter().position(|open| *open == id) else {
        let message = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.";
        return Err(Refusal::new(format!("messages.[{index}].role"), message));
    };
    open.swap_remove(position);
    let is_string = message
        .content
        .is_some_and(|content| content.get().starts_with('"'));
    if !is_string
        || message
            .content
            .is_some_and(|content| content.get() == "\"\"")
    {
        return Err(bad_content(index, "a non-empty string"));
    }
    check_content(index, message)
}

fn all_answered(asked_at: usize, open: &[&str]) -> Result<(), Refusal> {
    if open.is_empty() {
        return Ok(());
    }
    let message = format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
        open.join(", ")
    );
    Err(Refusal::new(
        format!("messages.[{}].role", asked_at + 1),
        message,
    ))
}

fn check_assistant(index: usize, message: &Said<'_>) -> Result<(), Refusal> {
    let Some(calls) = &message.tool_calls else {
        let refused = message
            .refusal
            .as_ref()
            .is_some_and(|refusal| !refusal.is_empty());
        return match message.content {
            None if refused => Ok(()),
            _ => check_content(index, message),
        };
    };
    if calls.is_empty() {
        return Err(empty_array(&format!("messages[{index}].tool_calls")));
    }
    if message.content.is_some() {
        check_content(index, message)?;
    }
    let mut ids = HashSet::with_capacity(calls.len());
    for (position, call) in calls.iter().enumerate() {
        check_call(index, position, call)?;
        if !ids.insert(&call.id) {
            let message = format!(
                "Duplicate value for 'tool_call_id' of '{}' found in messages.",
                call.id
            );
            return Err(Refusal::new(
                format!("messages[{index}].tool_calls"),
                message,
            ));
        }
    }
    Ok(())
}

fn check_call(index: usize, position: usize, call: &Call<'_>) -> Result<(), Refusal> {
    let param = format!("messages[{index}].tool_calls[{position}]");
    if call.id.is_empty() {
        return Err(Refusal::new(
            param.clone(),
            format!("Invalid '{param}.id': empty string."),
        ));
    }
    if call.kind != "function" {
        let message = format!(
            "Invalid value: '{}'. Supported values are: 'function'.",
            call.kind
        );
        return Err(Refusal::new(format!("{param}.type"), message).coded("invalid_value"));
    }
    check_name(&format_args!("{param}.function.name"), &call.function.name)?;
    let arguments = call.function.arguments.trim_start();
    if !arguments.starts_with('{') || serde_json::from_str::<IgnoredAny>(arguments).is_err() {
        let message = format!("Invalid '{param}.function.arguments': expected a JSON object.");
        return Err(Refusal::new(param, message).coded("invalid_value"));
    }
    Ok(())
}

/// A string, or a list of parts that is not empty.
fn check_content(index: usize, message: &Said<'_>) -> Result<(), Refusal> {
    let content = message.content.map(serde_json::value::RawValue::get);
    match content.map(|content| content.as_bytes().first()) {
        Some(Some(b'"')) => Ok(()),
        Some(Some(b'[')) if content != Some("[]") => Ok(()),
        _ => Err(bad_content(index, "a string")),
    }
}

fn bad_content(index: usize, expected: &str) -> Refusal {
    let message =
        format!("Invalid value for 'content': expected {expected}, got null or something else.");
    Refusal::new(format!("messages.[{index}].content"), message)
}

pub(super) fn empty_array(param: &str) -> Refusal {
    let message = format!(
        "Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    );
    Refusal::new(param, message).coded("empty_array")
}

//! A reply of the Chat Completions API as an answer. Pure, and lenient: of a reply that a
//! compatible server gives, whatever can be read is read, field by field.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::classify::Verdict;
use super::super::lenient::{Fields, count, elements, text, words};
use crate::chat::{Answer, Stop, ToolCall, Usage};
use crate::escape::{armour, disarm_text, is_too_deep};

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// The answer in `reply`.
///
/// Calls that come with the finish reason `length` or `content_filter` are dropped, since their
/// arguments may be cut; [`Answer::stop`] says so.
///
/// # Errors
/// The verdict on an `error` object inside the reply, or on a reply without a message.
pub(in crate::model) fn read(reply: &RawValue) -> Result<Answer, Verdict> {
    let reply = armour(reply.get());
    let reply: Reply<'_> = serde_json::from_str(&reply).map_err(|error| {
        Verdict::malformed(&format!("a reply that is no chat completion: {error}"))
    })?;
    if let Some(error) = reply.error {
        return Err(Verdict::error_in_reply(error));
    }
    let choice = (reply.choices.as_deref().unwrap_or_default().first())
        .ok_or_else(|| Verdict::malformed("a reply without choices"))?;
    if let Some(error) = choice.error {
        return Err(Verdict::error_in_reply(error));
    }
    let finish_reason = words(choice.finish_reason);
    // OpenRouter's word for a generation that broke off.
    if finish_reason.as_deref() == Some("error") {
        return Err(Verdict::malformed(
            "a reply that ends with the finish reason `error`",
        ));
    }
    let message = choice
        .message
        .filter(|message| message.get().starts_with('{'));
    let message = message.ok_or_else(|| Verdict::malformed("a choice without a message"))?;
    if is_too_deep(message.get()) {
        return Err(Verdict::malformed("a message nested too deep"));
    }
    let spoken = Spoken::read(message);
    let stop = Stop::of(finish_reason.as_deref());
    let tool_calls = match stop {
        Stop::Done => spoken.tool_calls,
        Stop::Length | Stop::ContentFilter => Vec::new(),
    };
    Ok(Answer {
        message: Arc::from(message.to_owned()),
        content: spoken.content,
        refusal: spoken.refusal,
        stop,
        finish_reason,
        tool_calls: tool_calls.into(),
        usage: reply.usage.map(usage).unwrap_or_default(),
        model: words(reply.model),
        asked: None,
        response_id: words(reply.id),
    })
}

#[derive(Default)]
struct Spoken {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Vec<ToolCall>,
}

impl Spoken {
    fn read(message: &RawValue) -> Self {
        let mut spoken = Self::default();
        for (key, json) in Fields::read(message).0 {
            match key.as_str() {
                "content" if json.get().starts_with('[') => spoken.read_parts(json),
                "content" => spoken.content = words(Some(json)),
                "refusal" => spoken.refusal = words(Some(json)).or(spoken.refusal),
                "tool_calls" => spoken.tool_calls = tool_calls(json),
                _ => {}
            }
        }
        spoken
    }

    /// Content as an array: its texts in a row. Thinking and other parts are not for the reader.
    fn read_parts(&mut self, parts: &RawValue) {
        let mut said = String::new();
        for part in elements(parts) {
            said.extend(text(part));
            for (key, json) in Fields::read(part).0 {
                match key.as_str() {
                    "text" => said.extend(text(json)),
                    "refusal" => self.refusal = words(Some(json)),
                    _ => {}
                }
            }
        }
        self.content = Some(said).filter(|said| !said.is_empty());
    }
}

/// The calls with ids that are present and distinct: a missing or repeated one is `call_<uuid>`.
fn tool_calls(json: &RawValue) -> Vec<ToolCall> {
    let mut seen = HashSet::new();
    let mut calls: Vec<_> = elements(json).into_iter().map(tool_call).collect();
    for call in &mut calls {
        if call.call_id.is_empty() || !seen.insert(call.call_id.clone()) {
            // 37 characters: OpenAI takes at most 40.
            call.call_id = format!("call_{}", Uuid::new_v4().simple());
            seen.insert(call.call_id.clone());
        }
    }
    calls
}

fn tool_call(json: &RawValue) -> ToolCall {
    let mut call = ToolCall {
        call_id: String::new(),
        name: String::new(),
        arguments: "{}".to_owned(),
    };
    for (key, json) in Fields::read(json).0 {
        match key.as_str() {
            "id" => call.call_id = text(json).unwrap_or_default(),
            "function" | "custom" => {
                for (key, json) in Fields::read(json).0 {
                    match key.as_str() {
                        "name" => call.name = text(json).unwrap_or_default(),
                        "arguments" | "input" => {
                            call.arguments = disarm_text(&arguments(json)).into_owned();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    call
}

/// The arguments as text: `{}` where there are none, an object's own JSON where a server sends one
/// instead of a string.
fn arguments(json: &RawValue) -> String {
    let given = match json.get() {
        "null" => String::new(),
        other => text(json).unwrap_or_else(|| other.to_owned()),
    };
    if given.trim().is_empty() {
        "{}".to_owned()
    } else {
        given
    }
}

fn usage(json: &RawValue) -> Usage {
    let mut usage = Usage::default();
    let mut total = None;
    for (key, json) in Fields::read(json).0 {
        match key.as_str() {
            "prompt_tokens" | "input_tokens" => usage.input_tokens = count(Some(json)),
            "completion_tokens" | "output_tokens" => usage.output_tokens = count(Some(json)),
            "total_tokens" => total = Some(count(Some(json))),
            "prompt_tokens_details" => usage.cached_tokens = detail(json, "cached_tokens"),
            "completion_tokens_details" => {
                usage.reasoning_tokens = detail(json, "reasoning_tokens");
            }
            _ => {}
        }
    }
    // Tokens that only the total counts (reasoning, with some providers) are output: they are paid
    // for like it, and rows hold no total of their own.
    let unlisted = total.unwrap_or_default().saturating_sub(usage.input_tokens);
    usage.output_tokens = usage.output_tokens.max(unlisted);
    usage.total_tokens = usage.input_tokens.saturating_add(usage.output_tokens);
    usage
}

fn detail(json: &RawValue, name: &str) -> u64 {
    count(Fields::read(json).find(name))
}

//! A reply of the Chat Completions API as an answer. Pure, and lenient: of a reply that a
//! compatible server gives, whatever can be read is read, field by field.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::classify::Verdict;
use super::super::lenient::words;
use super::super::spoken::{Spoken, distinct};
use super::super::usage::usage;
use crate::chat::{Answer, Stop};
use crate::escape::{armour, is_too_deep};

/// Finish reasons of a generation that broke off, whatever there is of it: `OpenRouter`'s, `DeepSeek`'s, vLLM's,
/// Zhipu's.
const BROKE_OFF: [&str; 4] = [
    "error",
    "insufficient_system_resource",
    "abort",
    "network_error",
];

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
    if let Some(reason) = finish_reason.as_deref().filter(|it| BROKE_OFF.contains(it)) {
        return Err(Verdict::malformed(&format!(
            "a reply that ends with the finish reason `{reason}`"
        )));
    }
    let message = choice
        .message
        .filter(|message| message.get().starts_with('{'));
    let message = message.ok_or_else(|| Verdict::malformed("a choice without a message"))?;
    if is_too_deep(message.get()) {
        return Err(Verdict::malformed("a message nested too deep"));
    }
    let spoken = Spoken::in_message(message);
    let stop = Stop::of(finish_reason.as_deref());
    let tool_calls = match stop {
        Stop::Done => distinct(spoken.tool_calls),
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
        is_estimated: false,
        model: words(reply.model),
        asked: None,
        response_id: words(reply.id),
    })
}

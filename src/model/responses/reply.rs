//! A reply of the Responses API as an answer. Lenient: of a reply that a compatible server gives,
//! whatever can be read is read, field by field.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::classify::Verdict;
use super::super::lenient::{Fields, words};
use super::super::spoken::{Spoken, distinct, is_output};
use super::super::usage::usage;
use crate::chat::{Answer, Stop};
use crate::escape::{armour, is_too_deep};

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    incomplete_details: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

/// The answer in `reply`. [`Answer::message`] is its output, with items of every kind.
///
/// Calls of an answer that was cut off are dropped, since their arguments may be cut too;
/// [`Answer::stop`] says so.
///
/// # Errors
/// The verdict on an `error` object inside the reply, or on a reply without output.
pub(in crate::model) fn read(reply: &RawValue) -> Result<Answer, Verdict> {
    let reply = armour(reply.get());
    let reply: Reply<'_> = serde_json::from_str(&reply)
        .map_err(|error| Verdict::malformed(&format!("a reply that is no response: {error}")))?;
    if let Some(error) = reply.error {
        return Err(Verdict::error_in_reply(error));
    }
    let status = words(reply.status);
    let cut = match status.as_deref() {
        Some("failed") => {
            return Err(Verdict::malformed(
                "a response that failed without a reason",
            ));
        }
        Some(going @ ("in_progress" | "queued" | "cancelled")) => {
            return Err(Verdict::malformed(&format!("a response that is {going}")));
        }
        Some("incomplete") => Some(reason(reply.incomplete_details)),
        Some(_) | None => None,
    };
    let output = reply.output.filter(|output| is_output(output));
    let output = output.ok_or_else(|| Verdict::malformed("a response without output"))?;
    if is_too_deep(output.get()) {
        return Err(Verdict::malformed("a response nested too deep"));
    }
    let spoken = Spoken::in_output(output);
    let tool_calls = match cut {
        Some(_) => Vec::new(),
        None => distinct(spoken.tool_calls),
    };
    // The words of Chat Completions: rows do not tell which dialect was spoken.
    let finish_reason = match &cut {
        Some(reason) => reason.as_str(),
        None if tool_calls.is_empty() => "stop",
        None => "tool_calls",
    };
    Ok(Answer {
        message: Arc::from(output.to_owned()),
        content: spoken.content,
        refusal: spoken.refusal,
        stop: Stop::of(Some(finish_reason)),
        finish_reason: Some(finish_reason.to_owned()),
        tool_calls: tool_calls.into(),
        usage: reply.usage.map(usage).unwrap_or_default(),
        is_estimated: false,
        model: words(reply.model),
        asked: None,
        response_id: words(reply.id),
    })
}

/// Why a response is not complete. Without a reason it is a limit: there is no other sense in it.
fn reason(details: Option<&RawValue>) -> String {
    let reason = details.and_then(|details| words(Fields::read(details).find("reason")));
    match reason.as_deref() {
        Some("max_output_tokens" | "max_tokens") | None => "length".to_owned(),
        Some(other) => other.to_owned(),
    }
}

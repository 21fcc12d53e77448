//! What a tool's answer says and shows, as the model is told. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::blocks::{Blocks, text_of};
use crate::chat::{OutcomeStatus, ToolOutcome};
use crate::escape::armour_text;

/// What stands for an answer without any text.
const NO_OUTPUT: &str = "(no output)";
/// What stands before the words of a tool that says it failed.
const ERROR: &str = "Error: ";

/// How much of a result is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    /// Bytes of its text.
    pub(super) text: usize,
    /// Bytes of its images and documents, before they are base64.
    pub(super) media: usize,
}

/// Reads the result of `tools/call` (Model Context Protocol, "Tools", tool result).
pub(super) fn read_result(result: &Value, caps: Caps) -> ToolOutcome {
    // Since the revision of 2026-07-28 a server may want something first: input, or patience.
    if let Some(kind) = text_of(result, "resultType").filter(|kind| *kind != "complete") {
        let text = format!(
            "The tool did not complete: it answered with {kind:?}, which cannot be gone on from here."
        );
        return outcome(OutcomeStatus::Failed, text, caps.text);
    }
    let Blocks { texts, media, .. } = Blocks::read(result, caps.media);
    let mut text = texts.join("\n");
    if text.trim().is_empty() {
        // Both together would say everything twice: servers repeat the one in the other.
        text = match result.get("structuredContent") {
            Some(structured) if !structured.is_null() => structured.to_string(),
            Some(_) | None => String::new(),
        };
    }
    let failed = result.get("isError").and_then(Value::as_bool) == Some(true);
    let mut outcome = if failed {
        error(&text, caps.text)
    } else {
        outcome(OutcomeStatus::Succeeded, text, caps.text)
    };
    outcome.media = media.into();
    outcome
}

/// Reads a line of the line dialect, of which `whole` bytes there were.
pub(super) fn read_line(text: String, whole: usize, max_bytes: usize) -> ToolOutcome {
    cut_outcome(OutcomeStatus::Succeeded, text, whole, max_bytes)
}

/// The outcome of a call whose tool or server says that it failed.
pub(super) fn error(said: &str, max_bytes: usize) -> ToolOutcome {
    let says_so = |head: &str| head.eq_ignore_ascii_case(ERROR.trim_end_matches([':', ' ']));
    let text = match said.get(..ERROR.len() - 2) {
        Some(head) if says_so(head) => said.to_owned(),
        Some(_) | None if said.trim().is_empty() => format!("{ERROR}{NO_OUTPUT}"),
        Some(_) | None => format!("{ERROR}{said}"),
    };
    outcome(OutcomeStatus::Failed, text, max_bytes)
}

/// An outcome of `text`, cut at `max_bytes`.
pub(super) fn outcome(status: OutcomeStatus, text: String, max_bytes: usize) -> ToolOutcome {
    let whole = text.len();
    cut_outcome(status, text, whole, max_bytes)
}

fn cut_outcome(status: OutcomeStatus, text: String, whole: usize, max_bytes: usize) -> ToolOutcome {
    let text = if text.trim().is_empty() {
        NO_OUTPUT.to_owned()
    } else {
        cut(text, whole, max_bytes)
    };
    ToolOutcome {
        status,
        text: armoured(text),
        bytes: u64::try_from(whole).unwrap_or(u64::MAX),
        media: Arc::default(),
    }
}

/// `text` as it is stored.
fn armoured(text: String) -> String {
    match armour_text(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(armoured) => armoured,
    }
}

/// `text`, of which `whole` bytes there were, made to fit `max_bytes` together with the mark that
/// says so. Of what is there all of, the end is kept as well: there stands what it came to.
fn cut(mut text: String, whole: usize, max_bytes: usize) -> String {
    if whole <= max_bytes && text.len() == whole {
        return text;
    }
    let longest_mark = mark(whole, whole).len();
    let room = max_bytes.saturating_sub(longest_mark).min(text.len());
    let tail_room = if text.len() == whole { room / 3 } else { 0 };
    let head = text.floor_char_boundary(room - tail_room);
    let tail = text.ceil_char_boundary(text.len() - tail_room);
    let mark = mark(head + (text.len() - tail), whole);
    text.replace_range(head..tail, &mark);
    text
}

fn mark(kept: usize, whole: usize) -> String {
    format!("\n[truncated: {kept} of {whole} bytes]\n")
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;

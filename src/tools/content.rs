//! What a tool's answer says, as text for the model: every content block read alone and leniently.
//! Pure.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::chat::{OutcomeStatus, ToolOutcome};
use crate::escape::armour_text;

/// What stands for an answer without any text.
const NO_OUTPUT: &str = "(no output)";

/// Reads the result of `tools/call` (Model Context Protocol, "Tools", tool result), cut at
/// `max_bytes`.
pub(super) fn read_result(result: &Value, max_bytes: usize) -> ToolOutcome {
    // Since the revision of 2026-07-28 a server may want something first: input, or patience.
    if let Some(kind) = text_of(result, "resultType").filter(|kind| *kind != "complete") {
        let text = format!(
            "The tool did not complete: it answered with {kind:?}, which cannot be gone on from here."
        );
        return outcome(OutcomeStatus::Failed, text, max_bytes);
    }
    let failed = result.get("isError").and_then(Value::as_bool) == Some(true);
    let status = if failed {
        OutcomeStatus::Failed
    } else {
        OutcomeStatus::Succeeded
    };
    outcome(status, read_text(result), max_bytes)
}

/// Reads a line of the line dialect, of which `whole` bytes there were.
pub(super) fn read_line(text: String, whole: usize, max_bytes: usize) -> ToolOutcome {
    let text = if text.is_empty() {
        NO_OUTPUT.to_owned()
    } else {
        armoured(cut(text, whole, max_bytes))
    };
    let bytes = u64::try_from(whole).unwrap_or(u64::MAX);
    ToolOutcome {
        status: OutcomeStatus::Succeeded,
        text,
        bytes,
        media: Arc::default(),
    }
}

/// An outcome of `text`, cut at `max_bytes`.
pub(super) fn outcome(status: OutcomeStatus, text: String, max_bytes: usize) -> ToolOutcome {
    let size = text.len();
    let text = if text.is_empty() {
        NO_OUTPUT.to_owned()
    } else {
        cut(text, size, max_bytes)
    };
    ToolOutcome {
        status,
        text: armoured(text),
        bytes: u64::try_from(size).unwrap_or(u64::MAX),
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
/// says so.
fn cut(mut text: String, whole: usize, max_bytes: usize) -> String {
    if whole <= max_bytes && text.len() == whole {
        return text;
    }
    let longest_mark = mark(whole, whole).len();
    let room = max_bytes.saturating_sub(longest_mark).min(text.len());
    text.truncate(text.floor_char_boundary(room));
    let mark = mark(text.len(), whole);
    text.push_str(&mark);
    text
}

fn mark(kept: usize, whole: usize) -> String {
    format!("\n[truncated: {kept} of {whole} bytes]")
}

fn read_text(result: &Value) -> String {
    let content = result.get("content").or_else(|| result.get("toolResult"));
    let blocks: Vec<String> = match content {
        Some(Value::Array(blocks)) => blocks.iter().filter_map(read_block).collect(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(block @ Value::Object(_)) => read_block(block).into_iter().collect(),
        None | Some(Value::Null | Value::Bool(_) | Value::Number(_)) => Vec::new(),
    };
    let text = blocks.join("\n");
    if !text.trim().is_empty() {
        return text;
    }
    // Both together would say everything twice: servers repeat the one in the other.
    match result.get("structuredContent") {
        Some(structured) if !structured.is_null() => structured.to_string(),
        Some(_) | None => text,
    }
}

fn read_block(block: &Value) -> Option<String> {
    if let Value::String(text) = block {
        return Some(text.clone());
    }
    match text_of(block, "type")? {
        "text" => text_of(block, "text").map(str::to_owned),
        kind @ ("image" | "audio") => Some(notice(kind, block, "data")),
        "resource" => read_resource(block.get("resource")?),
        "resource_link" => read_link(block),
        other => Some(format!("[{other}: not shown]")),
    }
}

fn read_resource(resource: &Value) -> Option<String> {
    if let Some(text) = text_of(resource, "text") {
        return Some(text.to_owned());
    }
    resource.get("blob")?;
    Some(notice("resource", resource, "blob"))
}

fn read_link(link: &Value) -> Option<String> {
    let uri = text_of(link, "uri")?;
    let name = text_of(link, "name").filter(|name| !name.is_empty());
    Some(name.map_or_else(|| uri.to_owned(), |name| format!("{name}: {uri}")))
}

/// What is said of bytes that a model cannot read as text.
fn notice(kind: &str, block: &Value, field: &str) -> String {
    let data = text_of(block, field).unwrap_or_default();
    let padding = data.bytes().rev().take_while(|byte| *byte == b'=').count();
    let bytes = (data.len() / 4 * 3).saturating_sub(padding);
    let media = text_of(block, "mimeType").unwrap_or("unknown type");
    format!("[{kind}: {media}, {bytes} bytes]")
}

fn text_of<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(result: &Value) -> ToolOutcome {
        read_result(result, 1000)
    }

    #[test]
    fn every_kind_of_content_becomes_text_and_an_unknown_one_costs_nothing_else() {
        let outcome = read(&json!({"content": [
            {"type": "text", "text": "one"},
            {"type": "text", "text": null},
            {"type": "image", "mimeType": "image/png", "data": "QUJDRA=="},
            {"type": "audio", "data": "QUJD"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}},
            {"type": "resource", "resource": {"uri": "file:///b", "mimeType": "application/pdf", "blob": "QUJD"}},
            {"type": "resource_link", "uri": "file:///c"},
            {"type": "hologram", "x": 1},
            7, "bare"], "structuredContent": {"not": "shown"}}));
        assert_eq!(
            outcome.text,
            "one\n[image: image/png, 4 bytes]\n[audio: unknown type, 3 bytes]\ninside\n\
             [resource: application/pdf, 3 bytes]\nfile:///c\n[hologram: not shown]\nbare"
        );
        assert_eq!(outcome.status, OutcomeStatus::Succeeded);
    }

    #[test]
    fn structured_content_speaks_only_where_nothing_else_does() {
        let structured = json!({"content": [], "structuredContent": {"a": 1}});
        assert_eq!(read(&structured).text, r#"{"a":1}"#);
        assert_eq!(
            read(&json!({"structuredContent": null})).text,
            "(no output)"
        );
        let empty = read(&json!({}));
        assert_eq!((empty.text.as_str(), empty.bytes), ("(no output)", 0));
        assert_eq!(read(&json!({"content": "old servers"})).text, "old servers");
    }

    #[test]
    fn a_tool_that_says_it_failed_has_failed_and_keeps_its_words() {
        let outcome =
            read(&json!({"content": [{"type": "text", "text": "no such file"}], "isError": true}));
        assert_eq!(
            (outcome.status, outcome.text.as_str()),
            (OutcomeStatus::Failed, "no such file")
        );
        let asks = read(&json!({"resultType": "input_required", "inputRequests": {}}));
        assert_eq!(asks.status, OutcomeStatus::Failed);
        assert!(asks.text.contains("input_required"), "{}", asks.text);
    }

    #[test]
    fn a_long_result_is_cut_at_a_character_and_keeps_its_true_size() {
        let text = "é".repeat(600);
        let outcome = outcome(OutcomeStatus::Succeeded, text, 1000);
        assert_eq!(outcome.bytes, 1200);
        assert!(
            outcome.text.len() <= 1000 && outcome.text.len() > 960,
            "{}",
            outcome.text.len()
        );
        let (kept, mark) = outcome.text.rsplit_once('\n').unwrap();
        assert_eq!(mark, format!("[truncated: {} of 1200 bytes]", kept.len()));
    }
}

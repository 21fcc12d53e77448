//! What an answer says, read from what its provider sent, in either dialect. Pure, and lenient:
//! whatever can be read is read, field by field.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::lenient::{Fields, elements, text, words};
use crate::chat::ToolCall;
use crate::escape::disarm_text;

/// The most characters of a function's name that `OpenAI` takes.
const MAX_NAME: usize = 64;

/// What an answer says.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    pub(super) content: Option<String>,
    pub(super) refusal: Option<String>,
    /// Ids may be missing or repeated, see [`distinct`].
    pub(super) tool_calls: Vec<ToolCall>,
}

impl Spoken {
    /// Reads an assistant message of Chat Completions, or the output of Responses.
    pub(super) fn read(sent: &RawValue) -> Self {
        if is_output(sent) {
            Self::in_output(sent)
        } else {
            Self::in_message(sent)
        }
    }

    /// Reads an assistant message of Chat Completions.
    pub(super) fn in_message(message: &RawValue) -> Self {
        let mut spoken = Self::default();
        for (key, json) in Fields::read(message).0 {
            match &*key {
                "content" => spoken.content = spoken.said(json),
                "refusal" => spoken.refusal = words(Some(json)).or(spoken.refusal),
                "tool_calls" => {
                    spoken.tool_calls = elements(json).into_iter().map(call_in_message).collect();
                }
                _ => {}
            }
        }
        spoken
    }

    /// Reads the output of Responses: its messages in a row, and its calls.
    pub(super) fn in_output(output: &RawValue) -> Self {
        let mut spoken = Self::default();
        for item in elements(output) {
            let fields = Fields::read(item);
            match kind(&fields).as_str() {
                // Servers that know no other item leave the type out.
                "message" | "" => {
                    let said = fields.find("content").and_then(|json| spoken.said(json));
                    match (&mut spoken.content, said) {
                        (Some(content), Some(said)) => content.push_str(&said),
                        (content @ None, said) => *content = said,
                        (Some(_), None) => {}
                    }
                }
                "function_call" | "custom_tool_call" => {
                    spoken.tool_calls.push(call_in_item(&fields));
                }
                // What was thought, and what the provider did by itself, is not for the reader.
                _ => {}
            }
        }
        spoken
    }

    /// Content as a text or as an array: its texts in a row. Thinking and other parts are not for
    /// the reader.
    fn said(&mut self, content: &RawValue) -> Option<String> {
        if !content.get().starts_with('[') {
            return words(Some(content));
        }
        let mut said = String::new();
        for part in elements(content) {
            said.extend(text(part));
            for (key, json) in Fields::read(part).0 {
                match &*key {
                    "text" => said.extend(text(json)),
                    "refusal" => self.refusal = words(Some(json)).or(self.refusal.take()),
                    _ => {}
                }
            }
        }
        Some(said).filter(|said| !said.is_empty())
    }

    /// What a reader gets to see: what is said, else why it is not.
    pub(super) fn words(self) -> String {
        self.content.or(self.refusal).unwrap_or_default()
    }
}

/// Whether `sent` is the output of Responses rather than a message of Chat Completions.
pub(super) fn is_output(sent: &RawValue) -> bool {
    sent.get().starts_with('[')
}

/// Whether what a provider sent holds nothing but who speaks: no thought, no call, no word.
pub(super) fn is_bare(sent: &RawValue) -> bool {
    if is_output(sent) {
        let mut items = elements(sent).into_iter();
        return items.all(|item| kind(&Fields::read(item)) == "message");
    }
    let is_nothing = |json: &RawValue| matches!(json.get(), "null" | "\"\"" | "[]" | "{}");
    let mut fields = Fields::read(sent).0.into_iter();
    fields.all(|(key, json)| key == "role" || is_nothing(json))
}

/// The type of an item of Responses.
pub(super) fn kind(fields: &Fields<'_>) -> String {
    fields.find("type").and_then(text).unwrap_or_default()
}

/// The calls with ids that are present and distinct: a missing or repeated one is `call_<uuid>`.
pub(super) fn distinct(mut calls: Vec<ToolCall>) -> Vec<ToolCall> {
    let mut seen = HashSet::new();
    for call in &mut calls {
        if call.call_id.is_empty() || !seen.insert(call.call_id.clone()) {
            // 37 characters: OpenAI takes at most 40.
            call.call_id = format!("call_{}", Uuid::new_v4().simple());
            seen.insert(call.call_id.clone());
        }
    }
    calls
}

fn no_call() -> ToolCall {
    ToolCall {
        call_id: String::new(),
        name: String::new(),
        arguments: "{}".to_owned(),
    }
}

fn call_in_message(json: &RawValue) -> ToolCall {
    let mut call = no_call();
    for (key, json) in Fields::read(json).0 {
        match &*key {
            "id" => call.call_id = text(json).unwrap_or_default(),
            "function" | "custom" => {
                for (key, json) in Fields::read(json).0 {
                    take(&mut call, &key, json);
                }
            }
            _ => {}
        }
    }
    call
}

fn call_in_item(fields: &Fields<'_>) -> ToolCall {
    let mut call = no_call();
    for (key, json) in &fields.0 {
        take(&mut call, key, json);
    }
    let id = words(fields.find("call_id")).or_else(|| words(fields.find("id")));
    call.call_id = id.unwrap_or_default();
    call
}

fn take(call: &mut ToolCall, key: &str, json: &RawValue) {
    match key {
        "name" => call.name = text(json).unwrap_or_default(),
        "arguments" | "input" => call.arguments = disarm_text(&arguments(json)).into_owned(),
        _ => {}
    }
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

/// Whether providers take `name` as a function's.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// A name that a model made up, in the characters that a provider takes back.
pub(super) fn legal_name(name: &str) -> Cow<'_, str> {
    if is_name(name) {
        return name.into();
    }
    let cleaned: String = (name.chars().take(MAX_NAME))
        .map(|char| {
            u8::try_from(char)
                .ok()
                .filter(|byte| is_name_byte(*byte))
                .map_or('_', char::from)
        })
        .collect();
    if cleaned.is_empty() {
        "unnamed".into()
    } else {
        cleaned.into()
    }
}

/// The arguments of a call as a provider takes them back: an object, whatever the model wrote.
pub(super) fn legal_arguments(arguments: &str) -> &str {
    if super::lenient::is_object(arguments) {
        arguments
    } else {
        "{}"
    }
}

//! A message that comes in deltas: texts are put together as they are written, escapes and all, so
//! that what is stored is what would have come in one piece.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::super::lenient::{Fields, elements};
use super::tool_calls::ToolCalls;

/// A message under way.
#[derive(Default)]
pub(super) struct Message {
    fields: Vec<(String, Built)>,
    tool_calls: Option<ToolCalls>,
    bytes: usize,
}

/// A field of it.
enum Built {
    /// The inside of a JSON string.
    Text(String),
    /// The elements of an array, or an object or a word that came whole.
    List(Vec<Box<RawValue>>),
    Whole(Box<RawValue>),
}

impl Message {
    /// Takes a delta in.
    pub(super) fn add(&mut self, delta: &RawValue) {
        self.bytes = self.bytes.saturating_add(delta.get().len());
        for (key, json) in Fields::read(delta).0 {
            if key == "tool_calls" && json.get().starts_with('[') {
                let calls = self.tool_calls.get_or_insert_default();
                calls.add(&elements(json));
                continue;
            }
            match self.fields.iter_mut().find(|(name, _)| *name == key) {
                Some((_, built)) => built.add(&key, json),
                None => self.fields.push((key.into_owned(), Built::first(json))),
            }
        }
    }

    /// The bytes of what came, about those of what it adds up to.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The JSON object that it adds up to.
    pub(super) fn into_json(self) -> String {
        let calls = self.tool_calls.and_then(ToolCalls::into_json);
        let mut out = String::with_capacity(self.bytes.min(1 << 20));
        out.push('{');
        for (key, built) in self.fields {
            // A message that only calls tools says nothing, whatever a server opens it with.
            let says_nothing = matches!(&built, Built::Text(text) if text.is_empty());
            push_key(&mut out, &key);
            if says_nothing && key == "content" && calls.is_some() {
                out.push_str("null");
            } else {
                built.write(&mut out);
            }
        }
        if let Some(calls) = calls {
            push_key(&mut out, "tool_calls");
            out.push_str(&calls);
        }
        out.push('}');
        out
    }
}

impl Built {
    fn first(json: &RawValue) -> Self {
        match json.get() {
            text if text.starts_with('"') => Self::Text(inside(text).to_owned()),
            text if text.starts_with('[') => {
                Self::List(elements(json).into_iter().map(ToOwned::to_owned).collect())
            }
            _ => Self::Whole(json.to_owned()),
        }
    }

    fn add(&mut self, key: &str, json: &RawValue) {
        if json.get() == "null" {
            return;
        }
        let more = Self::first(json);
        match (&mut *self, more) {
            // What names something is said again with each delta, or once.
            (Self::Text(_), Self::Text(_)) if is_name(key) => {}
            (Self::Text(text), Self::Text(more)) => text.push_str(&more),
            (Self::List(list), Self::List(more)) => list.extend(more),
            (Self::List(list), Self::Text(_)) => list.push(json.to_owned()),
            (Self::Text(text), Self::List(more)) => {
                let before = RawValue::from_string(format!("\"{text}\"")).ok();
                let before = before.filter(|_| !text.is_empty());
                *self = Self::List(before.into_iter().chain(more).collect());
            }
            (Self::Text(_) | Self::List(_) | Self::Whole(_), more) => *self = more,
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => {
                out.push('"');
                out.push_str(text);
                out.push('"');
            }
            Self::Whole(json) => out.push_str(json.get()),
            Self::List(list) => {
                out.push('[');
                for (at, json) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    out.push_str(json.get());
                }
                out.push(']');
            }
        }
    }
}

fn is_name(key: &str) -> bool {
    matches!(key, "role" | "type" | "id" | "name")
}

/// Begins a field.
pub(super) fn push_key(out: &mut String, key: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    let key = serde_json::Value::from(key);
    // Writing to a string cannot fail.
    write!(out, "{key}:").unwrap_or_default();
}

/// What stands between the quotes of a JSON string.
pub(super) fn inside(string: &str) -> &str {
    string
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_default()
}

/// Whether a text ends in the first half of a surrogate pair, written as an escape.
pub(super) fn ends_in_half(said: &str) -> bool {
    let Some(escape) = said.get(said.len().saturating_sub(6)..) else {
        return false;
    };
    let Some(digits) = escape.strip_prefix("\\u") else {
        return false;
    };
    // Escaped itself, the backslash begins no escape: an odd number of them stands there then.
    let before = said.strip_suffix(escape).unwrap_or_default();
    let backslashes = before.bytes().rev().take_while(|byte| *byte == b'\\');
    let unit = u16::from_str_radix(digits, 16);
    backslashes.count() % 2 == 0 && unit.is_ok_and(|unit| (0xD800..0xDC00).contains(&unit))
}

//! An earlier answer, sent again.
//!
//! Items go back as the provider sent them, byte for byte, so that those we do not know survive, and
//! with them what the model thought. What cannot go back is written anew, from what was read of it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::lenient::{Fields, elements, text, words};
use super::super::manner::Reasoning;
use super::super::piece::{Piece, replaced};
use super::super::spoken::{Spoken, is_output, kind, legal_arguments, legal_name};
use super::item::{Item, Text};
use crate::chat::ToolCall;

/// A call, and the id that its output goes by.
#[derive(Clone)]
pub(super) struct Named<'a> {
    pub(super) call: &'a ToolCall,
    pub(super) id: Cow<'a, str>,
}

/// Appends what `sent` is in a request; `calls` are those whose outputs follow.
pub(super) fn push<'a>(
    sent: &'a RawValue,
    calls: &[Named<'a>],
    (at_home, reasoning): (bool, Reasoning),
    items: &mut Vec<Item<'a>>,
) {
    if at_home && is_output(sent) {
        push_output(sent, calls, reasoning, items);
        return;
    }
    // From elsewhere: what it says and what it asks for, in our own words.
    let said = Spoken::read(sent).words();
    if !said.is_empty() {
        items.push(Item::Said {
            role: "assistant",
            content: Text::Plain(said.into()),
        });
    }
    items.extend(calls.iter().cloned().map(written));
}

/// What is to become of an item.
enum Fate<'a> {
    Call(Named<'a>),
    Kept,
    Gone,
}

fn push_output<'a>(
    sent: &'a RawValue,
    calls: &[Named<'a>],
    reasoning: Reasoning,
    items: &mut Vec<Item<'a>>,
) {
    let sent: Vec<_> = elements(sent)
        .into_iter()
        .map(|item| (item, Fields::read(item)))
        .collect();
    let mut fates = fates(&sent, calls, reasoning);
    // What was thought before something that is not there is refused.
    let mut is_last = true;
    for ((_, fields), fate) in sent.iter().zip(&mut fates).rev() {
        match fate {
            Fate::Kept if is_last && kind(fields) == "reasoning" => *fate = Fate::Gone,
            Fate::Kept | Fate::Call(_) => is_last = false,
            Fate::Gone => {}
        }
    }
    let thought = |(_, fields): &(_, Fields<'_>)| kind(fields) == "reasoning";
    let forgotten =
        (sent.iter().zip(&fates)).any(|(item, fate)| thought(item) && matches!(fate, Fate::Gone));
    let mut written_calls = 0;
    for ((json, fields), fate) in sent.into_iter().zip(fates) {
        match fate {
            Fate::Gone => {}
            Fate::Kept if forgotten => items.push(Item::Patched(nameless(fields))),
            Fate::Kept => items.push(Item::Unchanged(json)),
            Fate::Call(call) => {
                written_calls += 1;
                items.push(if forgotten || !is_legal(&fields, &call) {
                    Item::Patched(patched(fields, call, forgotten))
                } else {
                    Item::Unchanged(json)
                });
            }
        }
    }
    // Calls that stand in the record but not in what was sent.
    let rest = calls.get(written_calls..).unwrap_or_default();
    items.extend(rest.iter().cloned().map(written));
}

fn fates<'a>(
    sent: &[(&RawValue, Fields<'_>)],
    calls: &[Named<'a>],
    reasoning: Reasoning,
) -> Vec<Fate<'a>> {
    let is_call = |kind: &str| matches!(kind, "function_call" | "custom_tool_call");
    let asked = sent.iter().filter(|(_, fields)| is_call(&kind(fields)));
    // What cannot be matched one to one is written from the calls alone.
    let matches = asked.count() == calls.len();
    let mut calls = calls.iter().cloned();
    let fate = |(json, fields): &(&RawValue, Fields<'_>)| match kind(fields).as_str() {
        "function_call" | "custom_tool_call" if matches => {
            calls.next().map_or(Fate::Gone, Fate::Call)
        }
        "reasoning" if goes_back(fields, reasoning) => Fate::Kept,
        "message" if says_something(fields) => Fate::Kept,
        "function_call" | "custom_tool_call" | "reasoning" | "message" | "" => Fate::Gone,
        _ if json.get().starts_with('{') => Fate::Kept,
        _ => Fate::Gone,
    };
    sent.iter().map(fate).collect()
}

/// Without anything kept at the provider, what was thought goes back only whole.
fn goes_back(fields: &Fields<'_>, reasoning: Reasoning) -> bool {
    let sealed = words(fields.find("encrypted_content")).is_some();
    // Open models say what they think instead.
    let open = fields
        .find("content")
        .is_some_and(|content| !elements(content).is_empty());
    match reasoning {
        Reasoning::Kept => sealed || open,
        Reasoning::Unknown => open && !sealed,
        Reasoning::Forgotten => false,
    }
}

fn says_something(fields: &Fields<'_>) -> bool {
    let role = fields.find("role").and_then(text);
    let content = fields.find("content");
    role.as_deref() == Some("assistant")
        && content.is_some_and(|content| match content.get().as_bytes() {
            [b'"', ..] => words(Some(content)).is_some(),
            [b'[', ..] => !elements(content).is_empty(),
            _ => false,
        })
}

fn is_legal(fields: &Fields<'_>, Named { call, id }: &Named<'_>) -> bool {
    let is = |name, expected: &str| fields.find(name).and_then(text).as_deref() == Some(expected);
    let arguments = fields.find("arguments").and_then(text);
    is("type", "function_call")
        && is("call_id", id)
        && is("name", &legal_name(&call.name))
        && arguments.is_some_and(|text| legal_arguments(&text) == text)
}

/// A call with its id, name and arguments as they must be, all else as it is.
fn patched<'a>(fields: Fields<'a>, named: Named<'a>, forgotten: bool) -> Piece<'a> {
    let Named { call, id: call_id } = named;
    let text = |text: &'a str| Some(Piece::Text(text.into()));
    // An id says what kind of item it is of.
    let keeps_id = !forgotten && kind(&fields) == "function_call";
    let id = fields.find("id").filter(|_| keeps_id).map(Piece::Raw);
    replaced(
        fields,
        [
            ("type", text("function_call")),
            ("call_id", Some(Piece::Text(call_id))),
            ("name", Some(Piece::Text(legal_name(&call.name)))),
            ("arguments", text(legal_arguments(&call.arguments))),
            ("input", None),
            ("id", id),
        ],
    )
}

/// An item without its id, by which the provider would miss what was thought before it.
fn nameless(fields: Fields<'_>) -> Piece<'_> {
    replaced(fields, [("id", None)])
}

fn written(Named { call, id }: Named<'_>) -> Item<'_> {
    Item::Call {
        r#type: "function_call",
        call_id: id,
        name: legal_name(&call.name),
        arguments: legal_arguments(&call.arguments),
    }
}

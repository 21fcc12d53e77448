//! An earlier answer of the model, sent again.
//!
//! The provider's own JSON goes back byte for byte, so that fields we do not know (reasoning
//! content, signatures) survive. Only where it would make the history illegal, exactly these places
//! are written anew: a provider refuses such a history for ever (llama.cpp even with a 500).

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::super::legal::call_id;
use super::super::lenient::{Fields, elements, is_object, present, words};
use super::super::piece::{Piece, replaced};
use super::super::spoken::{Spoken, is_name, is_output, legal_arguments, legal_name};
use crate::chat::ToolCall;

/// An assistant message as it is sent.
pub(in crate::model) enum Replay<'a> {
    /// As the provider sent it.
    Unchanged(&'a RawValue),
    /// With the illegal places written anew.
    Patched(Piece<'a>),
}

impl<'a> Replay<'a> {
    /// `message` made legal; `calls` are the ones that tool messages answer. What is not from the
    /// server that it goes to, or was said in the other dialect, is written anew: servers refuse
    /// fields that they do not know.
    pub(in crate::model) fn new(
        message: &'a RawValue,
        calls: &'a [ToolCall],
        at_home: bool,
    ) -> Self {
        if !at_home || is_output(message) {
            Self::Patched(written(message, calls, at_home))
        } else if is_legal(message, calls) {
            Self::Unchanged(message)
        } else {
            Self::Patched(patch(message, calls))
        }
    }
}

impl Serialize for Replay<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unchanged(message) => message.serialize(serializer),
            Self::Patched(message) => message.serialize(serializer),
        }
    }
}

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    content: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    tool_calls: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallShape<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    function: FunctionShape<'a>,
}

#[derive(Deserialize)]
struct FunctionShape<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    arguments: Cow<'a, str>,
}

fn is_legal(message: &RawValue, calls: &[ToolCall]) -> bool {
    let Ok(shape) = serde_json::from_str::<Shape<'_>>(message.get()) else {
        return false;
    };
    let content_fits = match shape.content {
        Some(content) => is_content(content) || (is_null(content) && may_be_silent(&shape, calls)),
        None => may_be_silent(&shape, calls),
    };
    let calls_fit = match shape.tool_calls {
        Some(given) => !calls.is_empty() && are_legal_calls(given, calls),
        None => calls.is_empty(),
    };
    shape.role == "assistant" && content_fits && calls_fit
}

/// Content may be missing only beside tool calls or a refusal.
fn may_be_silent(shape: &Shape<'_>, calls: &[ToolCall]) -> bool {
    !calls.is_empty() || words(shape.refusal).is_some()
}

fn are_legal_calls(given: &RawValue, calls: &[ToolCall]) -> bool {
    let Ok(given) = serde_json::from_str::<Vec<CallShape<'_>>>(given.get()) else {
        return false;
    };
    given.len() == calls.len()
        && given.iter().zip(calls).all(|(given, call)| {
            given.id == call.call_id
                && given.kind == "function"
                && is_name(&given.function.name)
                && is_object(&given.function.arguments)
        })
}

fn is_content(json: &RawValue) -> bool {
    // A string that does not decode (half a surrogate pair) is refused by strict servers.
    match json.get().as_bytes() {
        [b'"', ..] => serde_json::from_str::<Cow<'_, str>>(json.get()).is_ok(),
        [b'[', ..] => !elements(json).is_empty(),
        _ => false,
    }
}

fn is_null(json: &RawValue) -> bool {
    json.get() == "null"
}

/// What an answer from elsewhere says and asks for, in our own words.
fn written<'a>(message: &'a RawValue, calls: &'a [ToolCall], at_home: bool) -> Piece<'a> {
    let said = Spoken::read(message).words();
    let text = |text: &'static str| Piece::Text(text.into());
    let mut fields = vec![("role".into(), text("assistant"))];
    if !said.is_empty() || calls.is_empty() {
        fields.push(("content".into(), Piece::Text(said.into())));
    }
    if !calls.is_empty() {
        let call = |call: &'a ToolCall| {
            let function = vec![
                ("name".into(), Piece::Text(legal_name(&call.name))),
                (
                    "arguments".into(),
                    Piece::Text(legal_arguments(&call.arguments).into()),
                ),
            ];
            Piece::Object(vec![
                ("id".into(), Piece::Text(call_id(&call.call_id, at_home))),
                ("type".into(), text("function")),
                ("function".into(), Piece::Object(function)),
            ])
        };
        let calls = calls.iter().map(call).collect();
        fields.push(("tool_calls".into(), Piece::List(calls)));
    }
    Piece::Object(fields)
}

/// `message` with its role, content and calls as they must be, all else as it is.
fn patch<'a>(message: &'a RawValue, calls: &'a [ToolCall]) -> Piece<'a> {
    let fields = Fields::read(message);
    let given = fields.find("tool_calls");
    let refused = words(fields.find("refusal")).is_some();
    let may_be_silent = !calls.is_empty() || refused;
    let content = match fields.find("content") {
        Some(json) if is_content(json) || (is_null(json) && may_be_silent) => {
            Some(Piece::Raw(json))
        }
        Some(_) | None if may_be_silent => None,
        Some(_) | None => Some(Piece::Text("".into())),
    };
    let role = Piece::Text("assistant".into());
    let calls = (!calls.is_empty()).then(|| patch_calls(given, calls));
    replaced(
        fields,
        [
            ("role", Some(role)),
            ("content", content),
            ("tool_calls", calls),
        ],
    )
}

fn patch_calls<'a>(given: Option<&'a RawValue>, calls: &'a [ToolCall]) -> Piece<'a> {
    let mut given = given.map(elements).unwrap_or_default();
    // What cannot be matched one to one is written from the calls alone.
    if given.len() != calls.len() {
        given.clear();
    }
    let mut given = given.into_iter();
    Piece::List(
        calls
            .iter()
            .map(|call| patch_call(given.next(), call))
            .collect(),
    )
}

fn patch_call<'a>(given: Option<&'a RawValue>, call: &'a ToolCall) -> Piece<'a> {
    let fields = given.map(Fields::read).unwrap_or_default();
    let function = patch_function(fields.find("function"), call);
    let id = Piece::Text(call.call_id.as_str().into());
    let kind = Piece::Text("function".into());
    replaced(
        fields,
        [
            ("id", Some(id)),
            ("type", Some(kind)),
            ("function", Some(function)),
            ("custom", None),
        ],
    )
}

fn patch_function<'a>(given: Option<&'a RawValue>, call: &'a ToolCall) -> Piece<'a> {
    let fields = given.map(Fields::read).unwrap_or_default();
    let arguments = legal_arguments(&call.arguments);
    let name = Piece::Text(legal_name(&call.name));
    let arguments = Piece::Text(arguments.into());
    replaced(
        fields,
        [("name", Some(name)), ("arguments", Some(arguments))],
    )
}

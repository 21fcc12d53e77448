//! How every message is read: strictly, with errors that name the field.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::object::object;
use super::rules;
use crate::escape::armour;
use crate::fault::{ErrorCode, Failure};

/// The JSON text of a body as it is stored (see [`crate::escape`]).
///
/// # Errors
/// It is not UTF-8.
pub(super) fn text(body: &[u8]) -> Result<Cow<'_, str>, Failure> {
    // A reader may ignore a byte order mark (RFC 8259, section 8.1).
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|error| {
        let text = format!("the body is not UTF-8: {error}; expected JSON in UTF-8");
        Failure::new(ErrorCode::InvalidJson, text)
    })?;
    Ok(armour(text))
}

/// The value in `text`, an object.
///
/// # Errors
/// Says which field is wrong by JSON pointer (RFC 6901), and what was expected.
pub(super) fn json<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let value = object(tracked).map_err(|error| failure_of(&error, &pointer_to(&track.path())))?;
    json.end().map_err(|error| {
        let text = format!("the body has more than one JSON value: {error}");
        Failure::new(ErrorCode::InvalidJson, text)
    })?;
    Ok(value)
}

fn failure_of(error: &serde_json::Error, pointer: &str) -> Failure {
    use serde_json::error::Category;
    match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => Failure::new(
            ErrorCode::InvalidJson,
            format!("the body is no JSON: {error}; expected one JSON object in UTF-8"),
        ),
        Category::Data => {
            let text = without_position(error);
            if let Some(field) = missing_field(&text) {
                return missing(pointer, field);
            }
            let place = if pointer.is_empty() {
                "the body"
            } else {
                pointer
            };
            Failure::new(
                ErrorCode::InvalidJob,
                format!("{place}: {}", without_position(error)),
            )
        }
    }
}

/// The error's text without serde's line and column: the pointer says more.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// The field of serde's "missing field `x`".
fn missing_field(text: &str) -> Option<&str> {
    text.strip_prefix("missing field `")?.strip_suffix('`')
}

fn pointer_to(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                write!(pointer, "/{index}").unwrap_or_default();
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

/// What a message is refused with that lacks a field of the object at `pointer`.
pub(super) fn missing(pointer: &str, field: &str) -> Failure {
    let text = format!("{pointer}/{field}: expected a value, the field is missing");
    Failure::new(ErrorCode::InvalidJob, text)
}

/// What the message in `text` is refused with: a version that is not ours explains all the rest.
pub(super) fn version_first(failure: Failure, text: &str) -> Failure {
    /// The version, which may be of any type.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Glimpse {
        version: Value,
    }
    let glimpse: Glimpse = serde_json::from_str(text).unwrap_or_default();
    match glimpse.version.as_u64() {
        Some(version) if version != 1 => rules::unsupported(version),
        Some(_) | None => failure,
    }
}

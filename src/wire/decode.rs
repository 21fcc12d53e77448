use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::object::object;
use super::{Job, OnBusy, rules};
use crate::escape::armour;
use crate::fault::{ErrorCode, Failure};
use crate::ids::{ConversationId, JobId, UserId};

/// A body that is no job: why, and what could be read of it nevertheless, for whoever is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which field is wrong, and what was expected.
    pub failure: Failure,
    /// The job's id, if one was given.
    pub job_id: Option<JobId>,
    /// The conversation's id, if one was given.
    pub conversation_id: Option<ConversationId>,
    /// The user, if one was named.
    pub user_id: Option<String>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            job_id: None,
            conversation_id: None,
            user_id: None,
        }
    }
}

/// The job in `body`, and its JSON text as it is stored (see [`crate::escape`]).
///
/// # Errors
/// Says which field is wrong by JSON pointer (RFC 6901), and what was expected.
pub fn decode(body: &[u8], max_bytes: usize) -> Result<(Job, String), Box<Refused>> {
    if body.len() > max_bytes {
        let size = body.len();
        let text = format!(
            "the message has {size} bytes; at most {max_bytes} are taken (CHAT_MAX_JOB_BYTES)"
        );
        return Err(Box::new(Failure::new(ErrorCode::JobTooLarge, text).into()));
    }
    // A reader may ignore a byte order mark (RFC 8259, section 8.1).
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|error| {
        let text = format!("the body is not UTF-8: {error}; expected JSON in UTF-8");
        Box::new(Refused::from(Failure::new(ErrorCode::InvalidJson, text)))
    })?;
    let text = armour(text);
    let job = read(&text).and_then(|job| rules::check(&job).map(|()| job));
    match job {
        Ok(job) => Ok((without_defaults(job), text.into_owned())),
        Err(failure) => Err(Box::new(refuse(failure, &text))),
    }
}

/// The job without what says no more than its absence: a repeat that says it is the same job.
fn without_defaults(mut job: Job) -> Job {
    job.version = None;
    job.stream = job.stream.filter(|stream| *stream);
    job.on_busy = job.on_busy.filter(|on_busy| *on_busy != OnBusy::Enqueue);
    job
}

fn read(text: &str) -> Result<Job, Failure> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let job = object(tracked).map_err(|error| failure_of(&error, &pointer_to(&track.path())))?;
    json.end().map_err(|error| {
        let text = format!("the body has more than one JSON value: {error}");
        Failure::new(ErrorCode::InvalidJson, text)
    })?;
    Ok(job)
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
                let text = format!("{pointer}/{field}: expected a value, the field is missing");
                return Failure::new(ErrorCode::InvalidJob, text);
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

/// What can be read of a body that is no job. A version that is not ours explains all the rest.
fn refuse(failure: Failure, text: &str) -> Refused {
    /// The fields that say whose message it is; each may be of any type.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Glimpse {
        version: Value,
        job_id: Value,
        conversation_id: Value,
        user_id: Value,
    }
    let glimpse: Glimpse = serde_json::from_str(text).unwrap_or_default();
    let failure = match glimpse.version.as_u64() {
        Some(version) if version != 1 => rules::unsupported(version),
        Some(_) | None => failure,
    };
    let user = glimpse.user_id.as_str().and_then(UserId::new);
    Refused {
        failure,
        job_id: serde_json::from_value(glimpse.job_id).ok(),
        conversation_id: serde_json::from_value(glimpse.conversation_id).ok(),
        user_id: user.map(|user| user.as_str().to_owned()),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;

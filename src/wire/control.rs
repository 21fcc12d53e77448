use serde::Deserialize;

use super::{read, rules};
use crate::fault::{ErrorCode, Failure};
use crate::ids::{JobId, UserId};

/// The longest text of a person's, in bytes as it is stored.
const MAX_TEXT_BYTES: usize = 1000;
/// The longest id of a call: some providers put signatures into theirs.
const MAX_CALL_ID_BYTES: usize = 16 * 1024;

/// What somebody wants of a job, version 1. Its texts are escaped as they are stored (see
/// [`crate::escape`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The job is called off.
    Cancel {
        /// The job.
        job_id: JobId,
        /// Why, in the words of who asks; at most 1000 bytes.
        reason: Option<String>,
        /// Whose job it must be.
        user_id: Option<String>,
    },
    /// A call that waits for a person may be made.
    Approve {
        /// The job.
        job_id: JobId,
        /// The call, by the model's id of it.
        call_id: String,
        /// Who says so; at most 1000 bytes.
        by: Option<String>,
        /// Why; at most 1000 bytes.
        reason: Option<String>,
    },
    /// A call that waits for a person may not be made.
    Deny {
        /// The job.
        job_id: JobId,
        /// The call, by the model's id of it.
        call_id: String,
        /// Who says so; at most 1000 bytes.
        by: Option<String>,
        /// Why; at most 1000 bytes.
        reason: Option<String>,
    },
}

/// The control message in `body`.
///
/// # Errors
/// Says which field is wrong by JSON pointer (RFC 6901), and what was expected.
pub fn decode_control(body: &[u8], max_bytes: usize) -> Result<Control, Failure> {
    if body.len() > max_bytes {
        let size = body.len();
        let text = format!("the message has {size} bytes; at most {max_bytes} are taken");
        return Err(Failure::new(ErrorCode::JobTooLarge, text));
    }
    let text = read::text(body)?;
    let read = read::json::<Fields>(&text).and_then(Fields::into_control);
    read.map_err(|failure| read::version_first(failure, &text))
}

/// The fields of all kinds of messages; which of them may or must be there follows from `type`.
/// Read by hand, since serde forgets in an enum with a tag which field was wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    version: Option<u64>,
    #[serde(deserialize_with = "crate::chat::word")]
    r#type: Kind,
    job_id: JobId,
    call_id: Option<String>,
    by: Option<String>,
    user_id: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Cancel,
    Approve,
    Deny,
}

impl Fields {
    fn into_control(self) -> Result<Control, Failure> {
        if let Some(version) = self.version.filter(|version| *version != 1) {
            return Err(rules::unsupported(version));
        }
        match self.r#type {
            Kind::Cancel => {
                absent("/call_id", "a cancel", self.call_id.as_ref())?;
                absent("/by", "a cancel", self.by.as_ref())?;
                Ok(Control::Cancel {
                    job_id: self.job_id,
                    reason: bounded("/reason", self.reason)?,
                    user_id: user(self.user_id)?,
                })
            }
            Kind::Approve => {
                absent("/user_id", "an approval", self.user_id.as_ref())?;
                Ok(Control::Approve {
                    job_id: self.job_id,
                    call_id: call(self.call_id)?,
                    by: bounded("/by", self.by)?,
                    reason: bounded("/reason", self.reason)?,
                })
            }
            Kind::Deny => {
                absent("/user_id", "a denial", self.user_id.as_ref())?;
                Ok(Control::Deny {
                    job_id: self.job_id,
                    call_id: call(self.call_id)?,
                    by: bounded("/by", self.by)?,
                    reason: bounded("/reason", self.reason)?,
                })
            }
        }
    }
}

fn absent(pointer: &str, of: &str, field: Option<&String>) -> Result<(), Failure> {
    match field {
        Some(_) => rules::refuse(pointer, &format!("expected no such field in {of}")),
        None => Ok(()),
    }
}

fn bounded(pointer: &str, text: Option<String>) -> Result<Option<String>, Failure> {
    if let Some(size) = text.as_ref().map(String::len)
        && size > MAX_TEXT_BYTES
    {
        let expected = format!("expected at most {MAX_TEXT_BYTES} bytes, got {size}");
        rules::refuse(pointer, &expected)?;
    }
    Ok(text)
}

fn call(id: Option<String>) -> Result<String, Failure> {
    let Some(id) = id else {
        return Err(read::missing("", "call_id"));
    };
    if id.is_empty() || id.len() > MAX_CALL_ID_BYTES {
        let expected = format!("expected the id of a call, 1 to {MAX_CALL_ID_BYTES} bytes");
        rules::refuse("/call_id", &expected)?;
    }
    Ok(id)
}

fn user(id: Option<String>) -> Result<Option<String>, Failure> {
    if id.as_deref().is_some_and(|id| UserId::new(id).is_none()) {
        rules::refuse("/user_id", rules::USER_ID)?;
    }
    Ok(id)
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;

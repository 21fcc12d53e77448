use serde::Deserialize;
use serde_json::Value;

use super::{Job, OnBusy, read, rules};
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
    let text = read::text(body).map_err(|failure| Box::new(Refused::from(failure)))?;
    let job = read::json(&text).and_then(|job| rules::check(&job).map(|()| job));
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

/// What can be read of a body that is no job.
fn refuse(failure: Failure, text: &str) -> Refused {
    /// The fields that say whose message it is; each may be of any type.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    #[expect(
        clippy::struct_field_names,
        reason = "they are the names in the message"
    )]
    struct Glimpse {
        job_id: Value,
        conversation_id: Value,
        user_id: Value,
    }
    let glimpse: Glimpse = serde_json::from_str(text).unwrap_or_default();
    let user = glimpse.user_id.as_str().and_then(UserId::new);
    Refused {
        failure: read::version_first(failure, text),
        job_id: serde_json::from_value(glimpse.job_id).ok(),
        conversation_id: serde_json::from_value(glimpse.conversation_id).ok(),
        user_id: user.map(|user| user.as_str().to_owned()),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;

//! The job that a dead letter becomes. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use globset::GlobSet;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::broker::{Address, Names, Outgoing};
use crate::escape::{disarm, disarm_text};
use crate::fault::ErrorCode;
use crate::ids::JobId;
use crate::store::BuriedLetter;
use crate::wire::{self, JOB_TYPE, Job};

/// What the workers take.
pub(super) struct Terms {
    /// The largest job message, in bytes.
    pub(super) max_job_bytes: usize,
    /// Which queues a `reply_to` may name.
    pub(super) reply_to_allow: GlobSet,
    /// Whether the AMQP user and the job's user must agree.
    pub(super) trust_amqp_user: bool,
}

/// The message that sends `letter` again, as a job with the id `id`.
///
/// # Errors
/// Says why it cannot be sent again.
pub(super) fn replay(
    letter: &BuriedLetter,
    id: JobId,
    terms: &Terms,
    names: &Names,
    now: DateTime<Utc>,
) -> Result<Outgoing, String> {
    let (job, text) = wire::decode(&letter.body, terms.max_job_bytes)
        .map_err(|refused| format!("it is no job: {}", refused.failure))?;
    let properties: Stored = serde_json::from_str(&letter.properties)
        .map_err(|error| format!("its stored properties are not readable: {error}"))?;
    check_user(letter, &job, &properties, terms)?;
    if let Some(deadline) = job.deadline.filter(|deadline| *deadline <= now) {
        return Err(format!(
            "/deadline: {deadline} has passed, it would fail again"
        ));
    }
    let of = letter.head.job_id.unwrap_or(letter.head.id);
    let body = renamed(&text, id, of).map_err(|error| format!("it is no job: {error}"))?;
    let body = disarm(&body).into_owned();
    wire::decode(body.as_bytes(), terms.max_job_bytes)
        .map_err(|refused| format!("with metadata.replay_of it is no job: {}", refused.failure))?;
    let to = Address::Queue(names.jobs.clone());
    let message = Outgoing::new(to, JOB_TYPE, Bytes::from(body)).with_message_id(id.to_string());
    Ok(with_properties(message, &properties, terms, now))
}

/// A replay is published by us: the broker no longer says who sent it. So a message that may not
/// speak for its user must not be sent again, however it came to be a dead letter.
fn check_user(
    letter: &BuriedLetter,
    job: &Job,
    properties: &Stored,
    terms: &Terms,
) -> Result<(), String> {
    let other = properties
        .user_id
        .as_ref()
        .is_some_and(|sender| disarm_text(sender) != job.user_id);
    if letter.head.error_code == ErrorCode::Unauthorized.as_str()
        || (other && terms.trust_amqp_user)
    {
        return Err("/user_id: it is not the AMQP user that published the message".to_owned());
    }
    Ok(())
}

/// The job with its new id, and the old one in its metadata; the rest is left as it was written, to
/// the last digit.
fn renamed(text: &str, id: JobId, of: Uuid) -> serde_json::Result<String> {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let mut fields: Fields = serde_json::from_str(text)?;
    let metadata = fields.get("metadata").map(|raw| raw.get());
    let metadata = metadata.map(serde_json::from_str::<Option<Fields>>);
    let mut metadata = metadata.transpose()?.flatten().unwrap_or_default();
    metadata.insert("replay_of".to_owned(), to_raw_value(&of)?);
    fields.insert("metadata".to_owned(), to_raw_value(&metadata)?);
    fields.insert("job_id".to_owned(), to_raw_value(&id)?);
    serde_json::to_string(&fields)
}

/// The stored properties that a replay keeps or looks at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Stored {
    reply_to: Option<String>,
    correlation_id: Option<String>,
    user_id: Option<String>,
    priority: Option<u8>,
    headers: Map<String, Value>,
}

fn with_properties(
    message: Outgoing,
    stored: &Stored,
    terms: &Terms,
    now: DateTime<Utc>,
) -> Outgoing {
    let text = |text: &Option<String>| text.as_deref().map(|text| disarm_text(text).into_owned());
    let mut message = message.with_correlation_id(text(&stored.correlation_id));
    let reply_to = text(&stored.reply_to);
    message.properties.reply_to = reply_to.filter(|name| terms.reply_to_allow.is_match(name));
    message.properties.priority = stored.priority;
    message.properties.timestamp = u64::try_from(now.timestamp()).ok();
    for name in ["traceparent", "tracestate"] {
        if let Some(trace) = stored.headers.get(name).and_then(Value::as_str) {
            message = message.with_header(name, trace);
        }
    }
    message
}

#[cfg(test)]
#[path = "new_job_tests.rs"]
mod tests;

//! The messages that a worker sends, built from what it knows. Pure.

use bytes::Bytes;

use crate::broker::{Address, Names, Outgoing, Properties};
use crate::escape::{disarm, disarm_text};
use crate::fault::Failure;
use crate::ids::{JobId, WorkerId};
use crate::store::{Next, StoredResult};
use crate::wire::{JobResult, RESULT_TYPE, WAKE_TYPE};

/// Whom a result is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The job's own result: a repeat has the same `message_id`.
    OfJob,
    /// The answer to one delivery that was not taken in.
    Refusal,
}

/// A result as a message, to be addressed.
pub(super) fn result(stored: &StoredResult, kind: Kind, to: Address) -> Outgoing {
    let result = &stored.result;
    let correlation = match &stored.correlation_id {
        Some(id) => disarm_text(id).into_owned(),
        None => result.job_id.to_string(),
    };
    let (message_id, status) = match kind {
        Kind::OfJob => (result.job_id.to_string(), result.status.as_str()),
        Kind::Refusal => (uuid::Uuid::now_v7().to_string(), "refused"),
    };
    let mut message = Outgoing::new(to, RESULT_TYPE, body(result))
        .with_message_id(message_id)
        .with_correlation_id(Some(correlation))
        .with_header("x-chat-status", status);
    if let Some(traceparent) = &stored.traceparent {
        message = message.with_header("traceparent", traceparent);
    }
    message
}

fn body(result: &JobResult) -> Bytes {
    // A result holds texts and numbers only, which always are JSON.
    let json = serde_json::to_string(result).unwrap_or_default();
    match disarm(&json) {
        std::borrow::Cow::Borrowed(_) => Bytes::from(json),
        std::borrow::Cow::Owned(json) => Bytes::from(json),
    }
}

/// A wake-up for a job that is marked queued.
pub(super) fn wake_up(names: &Names, next: Next) -> Outgoing {
    let to = Address::Queue(names.jobs.clone());
    let mut message =
        Outgoing::new(to, WAKE_TYPE, Bytes::new()).with_message_id(next.job_id.to_string());
    message.properties.content_type = None;
    message.properties.priority = next.priority;
    message
}

/// A message that failed for good, as it was when it came.
#[derive(Clone, Debug)]
pub(super) struct Original {
    pub(super) body: Bytes,
    pub(super) properties: Properties,
}

/// The copy of a dead letter for the broker's queue.
pub(super) fn dead_letter(
    names: &Names,
    original: &Original,
    failure: &Failure,
    attempts: u32,
    worker: WorkerId,
) -> Outgoing {
    let to = Address::Queue(names.jobs_dead.clone());
    Outgoing::copy(to, &original.properties, original.body.clone())
        .with_header("x-chat-error-code", failure.code.as_str())
        .with_header("x-chat-error-message", &failure.message)
        .with_header("x-chat-attempts", &attempts.to_string())
        .with_header("x-chat-worker", &worker.to_string())
}

/// What is known of the original of a job that a wake-up brought.
pub(super) fn known_original(job: JobId, request: &str, stored: &StoredResult) -> Original {
    let text = |text: &Option<String>| text.as_ref().map(|text| disarm_text(text).into_owned());
    Original {
        body: Bytes::from(disarm(request).into_owned()),
        properties: Properties {
            message_id: Some(job.to_string()),
            kind: Some(crate::wire::JOB_TYPE.to_owned()),
            content_type: Some("application/json".to_owned()),
            reply_to: text(&stored.reply_to),
            correlation_id: text(&stored.correlation_id),
            ..Properties::default()
        },
    }
}

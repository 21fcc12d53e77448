use chrono::{DateTime, Utc};

use super::Worker;
use super::outgoing::Original;
use super::refusal::not_here;
use crate::broker::Properties;
use crate::fault::{ErrorCode, Failure};
use crate::ids::JobId;
use crate::wire::{self, JOB_TYPE, Job, Refused, WAKE_TYPE};

/// What a delivery is.
pub(super) enum Letter {
    Job(Box<Job>, String),
    Wake(JobId),
    Refused(Box<Refused>),
}

impl Worker {
    /// What the message says, checked as far as that needs no database.
    pub(super) fn read(&self, original: &Original) -> Letter {
        let properties = &original.properties;
        let invalid = |text: String| {
            Letter::Refused(Box::new(Failure::new(ErrorCode::InvalidJob, text).into()))
        };
        match properties.kind.as_deref() {
            Some(WAKE_TYPE) => {
                return match properties.message_id.as_deref().map(uuid::Uuid::parse_str) {
                    Some(Ok(job)) => Letter::Wake(JobId(job)),
                    Some(Err(_)) | None => {
                        invalid("property message_id: expected the id of a job".to_owned())
                    }
                };
            }
            None | Some("" | JOB_TYPE) => {}
            Some(other) => {
                return invalid(format!(
                    "property type: expected {JOB_TYPE} or none, got {other:?}"
                ));
            }
        }
        if let Some(encoding) = properties.content_encoding.as_deref()
            && !matches!(
                encoding.to_ascii_lowercase().as_str(),
                "" | "utf-8" | "utf8" | "identity"
            )
        {
            return invalid(format!(
                "property content_encoding: expected utf-8 or none, got {encoding:?}"
            ));
        }
        match wire::decode(&original.body, self.0.config.jobs.max_job_bytes) {
            Err(refused) => Letter::Refused(refused),
            Ok((job, text)) => match self.check(&job, properties) {
                Ok(()) => Letter::Job(Box::new(job), text),
                Err(failure) => Letter::Refused(Box::new(not_here(&job, failure))),
            },
        }
    }

    /// Whether the job may run here, and its sender may speak for its user.
    fn check(&self, job: &Job, properties: &Properties) -> Result<(), Failure> {
        let sender = properties
            .user_id
            .as_deref()
            .filter(|_| self.0.config.jobs.trust_amqp_user);
        if sender.is_some_and(|sender| sender != job.user_id) {
            let text = "/user_id: it is not the AMQP user that published the message";
            return Err(Failure::new(ErrorCode::Unauthorized, text));
        }
        self.check_here(job)
    }

    /// Whether a job that came by way of the database is one, and may run here.
    pub(super) fn check_stored(&self, job: &Job) -> Result<(), Failure> {
        wire::check(job)?;
        self.check_here(job)
    }

    fn check_here(&self, job: &Job) -> Result<(), Failure> {
        if let Some(model) = job
            .model
            .as_deref()
            .filter(|model| !self.model().allows(model))
        {
            let text = format!(
                "/model: {model:?} is not allowed here; allowed: {}",
                self.model().allowed_models.join(", ")
            );
            return Err(Failure::new(ErrorCode::UnknownModel, text));
        }
        let named = job
            .tools
            .as_ref()
            .and_then(|tools| tools.servers.as_deref())
            .unwrap_or_default();
        for (at, name) in named.iter().enumerate() {
            if !self.0.servers.contains(name) {
                let text = format!(
                    "/tools/servers/{at}: there is no tool server {name:?}; configured: {}",
                    if self.0.servers.is_empty() {
                        "none".to_owned()
                    } else {
                        self.0.servers.join(", ")
                    }
                );
                return Err(Failure::new(ErrorCode::UnknownToolServer, text));
            }
        }
        Ok(())
    }
}

/// The message's `traceparent`; where it has none the job starts a trace, whose id is the job's.
pub(super) fn traceparent_of(properties: &Properties, id: JobId) -> String {
    match properties.traceparent().filter(|text| is_traceparent(text)) {
        Some(text) => text.to_owned(),
        None => format!("00-{}-{:016x}-01", id.0.simple(), fastrand::u64(1..)),
    }
}

/// A `traceparent` of W3C Trace Context, version 00.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length| {
        part.len() == length
            && part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<_> = text.split('-').collect();
    matches!(parts.as_slice(), ["00", trace, parent, flags] if hex(trace, 32) && hex(parent, 16) && hex(flags, 2))
}

/// The message's timestamp; what lies beyond the year 9999 was no number of seconds.
pub(super) fn sent_at(seconds: u64) -> Option<DateTime<Utc>> {
    const YEAR_10000: i64 = 253_402_300_800;
    let seconds = i64::try_from(seconds)
        .ok()
        .filter(|seconds| (1..YEAR_10000).contains(seconds))?;
    DateTime::from_timestamp(seconds, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_of_the_standard_is_kept() {
        assert!(is_traceparent(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ));
        for bad in [
            "",
            "00-1-2-3",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn a_timestamp_in_milliseconds_is_no_year_beyond_9999() {
        assert_eq!(sent_at(1_700_000_000).unwrap().timestamp(), 1_700_000_000);
        assert_eq!(sent_at(1_700_000_000_000), None);
        assert_eq!(sent_at(0), None);
        assert_eq!(sent_at(u64::MAX), None);
    }
}

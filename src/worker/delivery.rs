use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};

use super::Worker;
use super::in_hand::Held;
use super::outgoing::{self, Original};
use super::refusal::not_here;
use crate::broker::{Delivery, Properties};
use crate::escape::armour_text;
use crate::fault::{ErrorCode, Failure};
use crate::ids::{ConversationId, JobId, UserId};
use crate::runner::{Ended, JobInHand, Ran, exhausted, insisting};
use crate::store::{Claimant, Claimed, ClaimedJob, NewJob, Next, StoreError, Wants, parse_request};
use crate::wire::{self, JOB_TYPE, Job, Refused, WAKE_TYPE};

/// How long a delivery that the database refuses is kept before the broker gets it back.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// What a delivery is.
enum Letter {
    Job(Box<Job>, String),
    Wake(JobId),
    Refused(Box<Refused>),
}

impl Worker {
    /// One delivery, from its claim to its result; or to its wake-up, if it is to be handed over.
    pub(super) async fn handle(self, mut delivery: Delivery, wants: Wants) {
        let original = Original {
            body: Bytes::from(std::mem::take(&mut delivery.body)),
            properties: std::mem::take(&mut delivery.properties),
        };
        let letter = self.read(&original);
        let taken = match &letter {
            Letter::Wake(job) => self.claim_known(*job, wants).await,
            Letter::Refused(refused) => self.refused(&original, refused).await,
            Letter::Job(job, text) => self.claim(&original, job, text, wants).await,
        };
        let taken = match taken {
            Ok(taken) => {
                delivery.ack();
                taken
            }
            Err(error) => {
                // Nothing was stored, so the broker keeps it; not at once, or it would spin.
                tracing::error!(%error, "a delivery could not be stored; it goes back to the broker");
                tokio::time::sleep(PAUSE).await;
                return delivery.requeue();
            }
        };
        match (taken, letter) {
            (Taken::Run(claimed, held), Letter::Job(job, text)) => {
                // Stored by now; a job may be in hand for an hour.
                drop(text);
                self.run(*claimed, Some((*job, original)), held).await;
            }
            (Taken::Run(claimed, held), Letter::Wake(_) | Letter::Refused(_)) => {
                self.run(*claimed, None, held).await;
            }
            (Taken::GiveUp(claimed, held), _) => self.give_up(*claimed, held).await,
            (Taken::Finished(stored), _) => self.publish_result(&stored).await,
            (Taken::Queued(next), _) => {
                self.insist(outgoing::wake_up(self.0.broker.names(), next))
                    .await;
            }
            (Taken::Settled, _) => {}
        }
    }

    /// What the message says, checked as far as that needs no database.
    fn read(&self, original: &Original) -> Letter {
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

    /// Whether the job may run here.
    fn check(&self, job: &Job, properties: &Properties) -> Result<(), Failure> {
        let sender = properties
            .user_id
            .as_deref()
            .filter(|_| self.0.config.jobs.trust_amqp_user);
        if sender.is_some_and(|sender| sender != job.user_id) {
            let text = "/user_id: it is not the AMQP user that published the message";
            return Err(Failure::new(ErrorCode::Unauthorized, text));
        }
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

    /// Boxed: refusals are rare, and need no room in the future of every job.
    fn refused<'a>(
        &'a self,
        original: &'a Original,
        refused: &'a Refused,
    ) -> BoxFuture<'a, Result<Taken, StoreError>> {
        let message_id = original.properties.message_id.as_deref();
        let job_id = refused
            .job_id
            .unwrap_or_else(|| wire::job_id_of(None, message_id));
        Box::pin(async move {
            self.refuse(original, refused, job_id).await?;
            Ok(Taken::Settled)
        })
    }

    async fn claim(
        &self,
        original: &Original,
        job: &Job,
        text: &str,
        wants: Wants,
    ) -> Result<Taken, StoreError> {
        let properties = &original.properties;
        let id = wire::job_id_of(Some(job), properties.message_id.as_deref());
        let hash = content_hash(job);
        let metadata = job
            .metadata
            .as_ref()
            .and_then(|metadata| serde_json::to_string(metadata).ok());
        let traceparent = traceparent_of(properties, id);
        let reply_to = properties.reply_to.as_deref().map(armour_text);
        let correlation_id = properties.correlation_id.as_deref().map(armour_text);
        let new = NewJob {
            id,
            conversation_id: job.conversation_id.unwrap_or(ConversationId(id.0)),
            user_id: &job.user_id,
            request: text,
            request_hash: &hash,
            model: job.model.as_deref().unwrap_or(&self.model().default_model),
            metadata: metadata.as_deref(),
            deadline: job.deadline,
            reply_to: reply_to.as_deref(),
            correlation_id: correlation_id.as_deref(),
            priority: properties.priority.map(i16::from),
            traceparent: Some(&traceparent),
            tracestate: properties.tracestate().filter(|text| !text.contains('\0')),
            enqueued_at: properties.timestamp.and_then(sent_at),
        };
        let _turn = self.0.in_hand.turn(id).await;
        let claimant = self.claimant(id, wants);
        let claimed = insisting!("claim", self.0.store.claim(&new, claimant))?;
        let refusal = match &claimed {
            Claimed::Conflict => (
                ErrorCode::JobIdConflict,
                "this job_id was used before with other content",
            ),
            Claimed::Forbidden => (
                ErrorCode::ConversationForbidden,
                "the conversation belongs to another user",
            ),
            Claimed::Run(_)
            | Claimed::GiveUp(_)
            | Claimed::Parked
            | Claimed::Queued(_)
            | Claimed::Finished(_)
            | Claimed::InHand => {
                return Ok(self.taken(claimed));
            }
        };
        let mut refused = not_here(job, Failure::new(refusal.0, refusal.1));
        refused.job_id = Some(id);
        self.refused(original, &refused).await
    }

    fn claimant(&self, job: JobId, wants: Wants) -> Claimant {
        Claimant {
            worker: self.0.id,
            in_hand: self.0.in_hand.has(job),
            wants,
            max_attempts: self.0.config.jobs.max_attempts,
        }
    }

    async fn claim_known(&self, job: JobId, wants: Wants) -> Result<Taken, StoreError> {
        let _turn = self.0.in_hand.turn(job).await;
        let claimant = self.claimant(job, wants);
        let claimed = insisting!("claim", self.0.store.claim_known(job, claimant))?;
        // A wake-up is never answered.
        Ok(match claimed {
            None | Some(Claimed::Finished(_)) => Taken::Settled,
            Some(claimed) => self.taken(claimed),
        })
    }

    fn taken(&self, claimed: Claimed) -> Taken {
        let hold = |claimed: &ClaimedJob| self.0.in_hand.hold(claimed.run.job_id);
        match claimed {
            Claimed::Run(job) => {
                let guard = hold(&job);
                Taken::Run(job, guard)
            }
            Claimed::GiveUp(job) => {
                let guard = hold(&job);
                Taken::GiveUp(job, guard)
            }
            Claimed::Finished(stored) => Taken::Finished(stored),
            Claimed::Queued(next) => Taken::Queued(next),
            Claimed::Parked | Claimed::InHand | Claimed::Conflict | Claimed::Forbidden => {
                Taken::Settled
            }
        }
    }

    async fn run(&self, claimed: ClaimedJob, brought: Option<(Job, Original)>, held: Held) {
        let (job, original) = match brought {
            Some((job, original)) => (Some(job), Some(original)),
            None => (None, None),
        };
        let request = claimed.request.clone();
        let Some(job) = self.in_hand(claimed, job) else {
            return;
        };
        let (job_id, span) = (job.claimed.run.job_id, job_span(&job));
        let running = tracing::Instrument::instrument(Box::pin(self.0.runner.run(job)), span);
        self.settle(job_id, running.await, original, request, held)
            .await;
    }

    async fn give_up(&self, claimed: ClaimedJob, held: Held) {
        let (job_id, request) = (claimed.run.job_id, claimed.request.clone());
        let Some(job) = self.in_hand(claimed, None) else {
            return;
        };
        let failure = exhausted(self.0.config.jobs.max_attempts);
        let ran = self.0.runner.fail(job, failure).await;
        self.settle(job_id, ran, None, request, held).await;
    }

    /// The claimed job, read; from its row where the delivery did not bring it.
    fn in_hand(&self, claimed: ClaimedJob, job: Option<Job>) -> Option<JobInHand> {
        let job_id = claimed.run.job_id;
        let stored = || {
            let request = claimed.request.as_deref().unwrap_or_default();
            parse_request(request, job_id)
                .map_err(|error| tracing::error!(%error, "a stored job cannot be read"))
        };
        let job = match job {
            Some(job) => job,
            None => stored().ok()?,
        };
        let user = UserId::new(&job.user_id)?;
        let model = job
            .model
            .clone()
            .unwrap_or_else(|| self.model().default_model.clone());
        Some(JobInHand {
            claimed,
            user,
            model: Arc::from(model),
            job,
        })
    }

    /// What follows the end of a run: its result, the next turn's wake-up, its dead letter.
    async fn settle(
        &self,
        job_id: JobId,
        ran: Result<Ran, StoreError>,
        original: Option<Original>,
        request: Option<String>,
        held: Held,
    ) {
        drop(held);
        let ended = match ran {
            Ok(Ran::Ended(ended)) => *ended,
            Ok(Ran::Fenced) => {
                return tracing::info!(job.id = %job_id, "another worker has this job now");
            }
            Err(error) => return tracing::error!(job.id = %job_id, %error, "a run broke off"),
        };
        let Ended {
            result: stored,
            next,
        } = ended;
        if let Some(next) = next {
            self.insist(outgoing::wake_up(self.0.broker.names(), next))
                .await;
        }
        if let Some(error) = &stored.result.error {
            let failure = Failure::new(error.code, error.message.clone());
            tracing::info!(job.id = %job_id, error.code = %failure.code, "a job failed");
            let original = original.unwrap_or_else(|| {
                outgoing::known_original(job_id, request.as_deref().unwrap_or_default(), &stored)
            });
            let attempts = stored.result.attempt;
            let copy = outgoing::dead_letter(
                self.0.broker.names(),
                &original,
                &failure,
                attempts,
                self.0.id,
            );
            self.insist(copy).await;
        }
        self.publish_result(&stored).await;
    }
}

/// A delivery whose fate is stored, so that the broker may forget it.
enum Taken {
    Run(Box<ClaimedJob>, Held),
    GiveUp(Box<ClaimedJob>, Held),
    Finished(Box<crate::store::StoredResult>),
    Queued(Next),
    Settled,
}

fn job_span(job: &JobInHand) -> tracing::Span {
    let run = &job.claimed.run;
    tracing::info_span!("job.run", job.id = %run.job_id, job.attempt = run.attempt, conversation.id = %run.conversation_id)
}

/// The hash by which a repeat is told from other content: that of the fields, however they were
/// written.
fn content_hash(job: &Job) -> [u8; 32] {
    let json = serde_json::to_vec(job).unwrap_or_default();
    Sha256::digest(json).into()
}

/// The message's `traceparent`; where it has none the job starts a trace, whose id is the job's.
fn traceparent_of(properties: &Properties, id: JobId) -> String {
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
fn sent_at(seconds: u64) -> Option<DateTime<Utc>> {
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
    fn the_hash_is_that_of_the_fields_however_they_are_written() {
        let hash = |body: &str| content_hash(&wire::decode(body.as_bytes(), 1 << 20).unwrap().0);
        let one = hash(
            r#"{"user_id":"u","messages":[{"role":"user","content":"x"}],"metadata":{"b":1,"a":2}}"#,
        );
        let same = hash(
            r#"{ "metadata": {"a":2, "b":1}, "messages":[{"content":"x","role":"user"}], "user_id":"u"}"#,
        );
        let other = hash(
            r#"{"user_id":"u","messages":[{"role":"user","content":"y"}],"metadata":{"b":1,"a":2}}"#,
        );
        assert_eq!(one, same);
        assert_ne!(one, other);
    }

    #[test]
    fn a_timestamp_in_milliseconds_is_no_year_beyond_9999() {
        assert_eq!(sent_at(1_700_000_000).unwrap().timestamp(), 1_700_000_000);
        assert_eq!(sent_at(1_700_000_000_000), None);
        assert_eq!(sent_at(0), None);
        assert_eq!(sent_at(u64::MAX), None);
    }
}

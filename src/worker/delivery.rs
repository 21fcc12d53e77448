use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::Worker;
use super::counting;
use super::in_hand::Held;
use super::outgoing::Original;
use super::reading::{Letter, sent_at, traceparent_of};
use super::refusal::not_here;
use crate::broker::Delivery;
use crate::escape::armour_text;
use crate::fault::{ErrorCode, Failure};
use crate::ids::{ConversationId, JobId};
use crate::runner::insisting;
use crate::store::{Claimant, Claimed, ClaimedJob, Closed, NewJob, Next, StoreError, Wants};
use crate::wire::{self, Job, Refused};

/// How long a delivery that the database refuses is kept before the broker gets it back.
pub(super) const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

impl Worker {
    /// One delivery, from its claim to its result; or to its wake-up, if it is to be handed over.
    pub(super) async fn handle(self, mut delivery: Delivery, wants: Wants) {
        let original = Original {
            body: Bytes::from(std::mem::take(&mut delivery.body)),
            properties: std::mem::take(&mut delivery.properties),
        };
        let letter = self.read(&original);
        // Each stage is boxed: what a claim or a publish needs is freed while the job runs.
        let taken = match &letter {
            Letter::Wake(job) => Box::pin(self.claim_known(*job, wants)).await,
            Letter::Refused(refused) => self.refused(&original, refused).await,
            Letter::Job(job, text) => Box::pin(self.claim(&original, job, text, wants)).await,
        };
        let taken = match taken {
            Ok(taken) => {
                delivery.ack();
                taken
            }
            // What the database cannot hold it cannot hold tomorrow either: no job.
            Err(error) => match self.unstorable(&original, &letter, &error).await {
                Ok(taken) => {
                    delivery.ack();
                    taken
                }
                Err(error) => {
                    tracing::error!(%error, "a delivery could not be stored; it goes back to the broker");
                    tokio::time::sleep(PAUSE).await;
                    return delivery.requeue();
                }
            },
        };
        let brought = match letter {
            // Its text is stored by now; a job may be in hand for an hour.
            Letter::Job(job, _text) => Some((*job, original)),
            Letter::Wake(_) | Letter::Refused(_) => None,
        };
        Box::pin(self.follow(taken, brought)).await;
    }

    async fn unstorable(
        &self,
        original: &Original,
        letter: &Letter,
        error: &StoreError,
    ) -> Result<Taken, StoreError> {
        let failure = Failure::new(
            ErrorCode::InvalidJob,
            format!("it cannot be stored: {error}"),
        );
        let refused = match letter {
            Letter::Job(job, _) => not_here(job, failure),
            Letter::Wake(_) | Letter::Refused(_) => failure.into(),
        };
        self.refused(original, &refused).await
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
        let hash = job.content_hash();
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
            not_before: job.not_before,
            on_busy: job.on_busy.unwrap_or_default(),
            reply_to: reply_to.as_deref(),
            correlation_id: correlation_id.as_deref(),
            priority: properties.priority.map(i16::from),
            traceparent: Some(&traceparent),
            tracestate: properties.tracestate().filter(|text| !text.contains('\0')),
            enqueued_at: properties.timestamp.and_then(sent_at),
        };
        let turn = self.0.in_hand.turn(id).await;
        let gaps = self.0.pulse.gaps();
        let claimant = self.claimant(id, wants);
        let claimed = insisting!("claim", self.0.store, self.0.store.claim(&new, claimant))?;
        let refusal = match &claimed {
            Claimed::Conflict => (
                ErrorCode::JobIdConflict,
                "this job_id was used before with other content",
            ),
            Claimed::Forbidden => (
                ErrorCode::ConversationForbidden,
                "the conversation belongs to another user",
            ),
            Claimed::Busy => (
                ErrorCode::ConversationBusy,
                "the conversation has an unfinished job, and this one has on_busy=reject",
            ),
            Claimed::Run(_)
            | Claimed::Closed(_)
            | Claimed::Parked(_)
            | Claimed::Queued(_)
            | Claimed::Finished(_)
            | Claimed::InHand => {
                return Ok(self.taken(claimed, gaps));
            }
        };
        drop(turn);
        let mut refused = not_here(job, Failure::new(refusal.0, refusal.1));
        refused.job_id = Some(id);
        self.refused(original, &refused).await
    }

    fn claimant(&self, job: JobId, wants: Wants) -> Claimant<'_> {
        Claimant {
            worker: self.0.id,
            in_hand: self.0.in_hand.has(job),
            may_judge: self.0.judgement.may_judge(),
            takes_suspects: !self.0.in_hand.has_suspect(),
            default_model: &self.model().default_model,
            wants,
            max_attempts: self.0.config.jobs.max_attempts,
        }
    }

    /// Claims a job that is known by its id alone, and does what follows.
    pub(super) async fn handle_known(&self, job: JobId, wants: Wants) {
        match Box::pin(self.claim_known(job, wants)).await {
            Ok(taken) => self.follow(taken, None).await,
            Err(error) => tracing::error!(job.id = %job, %error, "a job could not be claimed"),
        }
    }

    async fn claim_known(&self, job: JobId, wants: Wants) -> Result<Taken, StoreError> {
        let _turn = self.0.in_hand.turn(job).await;
        let gaps = self.0.pulse.gaps();
        let claimant = self.claimant(job, wants);
        let claimed = insisting!(
            "claim",
            self.0.store,
            self.0.store.claim_known(job, claimant)
        )?;
        // A wake-up is never answered.
        Ok(match claimed {
            None | Some(Claimed::Finished(_)) => Taken::Settled,
            Some(claimed) => self.taken(claimed, gaps),
        })
    }

    fn taken(&self, claimed: Claimed, gaps: u64) -> Taken {
        match claimed {
            Claimed::Run(job) => {
                counting::claimed(&job);
                let held = self.0.in_hand.hold(job.run.job_id, gaps, job.is_suspect);
                Taken::Run(job, held)
            }
            Claimed::Closed(closed) => Taken::Closed(closed),
            Claimed::Finished(stored) => Taken::Finished(stored),
            Claimed::Queued(next) => Taken::Queued(next),
            Claimed::Parked(parked) => {
                self.parked(*parked);
                Taken::Settled
            }
            Claimed::InHand | Claimed::Conflict | Claimed::Forbidden | Claimed::Busy => {
                Taken::Settled
            }
        }
    }

    /// Does what follows a delivery whose fate is stored. `brought` is the job, if the delivery did.
    async fn follow(&self, taken: Taken, brought: Option<(Job, Original)>) {
        match taken {
            Taken::Run(claimed, held) => Box::pin(self.run(*claimed, brought, held)).await,
            Taken::Closed(closed) => Box::pin(self.closed(*closed, None)).await,
            Taken::Finished(stored) => Box::pin(self.publish_result(&stored)).await,
            Taken::Queued(next) => self.wake(next),
            Taken::Settled => {}
        }
    }
}

/// A delivery whose fate is stored, so that the broker may forget it.
pub(super) enum Taken {
    Run(Box<ClaimedJob>, Held),
    Closed(Box<Closed>),
    Finished(Box<crate::store::StoredResult>),
    Queued(Next),
    Settled,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::{JobInHand, Runner};

    fn size_of_future<A, B, C, F>(_of: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// A thousand jobs may be in hand, each for an hour.
    #[test]
    fn a_job_in_hand_is_small() {
        assert!(size_of_future(Worker::handle) < 2_048);
        let run = |worker: &'static Worker, (claimed, job), held| worker.run(claimed, job, held);
        assert!(size_of_future(run) < 1_536);
        let run_once = |worker: &'static Worker, (claimed, job), held: &'static Held| {
            worker.run_once(claimed, job, held)
        };
        assert!(size_of_future(run_once) < 3_072);
        let steps = |runner: &'static Runner, job: JobInHand, ()| runner.run(job);
        assert!(size_of_future(steps) < 4_096);
    }
}

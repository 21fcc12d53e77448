use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::Worker;
use super::delivery::Taken;
use super::in_hand::Held;
use super::outgoing::{self, Original};
use crate::fault::{ErrorCode, Failure};
use crate::ids::{JobId, UserId};
use crate::runner::{Ended, JobInHand, Ran, exhausted};
use crate::store::{ClaimedJob, Wants, parse_request};
use crate::wire::Job;

/// What became of a run.
#[derive(PartialEq, Eq)]
pub(super) enum Run {
    /// The job has ended, or somebody else has it.
    Settled,
    /// The job is still with this worker, and unfinished.
    BrokeOff,
}

impl Worker {
    /// Runs a claimed job to its end and publishes what follows. A run that breaks off is a defect,
    /// and would break off again: the job is claimed once more, and ends as that.
    pub(super) async fn run(
        &self,
        claimed: ClaimedJob,
        brought: Option<(Job, Original)>,
        held: Held,
    ) {
        let job_id = claimed.run.job_id;
        let run = Box::pin(self.run_once(claimed, brought, held));
        if run.await == Run::Settled {
            return;
        }
        match Box::pin(self.claim_known(job_id, Wants::ToRun)).await {
            Ok(Taken::Run(claimed, held) | Taken::GiveUp(claimed, held)) => {
                let trace = claimed
                    .traceparent
                    .as_deref()
                    .and_then(|text| text.get(3..35));
                let text = format!(
                    "the worker could not go on; its log has more under trace {}",
                    trace.unwrap_or("(none)")
                );
                let failure = Failure::new(ErrorCode::Internal, text);
                Box::pin(self.end(*claimed, held, failure)).await;
            }
            Ok(Taken::Finished(_) | Taken::Queued(_) | Taken::Settled) => {}
            Err(error) => {
                tracing::error!(job.id = %job_id, %error, "a job that broke off cannot be claimed again");
            }
        }
    }

    pub(super) async fn run_once(
        &self,
        claimed: ClaimedJob,
        brought: Option<(Job, Original)>,
        held: Held,
    ) -> Run {
        let (job, original) = match brought {
            Some((job, original)) => (Some(job), Some(original)),
            None => (None, None),
        };
        let request = claimed.request.clone();
        let Some(job) = self.in_hand(claimed, job) else {
            return Run::BrokeOff;
        };
        let (job_id, span) = (job.claimed.run.job_id, job_span(&job));
        let running = tracing::Instrument::instrument(Box::pin(self.0.runner.run(job)), span);
        let ran = AssertUnwindSafe(running).catch_unwind().await;
        drop(held);
        match ran {
            Ok(Ok(ran)) => {
                Box::pin(self.settle(job_id, ran, original, request)).await;
                return Run::Settled;
            }
            Ok(Err(error)) => tracing::error!(job.id = %job_id, %error, "a run broke off"),
            Err(_panic) => tracing::error!(job.id = %job_id, "a run panicked"),
        }
        Run::BrokeOff
    }

    /// Ends a job that failed too often.
    pub(super) async fn give_up(&self, claimed: ClaimedJob, held: Held) {
        let failure = exhausted(self.0.config.jobs.max_attempts);
        self.end(claimed, held, failure).await;
    }

    /// Ends a claimed job without running it.
    async fn end(&self, claimed: ClaimedJob, held: Held, failure: Failure) {
        let (job_id, request) = (claimed.run.job_id, claimed.request.clone());
        let Some(job) = self.in_hand(claimed, None) else {
            return;
        };
        let ran = Box::pin(self.0.runner.fail(job, failure)).await;
        drop(held);
        match ran {
            Ok(ran) => Box::pin(self.settle(job_id, ran, None, request)).await,
            Err(error) => tracing::error!(job.id = %job_id, %error, "a job cannot be ended"),
        }
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
        ran: Ran,
        original: Option<Original>,
        request: Option<String>,
    ) {
        let ended = match ran {
            Ran::Ended(ended) => *ended,
            Ran::Fenced => {
                return tracing::info!(job.id = %job_id, "another worker has this job now");
            }
        };
        let Ended {
            result: stored,
            next,
        } = ended;
        if let Some(next) = next {
            self.errand(outgoing::wake_up(self.0.broker.names(), next));
        }
        if let Some(error) = &stored.result.error {
            let failure = Failure::new(error.code, error.message.clone());
            tracing::info!(job.id = %job_id, error.code = %failure.code, "a job failed");
            let original = original.unwrap_or_else(|| {
                outgoing::known_original(job_id, request.as_deref().unwrap_or_default(), &stored)
            });
            let (names, attempts) = (self.0.broker.names(), stored.result.attempt);
            self.errand(outgoing::dead_letter(
                names, &original, &failure, attempts, self.0.id,
            ));
        }
        self.publish_result(&stored).await;
    }
}

fn job_span(job: &JobInHand) -> tracing::Span {
    let run = &job.claimed.run;
    tracing::info_span!("job.run", job.id = %run.job_id, job.attempt = run.attempt, conversation.id = %run.conversation_id)
}

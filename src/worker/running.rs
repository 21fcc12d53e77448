use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::Worker;
use super::counting;
use super::in_hand::Held;
use super::outgoing::{self, Original};
use crate::crash::Act;
use crate::fault::{ErrorCode, Failure, Fault};
use crate::ids::UserId;
use crate::meter::{self, Attempt};
use crate::runner::{
    Ended, JobEvents, JobInHand, Ran, Settlement, Whose, insisting, settle, tried_again,
};
use crate::store::{ClaimedJob, Closed, Next, StoreError, StoredResult, Written, parse_request};
use crate::wire::{Happening, Job};

/// What became of a run.
pub(super) enum Run {
    /// The job has ended, waits, or is somebody else's.
    Settled,
    /// The job is still with this worker, and unfinished. Its events, if it could be read.
    BrokeOff(Option<JobEvents>),
}

impl Worker {
    /// Runs a claimed job and publishes what follows. A run that breaks off is a defect; it may have
    /// been of the moment, so that the job is tried again like one whose worker died.
    pub(super) async fn run(
        &self,
        claimed: ClaimedJob,
        brought: Option<(Job, Original)>,
        held: Held,
    ) {
        let run = claimed.run;
        let traceparent = claimed.traceparent.clone();
        let running = Box::pin(self.run_once(claimed, brought, &held));
        if let Run::BrokeOff(events) = running.await {
            let ended = Box::pin(self.broke_off(run, traceparent, events)).await;
            if let Err(error) = ended {
                tracing::error!(job.id = %run.job_id, %error, "a job that broke off cannot be settled");
            }
        }
        drop(held);
    }

    pub(super) async fn run_once(
        &self,
        claimed: ClaimedJob,
        brought: Option<(Job, Original)>,
        held: &Held,
    ) -> Run {
        let (job, original) = match brought {
            Some((job, original)) => (Some(job), Some(original)),
            None => (None, None),
        };
        let request = claimed.request.clone();
        let run = claimed.run;
        let job = match self.in_hand(claimed, job, held) {
            Ok(job) => job,
            Err(Unfit::Unreadable) => return Run::BrokeOff(None),
            Err(Unfit::Refused(failure)) => return Box::pin(self.end(run, failure, None)).await,
        };
        let span = job_span(&job);
        let events = job.events.clone();
        let running = tracing::Instrument::instrument(Box::pin(self.0.runner.run(*job)), span);
        let ran = AssertUnwindSafe(running).catch_unwind().await;
        match ran {
            Ok(Ok(ran)) => {
                Box::pin(self.settle(run.job_id, ran, original, request)).await;
                return Run::Settled;
            }
            Ok(Err(error)) => tracing::error!(job.id = %run.job_id, %error, "a run broke off"),
            Err(_panic) => tracing::error!(job.id = %run.job_id, "a run panicked"),
        }
        Run::BrokeOff(Some(events))
    }

    async fn broke_off(
        &self,
        run: crate::store::Run,
        traceparent: Option<String>,
        events: Option<JobEvents>,
    ) -> Result<(), StoreError> {
        // As they are now: an entry that the run has stored takes back what was counted before.
        let Some(failures) = insisting!("owner", self.0.store, self.0.store.failures(&run))? else {
            meter::attempt(Attempt::Fenced);
            tracing::info!(job.id = %run.job_id, "another worker has this job now");
            return Ok(());
        };
        let trace = traceparent.as_deref().and_then(|text| text.get(3..35));
        let text = format!(
            "the worker could not go on; its log has more under trace {}",
            trace.unwrap_or("(none)")
        );
        let failure = Failure::new(ErrorCode::Internal, text);
        let most = self.0.config.jobs.max_attempts;
        let fault = Fault::Retry { after: None };
        match settle(fault, failures, most, fastrand::f64()) {
            Settlement::Park { wait } => {
                let waiting = events.as_ref().map_or(0, JobEvents::said) + 1;
                let parked = insisting!(
                    "park",
                    self.0.store,
                    self.0.store.park(&run, wait, &failure, waiting)
                )?;
                if parked == Written::Fenced {
                    tracing::info!(job.id = %run.job_id, "another worker has this job now");
                    meter::attempt(Attempt::Fenced);
                } else {
                    meter::retried(failure.code.as_str());
                    if let Some(events) = events {
                        events.say(|| tried_again(self.0.clock.now(), wait, Some(failure)));
                    }
                    meter::attempt(Attempt::Parked);
                }
            }
            Settlement::Fail => {
                Box::pin(self.end(run, failure, events)).await;
            }
        }
        Ok(())
    }

    /// Ends a claimed job without running it.
    async fn end(
        &self,
        run: crate::store::Run,
        failure: Failure,
        events: Option<JobEvents>,
    ) -> Run {
        match insisting!(
            "close",
            self.0.store,
            self.0.store.close_run(&run, failure.clone())
        ) {
            Ok(Some(mut closed)) => {
                // A run that could not even begin has said nothing.
                closed.events = closed.events.or(Some(0));
                meter::attempt(counting::attempt_of(closed.result.result.status));
                Box::pin(self.closed(closed, events)).await;
            }
            Ok(None) => {
                meter::attempt(Attempt::Fenced);
                tracing::info!(job.id = %run.job_id, "another worker has this job now");
            }
            Err(error) => {
                tracing::error!(job.id = %run.job_id, %error, "a job cannot be ended");
            }
        }
        Run::Settled
    }

    /// The claimed job, read; from its row where the delivery did not bring it.
    fn in_hand(
        &self,
        claimed: ClaimedJob,
        job: Option<Job>,
        held: &Held,
    ) -> Result<Box<JobInHand>, Unfit> {
        let job = match job {
            Some(job) => job,
            None => self.stored_job(&claimed)?,
        };
        let user = UserId::new(&job.user_id).ok_or(Unfit::Unreadable)?;
        let whose = Whose {
            job_id: claimed.run.job_id,
            conversation_id: claimed.run.conversation_id,
            user_id: Arc::from(user.as_str()),
            attempt: u32::try_from(claimed.run.attempt).unwrap_or_default(),
            metadata: job.metadata.clone().map(Arc::new),
        };
        let model = job
            .model
            .clone()
            .unwrap_or_else(|| self.model().default_model.clone());
        Ok(Box::new(JobInHand {
            claimed,
            user,
            model: Arc::from(model),
            job,
            leash: held.leash().clone(),
            gaps: held.gaps(),
            events: self.0.events.of(whose, 0),
        }))
    }

    /// The job that a row holds.
    fn stored_job(&self, claimed: &ClaimedJob) -> Result<Job, Unfit> {
        let request = claimed.request.as_deref().unwrap_or_default();
        let is_first = claimed.entries.is_empty();
        let job = parse_request(request, claimed.run.job_id).map_err(|error| {
            tracing::error!(%error, "a stored job cannot be read");
            if is_first {
                Unfit::Refused(Failure::new(ErrorCode::InvalidJob, error.to_string()))
            } else {
                Unfit::Unreadable
            }
        })?;
        // What came by way of the database has not been looked at by a worker yet.
        if is_first {
            self.check_stored(&job).map_err(Unfit::Refused)?;
        }
        Ok(job)
    }

    /// What follows the end of a run.
    async fn settle(
        &self,
        job_id: crate::ids::JobId,
        ran: Ran,
        original: Option<Original>,
        request: Option<String>,
    ) {
        counting::ran(&ran);
        match ran {
            Ran::Ended(ended) => {
                let Ended { result, next } = *ended;
                let original = original.unwrap_or_else(|| {
                    outgoing::known_original(
                        job_id,
                        request.as_deref().unwrap_or_default(),
                        &result,
                    )
                });
                self.ended(result, next, original).await;
            }
            Ran::Parked => {}
            Ran::GivenBack(next) => self.wake(next),
            Ran::Fenced => tracing::info!(job.id = %job_id, "another worker has this job now"),
        }
    }

    /// What follows the end of a job that nobody ran; `events` are those of the run that it had here,
    /// if it had one.
    pub(super) async fn closed(&self, closed: Closed, events: Option<JobEvents>) {
        let Closed {
            result,
            next,
            request,
            events: last,
        } = closed;
        let events = events.unwrap_or_else(|| self.events_after(&result.result, last));
        events.say(|| Happening::JobFinished {
            result: Box::new(result.result.clone()),
        });
        let original = outgoing::known_original(result.result.job_id, &request, &result);
        self.ended(result, next, original).await;
    }

    /// What follows the end of a job: the next turn's wake-up, its dead letter, its result.
    async fn ended(&self, stored: StoredResult, next: Option<Next>, original: Original) {
        counting::ended(&stored);
        if let Some(next) = next {
            self.wake(next);
        }
        if let Some(error) = stored
            .result
            .error
            .as_ref()
            .filter(|error| error.code != ErrorCode::Cancelled)
        {
            let failure = Failure::new(error.code, error.message.clone());
            tracing::info!(job.id = %stored.result.job_id, error.code = %failure.code, "a job failed");
            let (names, attempts) = (self.0.broker.names(), stored.result.attempt);
            let copy = outgoing::dead_letter(names, &original, &failure, attempts, self.0.id);
            self.errand(Act::PublishDeadLetter, copy);
        }
        self.publish_result(&stored).await;
    }
}

/// Why a claimed job cannot be run.
enum Unfit {
    /// Its row holds what no worker wrote.
    Unreadable,
    /// It may not run here.
    Refused(Failure),
}

fn job_span(job: &JobInHand) -> tracing::Span {
    let run = &job.claimed.run;
    tracing::info_span!("job.run", job.id = %run.job_id, job.attempt = run.attempt, conversation.id = %run.conversation_id)
}

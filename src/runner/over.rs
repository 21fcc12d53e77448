use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::ending::{self, Ended};
use super::leash::Halt;
use super::patience::insisting;
use super::run::{JobInHand, Progress, Ran, Runner};
use super::settlement::{Settlement, settle};
use crate::chat::Answer;
use crate::conversation::Outcome;
use crate::fault::{Failure, Fault};
use crate::meter;
use crate::store::{Finished, NewIteration, StoreError, Written, cancelled};
use crate::wire::{Happening, ResultError, WaitReason};

/// What is said of a job that waits to be tried again, and of what failed if anything did.
pub(crate) fn tried_again(
    now: DateTime<Utc>,
    wait: Duration,
    failure: Option<Failure>,
) -> Happening {
    Happening::JobWaiting {
        reason: WaitReason::Retry,
        due_at: now.checked_add_signed(TimeDelta::from_std(wait).unwrap_or_default()),
        calls: Vec::new(),
        error: failure.map(|failure| ResultError {
            code: failure.code,
            message: failure.message,
        }),
    }
}

/// The ends of a run.
impl Runner {
    /// Stores what is not stored yet, and an answer with it.
    pub(super) async fn append(
        &self,
        job: &JobInHand,
        progress: &mut Progress,
        iteration: Option<&NewIteration<'_>>,
    ) -> Result<Written, StoreError> {
        let results = std::mem::take(&mut progress.unsaved);
        let written = insisting!(
            "append",
            self.store,
            self.store.append(&job.claimed.run, &results, iteration)
        )?;
        // What is stored is progress.
        progress.failures = 0;
        Ok(written)
    }

    /// Ends the job, together with its last entries.
    pub(super) async fn finish(
        &self,
        job: &JobInHand,
        mut progress: Progress,
        mut iteration: Option<&NewIteration<'_>>,
        mut outcome: Outcome,
    ) -> Result<Ran, StoreError> {
        if progress.conversation.has_interrupted_calls() {
            // The job ends without them, and its record says so.
            let run = &job.claimed.run;
            insisting!(
                "interrupted_calls",
                self.store,
                self.store.interrupt_calls(run)
            )?;
        }
        loop {
            let model = progress
                .conversation
                .last_answer()
                .and_then(|answer: &Answer| answer.model.clone());
            let totals = progress.conversation.totals();
            let mut warnings = progress.warnings.clone();
            warnings.extend(progress.conversation.warnings());
            let text = &self.jobs.unfinished_reply;
            let ending = ending::ending(outcome, totals, model, warnings, text);
            let run = &job.claimed.run;
            let finished = insisting!(
                "finish",
                self.store,
                self.store
                    .finish(run, &progress.unsaved, iteration, &ending)
            );
            match finished? {
                Finished::Fenced => return Ok(Ran::Fenced),
                Finished::Ended {
                    finished_at,
                    answer_to,
                    next,
                } => {
                    let result = ending::result(
                        job,
                        &ending,
                        progress.conversation.format(),
                        finished_at,
                        answer_to,
                    );
                    job.events.say(|| Happening::JobFinished {
                        result: Box::new(result.result.clone()),
                    });
                    return Ok(Ran::Ended(Box::new(Ended { result, next })));
                }
                // Its entries are stored; only its end was not.
                Finished::CalledOff(called_off) => {
                    progress.unsaved.clear();
                    iteration = None;
                    outcome = Outcome::Cancelled(cancelled(called_off.reason));
                }
            }
        }
    }

    /// What follows a failure: the job is tried again later, or it fails.
    pub(super) async fn fail(
        &self,
        job: &JobInHand,
        mut progress: Progress,
        fault: Fault,
        failure: Failure,
    ) -> Result<Ran, StoreError> {
        if !progress.unsaved.is_empty()
            && self.append(job, &mut progress, None).await? == Written::Fenced
        {
            return Ok(Ran::Fenced);
        }
        let most = self.jobs.max_attempts;
        match settle(fault, progress.failures, most, fastrand::f64()) {
            Settlement::Fail => {
                self.finish(job, progress, None, Outcome::Failed(failure))
                    .await
            }
            Settlement::Park { wait } => {
                tracing::info!(error.code = %failure.code, wait_ms = wait.as_millis(), "the job is tried again later");
                let (run, waiting) = (&job.claimed.run, job.events.said() + 1);
                match insisting!(
                    "park",
                    self.store,
                    self.store.park(run, wait, &failure, waiting)
                )? {
                    Written::Stored => {
                        meter::retried(failure.code.as_str());
                        job.events
                            .say(|| tried_again(self.clock.now(), wait, Some(failure)));
                        Ok(Ran::Parked)
                    }
                    Written::Fenced => Ok(Ran::Fenced),
                }
            }
        }
    }

    /// Lets the job wait where it holds no slot: it can go on only later, and nothing failed.
    pub(super) async fn postpone(
        &self,
        job: &JobInHand,
        mut progress: Progress,
        (wait, why): (Duration, &'static str),
    ) -> Result<Ran, StoreError> {
        if !progress.unsaved.is_empty()
            && self.append(job, &mut progress, None).await? == Written::Fenced
        {
            return Ok(Ran::Fenced);
        }
        tracing::info!(wait_ms = wait.as_millis(), why, "the job waits");
        let (run, waiting) = (&job.claimed.run, job.events.said() + 1);
        let parked = insisting!(
            "park",
            self.store,
            self.store.postpone(run, wait, why, waiting)
        )?;
        if parked == Written::Fenced {
            return Ok(Ran::Fenced);
        }
        job.events.say(|| tried_again(self.clock.now(), wait, None));
        Ok(Ran::Parked)
    }

    /// Stops a run where it stands: its job was called off, or goes to another worker.
    pub(super) async fn halt(
        &self,
        job: &JobInHand,
        mut progress: Progress,
    ) -> Result<Ran, StoreError> {
        if !progress.unsaved.is_empty()
            && self.append(job, &mut progress, None).await? == Written::Fenced
        {
            return Ok(Ran::Fenced);
        }
        let run = &job.claimed.run;
        match job.leash.pulled() {
            Some(Halt::CalledOff(called_off)) => {
                let outcome = Outcome::Cancelled(cancelled(called_off.reason.clone()));
                insisting!(
                    "interrupted_calls",
                    self.store,
                    self.store.interrupt_calls(run)
                )?;
                self.finish(job, progress, None, outcome).await
            }
            Some(Halt::GiveBack) | None => {
                let next = insisting!(
                    "give_back",
                    self.store,
                    self.store.give_back(run, job.events.said())
                )?;
                Ok(next.map_or(Ran::Fenced, Ran::GivenBack))
            }
        }
    }
}

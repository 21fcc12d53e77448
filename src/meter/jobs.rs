use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::figure::{
    ATTEMPTS, DISPATCHED, FENCED, JOB_SECONDS, JOBS_ENDED, REFUSED, RETRIES, SWEEPER, TAKEOVERS,
};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Its job is completed.
    Completed,
    /// Its job failed for good.
    Failed,
    /// Its job was called off.
    Cancelled,
    /// It failed; its job is tried again.
    Parked,
    /// Its worker stops; another goes on with the job.
    GivenBack,
    /// Somebody else had the job.
    Fenced,
}

impl Attempt {
    const ALL: [Self; 6] = [
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Parked,
        Self::GivenBack,
        Self::Fenced,
    ];

    /// The word in the label; the same as in `chat.attempts`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Parked => "parked",
            Self::GivenBack => "given_back",
            Self::Fenced => "fenced",
        }
    }
}

pub(super) fn begin() {
    for outcome in Attempt::ALL {
        counter!(ATTEMPTS, "outcome" => outcome.as_str()).increment(0);
    }
    counter!(JOBS_ENDED, "status" => "completed", "code" => "").increment(0);
    counter!(JOBS_ENDED, "status" => "cancelled", "code" => "cancelled").increment(0);
    // The one that an operator must hear of the first time that it happens.
    counter!(JOBS_ENDED, "status" => "failed", "code" => "attempts_exhausted").increment(0);
    for by in ["sweep", "claim"] {
        counter!(TAKEOVERS, "by" => by).increment(0);
    }
    counter!(FENCED).increment(0);
    counter!(DISPATCHED).increment(0);
    sweeping(false);
}

/// A run ended so.
pub fn attempt(outcome: Attempt) {
    counter!(ATTEMPTS, "outcome" => outcome.as_str()).increment(1);
    if outcome == Attempt::Fenced {
        counter!(FENCED).increment(1);
    }
}

/// A job ended with this status; with this error code, if it is not completed.
pub fn job_ended(status: &'static str, code: Option<&'static str>) {
    counter!(JOBS_ENDED, "status" => status, "code" => code.unwrap_or_default()).increment(1);
}

/// A job that ran ended after this long.
pub fn job_took(time: Duration) {
    histogram!(JOB_SECONDS).record(time);
}

/// A run failed with this error code, and its job is tried again.
pub fn retried(code: &'static str) {
    counter!(RETRIES, "reason" => code).increment(1);
}

/// So many jobs were taken from runs that nobody ended, by the `sweep` or by a `claim`.
pub fn took_over(by: &'static str, jobs: usize) {
    if jobs > 0 {
        counter!(TAKEOVERS, "by" => by).increment(u64::try_from(jobs).unwrap_or(u64::MAX));
    }
}

/// A message was refused with this error code.
pub fn refused(code: &'static str) {
    counter!(REFUSED, "code" => code).increment(1);
}

/// A wake-up is sent.
pub fn dispatched() {
    counter!(DISPATCHED).increment(1);
}

/// Whether this worker is the one that sweeps.
pub fn sweeping(is_sweeper: bool) {
    gauge!(SWEEPER).set(f64::from(u8::from(is_sweeper)));
}

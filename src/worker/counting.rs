//! Which figures move when a run or a job ends.

use crate::meter::{self, Attempt};
use crate::runner::Ran;
use crate::store::{ClaimedJob, StoredResult, TakeOver};
use crate::wire::Status;

/// A job is claimed.
pub(super) fn claimed(job: &ClaimedJob) {
    if job.took_over != TakeOver::None {
        meter::took_over("claim", 1);
    }
}

/// A run ended.
pub(super) fn ran(ran: &Ran) {
    meter::attempt(match ran {
        Ran::Ended(ended) => attempt_of(ended.result.result.status),
        Ran::Parked => Attempt::Parked,
        Ran::GivenBack(_) => Attempt::GivenBack,
        Ran::Fenced => Attempt::Fenced,
    });
}

/// A run ended its job so.
pub(super) fn attempt_of(status: Status) -> Attempt {
    match status {
        Status::Completed => Attempt::Completed,
        Status::Failed => Attempt::Failed,
        Status::Cancelled => Attempt::Cancelled,
    }
}

/// A job ended, with a run or without one.
pub(super) fn ended(stored: &StoredResult) {
    let result = &stored.result;
    let code = result.error.as_ref().map(|error| error.code.as_str());
    meter::job_ended(result.status.as_str(), code);
    if let Some(started_at) = result.started_at {
        // Both times are the database's.
        let took = (result.finished_at - started_at).to_std();
        meter::job_took(took.unwrap_or_default());
    }
}

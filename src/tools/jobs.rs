//! Which jobs run here, for servers whose processes serve one job each.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::JobId;

/// The jobs that have begun and have not ended. One may run twice for a moment, when it came back
/// before its first run noticed that it had lost it.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<HashMap<JobId, usize>>);

impl Jobs {
    pub(super) fn begin(&self, job: JobId) {
        *self.lock().entry(job).or_default() += 1;
    }

    /// Whether that was the last of its runs.
    pub(super) fn end(&self, job: JobId) -> bool {
        let mut jobs = self.lock();
        let Some(runs) = jobs.get_mut(&job) else {
            return false;
        };
        *runs -= 1;
        let last = *runs == 0;
        if last {
            jobs.remove(&job);
        }
        last
    }

    pub(super) fn is_live(&self, job: JobId) -> bool {
        self.lock().contains_key(&job)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_runs_twice_has_ended_with_its_last_run() {
        let (jobs, job) = (Jobs::default(), JobId(uuid::Uuid::from_u128(1)));
        jobs.begin(job);
        jobs.begin(job);
        assert!(!jobs.end(job) && jobs.is_live(job));
        assert!(jobs.end(job) && !jobs.is_live(job));
        assert!(!jobs.end(job));
    }
}

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::ids::JobId;
use crate::runner::{Halt, Leash};

/// Claims of one job by this process take turns; those of different jobs rarely meet.
const STRIPES: usize = 512;

type Jobs = Arc<Mutex<HashMap<JobId, Leash>>>;

/// The jobs that this process has in hand.
#[derive(Clone)]
pub(super) struct InHand {
    jobs: Jobs,
    /// Whether runs that begin now are to stop at once.
    is_over: Arc<AtomicBool>,
    claims: Arc<[Arc<tokio::sync::Mutex<()>>]>,
    hasher: RandomState,
}

impl Default for InHand {
    fn default() -> Self {
        Self {
            jobs: Arc::default(),
            is_over: Arc::default(),
            claims: (0..STRIPES).map(|_| Arc::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

/// A job in hand, until this is dropped.
pub(super) struct Held {
    job: JobId,
    leash: Leash,
    gaps: u64,
    jobs: Jobs,
}

impl Held {
    /// Gaps between heartbeats from before the claim.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// What stops its run.
    pub(super) fn leash(&self) -> &Leash {
        &self.leash
    }
}

impl InHand {
    /// The right to claim `job`: two deliveries of it that come at the same moment claim one after
    /// the other, so that the second sees what the first did.
    pub(super) async fn turn(&self, job: JobId) -> Option<OwnedMutexGuard<()>> {
        let stripe =
            usize::try_from(self.hasher.hash_one(job) % STRIPES as u64).unwrap_or_default();
        let claims = self.claims.get(stripe).map(Arc::clone)?;
        Some(claims.lock_owned().await)
    }

    pub(super) fn has(&self, job: JobId) -> bool {
        self.lock().contains_key(&job)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn hold(&self, job: JobId, gaps: u64) -> Held {
        let leash = Leash::default();
        if let Some(earlier) = self.lock().insert(job, leash.clone()) {
            // Somebody else had the job meanwhile, so that the earlier run cannot write any more.
            earlier.pull(Halt::GiveBack);
        }
        if self.is_over.load(Ordering::Acquire) {
            leash.pull(Halt::GiveBack);
        }
        Held {
            job,
            leash,
            gaps,
            jobs: Arc::clone(&self.jobs),
        }
    }

    /// Stops the run of a job, if it is in hand.
    pub(super) fn pull(&self, job: JobId, why: Halt) {
        let leash = self.lock().get(&job).cloned();
        if let Some(leash) = leash {
            leash.pull(why);
        }
    }

    /// Has every run give its job back, and every run that begins from now on.
    pub(super) fn give_back_all(&self) {
        self.is_over.store(true, Ordering::Release);
        for leash in self.lock().values() {
            leash.pull(Halt::GiveBack);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Leash>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        // A later run of the same job is not this one's to let go.
        if jobs.get(&self.job) == Some(&self.leash) {
            jobs.remove(&self.job);
        }
    }
}

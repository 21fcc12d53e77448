use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::OwnedMutexGuard;

use crate::ids::JobId;
use crate::runner::{Halt, Leash};

/// Claims of one job by this process take turns; those of different jobs rarely meet.
const STRIPES: usize = 512;

type Jobs = Arc<Mutex<HashMap<JobId, Entry>>>;

struct Entry {
    leash: Leash,
    since: Instant,
    is_suspect: bool,
}

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

    pub(super) fn hold(&self, job: JobId, gaps: u64, is_suspect: bool) -> Held {
        let leash = Leash::default();
        let entry = Entry {
            leash: leash.clone(),
            since: Instant::now(),
            is_suspect,
        };
        if let Some(earlier) = self.lock().insert(job, entry) {
            // Somebody else had the job meanwhile, so that the earlier run cannot write any more.
            earlier.leash.pull(Halt::GiveBack);
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
        let leash = self.lock().get(&job).map(|entry| entry.leash.clone());
        if let Some(leash) = leash {
            leash.pull(why);
        }
    }

    /// Has every run give its job back, and every run that begins from now on.
    pub(super) fn give_back_all(&self) {
        self.is_over.store(true, Ordering::Release);
        for entry in self.lock().values() {
            entry.leash.pull(Halt::GiveBack);
        }
    }

    /// Stops runs, in hand since before `when`, that the database does not count among `ours` any
    /// more: what they still do is for nothing.
    pub(super) fn let_go_of_others(&self, ours: &HashSet<JobId>, when: Instant) {
        for (job, entry) in &*self.lock() {
            if entry.since < when && !ours.contains(job) {
                entry.leash.pull(Halt::GiveBack);
            }
        }
    }

    /// Whether a job is in hand that may be what its last workers died of.
    pub(super) fn has_suspect(&self) -> bool {
        self.lock().values().any(|entry| entry.is_suspect)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        // A later run of the same job is not this one's to let go.
        if jobs.get(&self.job).map(|entry| &entry.leash) == Some(&self.leash) {
            jobs.remove(&self.job);
        }
    }
}

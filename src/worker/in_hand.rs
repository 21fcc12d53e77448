use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::ids::JobId;

/// Claims of one job by this process take turns; those of different jobs rarely meet.
const STRIPES: usize = 512;

/// The jobs that this process has in hand.
#[derive(Clone)]
pub(super) struct InHand {
    jobs: Arc<Mutex<HashSet<JobId>>>,
    claims: Arc<[Arc<tokio::sync::Mutex<()>>]>,
    hasher: RandomState,
}

impl Default for InHand {
    fn default() -> Self {
        Self {
            jobs: Arc::default(),
            claims: (0..STRIPES).map(|_| Arc::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

/// A job in hand, until this is dropped.
pub(super) struct Held {
    job: JobId,
    jobs: Arc<Mutex<HashSet<JobId>>>,
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
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&job)
    }

    pub(super) fn hold(&self, job: JobId) -> Held {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(job);
        Held {
            job,
            jobs: Arc::clone(&self.jobs),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.job);
    }
}

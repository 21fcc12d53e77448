use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::ids::WorkerId;
use crate::store::Store;

const BEAT: Duration = Duration::from_secs(2);
/// A heartbeat that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the last heartbeat was stored.
#[derive(Clone)]
pub(super) struct Pulse {
    origin: Instant,
    last: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            last: Arc::default(),
        }
    }
}

impl Pulse {
    fn stored(&self) {
        let millis = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    /// How long ago the last heartbeat was stored.
    pub(super) fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.origin.elapsed().saturating_sub(last)
    }
}

/// Says that the worker is alive, until `stop`.
pub(super) async fn beat(store: Store, worker: WorkerId, pulse: Pulse, stop: CancellationToken) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match tokio::time::timeout(PATIENCE, store.beat(worker)).await {
            Ok(Ok(())) => pulse.stored(),
            Ok(Err(error)) => tracing::warn!(%error, "the heartbeat was not stored"),
            Err(_elapsed) => tracing::warn!("the heartbeat was not stored in time"),
        }
    }
    match tokio::time::timeout(PATIENCE, store.sign_off(worker)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the worker could not sign off"),
        Err(_elapsed) => tracing::warn!("the worker could not sign off in time"),
    }
}

/// This machine's name, for people.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

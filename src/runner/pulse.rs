use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How old the last heartbeat may be before no new call is begun: well before others may take this
/// worker for dead.
pub(super) const STALE: Duration = Duration::from_secs(20);

/// When this worker's last heartbeat was stored. A clone is the same pulse.
#[derive(Clone)]
pub struct Pulse(Arc<Beats>);

struct Beats {
    origin: Instant,
    last: AtomicU64,
    gaps: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Beats {
            origin: Instant::now(),
            last: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
        }))
    }
}

impl Pulse {
    /// A heartbeat that was sent at `sent` is stored.
    pub fn stored(&self, sent: Instant) {
        let sent = sent.saturating_duration_since(self.0.origin);
        let millis = u64::try_from(sent.as_millis()).unwrap_or(u64::MAX);
        let before = self.0.last.load(Ordering::Relaxed);
        if Duration::from_millis(millis.saturating_sub(before)) > STALE {
            // First, so that who sees the new beat sees the gap before it too.
            self.0.gaps.fetch_add(1, Ordering::Release);
        }
        self.0.last.store(millis, Ordering::Release);
    }

    /// How long ago the last stored heartbeat was sent.
    #[must_use]
    pub fn age(&self) -> Duration {
        let last = Duration::from_millis(self.0.last.load(Ordering::Acquire));
        self.0.origin.elapsed().saturating_sub(last)
    }

    /// How often heartbeats were so far apart that others may have taken this worker for dead.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.0.gaps.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_between_beats_is_counted_when_the_next_beat_comes() {
        let pulse = Pulse::default();
        let start = pulse.0.origin;
        pulse.stored(start + Duration::from_secs(2));
        pulse.stored(start + Duration::from_secs(21));
        assert_eq!(pulse.gaps(), 0);
        pulse.stored(start + Duration::from_secs(42));
        assert_eq!(pulse.gaps(), 1);
    }
}

//! Time as a value: who needs to know the time is given a [`Clock`], so that tests can say what
//! time it is.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// Reads the time.
pub trait Clock: Send + Sync {
    /// The wall clock, for what people and rows are told.
    fn now(&self) -> DateTime<Utc>;
}

/// The time of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one reader of the wall clock"
    )]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A moment on this machine's monotonic clock by which something must be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `after` from now.
    #[must_use]
    pub fn after(after: Duration) -> Self {
        // An unreachable moment is a century away.
        const CENTURY: Duration = Duration::from_hours(100 * 365 * 24);
        Self(Instant::now() + after.min(CENTURY))
    }

    /// The earlier of the two.
    #[must_use]
    pub fn earliest(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| self.min(other))
    }

    /// As the runtime's timers want it.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// The time left; zero when it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

//! When a server that fails to start may be tried again. Pure: time and chance come from outside.

use std::time::{Duration, Instant};

use super::error::StartError;

/// Failures in a row after which nobody waits for a start any more.
const OPENS_AT: u32 = 3;
/// A server that has come back is found within this time, and that of its start.
const LONGEST: Duration = Duration::from_secs(15);

/// The failed starts in a row and what follows from them.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    until: Option<Instant>,
    last: String,
}

/// What somebody who wants to start a process is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Start it.
    Go,
    /// Start it as the only one: it may fail.
    Try,
    /// Ask again after this time.
    Wait(Duration),
    /// Calls are not to wait for it; who keeps the server tries again after this time.
    Rest(Duration, StartError),
}

impl Breaker {
    /// Whether a process may be started.
    pub(super) fn ask(&self, now: Instant) -> Turn {
        let left = self.left(now);
        if self.failures == 0 {
            Turn::Go
        } else if self.is_open() {
            let error = StartError::Resting {
                failures: self.failures,
                left: left.as_secs().max(1),
                last: self.last.clone(),
            };
            Turn::Rest(left, error)
        } else if left.is_zero() {
            Turn::Try
        } else {
            Turn::Wait(left)
        }
    }

    /// A start failed; `chance` from 0 to 1 spreads the next tries of many workers.
    pub(super) fn failed(&mut self, now: Instant, reason: &str, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        self.until =
            Some(now + backoff(self.failures).mul_f64(0.75 + 0.25 * chance.clamp(0.0, 1.0)));
        reason.clone_into(&mut self.last);
    }

    /// A start succeeded.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Whether nobody waits for a start any more.
    pub(super) fn is_open(&self) -> bool {
        self.failures >= OPENS_AT
    }

    /// How long until the next try.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

/// 0, 1, 2, 4 … 15 s.
pub(super) fn backoff(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => Duration::from_secs(1)
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_to_a_quarter_of_a_minute() {
        let seconds: Vec<_> = (0..9).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 15, 15, 15]);
        assert_eq!(backoff(u32::MAX), LONGEST);
    }

    #[test]
    fn after_three_failures_nobody_waits_and_one_success_forgets_them() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.ask(start), Turn::Go);
        breaker.failed(start, "no such file", 1.0);
        assert_eq!(breaker.ask(start), Turn::Try);
        breaker.failed(start, "no such file", 1.0);
        assert_eq!(breaker.ask(start), Turn::Wait(Duration::from_secs(1)));
        breaker.failed(start, "no such file", 1.0);
        let rests = |now| {
            let Turn::Rest(left, error) = breaker.ask(now) else {
                panic!("the breaker did not open");
            };
            (left, error.to_string())
        };
        let (left, error) = rests(start);
        assert_eq!(left, Duration::from_secs(2));
        assert!(error.contains("no such file"), "{error}");
        // Calls are still refused when it is time for the next try: they are not to wait for it.
        assert_eq!(rests(start + left).0, Duration::ZERO);
        breaker.succeeded();
        assert_eq!(breaker.ask(start), Turn::Go);
    }
}

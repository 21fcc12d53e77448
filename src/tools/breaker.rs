//! When a server that fails to start may be tried again. Pure: time and chance come from outside.

use std::time::{Duration, Instant};

use super::error::StartError;

/// Failures in a row after which nobody waits for a start any more.
const OPENS_AT: u32 = 3;
const LONGEST: Duration = Duration::from_secs(30);

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
    /// Ask again after this time.
    Wait(Duration),
    /// Give up at once.
    Refuse(StartError),
}

impl Breaker {
    /// Whether a process may be started. A try out of the open state holds everybody else off for
    /// `trial`.
    pub(super) fn ask(&mut self, now: Instant, trial: Duration) -> Turn {
        let left = self.left(now);
        let open = self.failures >= OPENS_AT;
        if left.is_zero() {
            if open {
                self.until = Some(now + trial);
            }
            Turn::Go
        } else if open {
            Turn::Refuse(StartError::Resting {
                failures: self.failures,
                left: left.as_secs().max(1),
                last: self.last.clone(),
            })
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

    /// Whether the last start failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// How long until the next try.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

/// 0, 1, 2, 4 … 30 s.
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

    const TRIAL: Duration = Duration::from_secs(10);

    #[test]
    fn the_backoff_doubles_to_half_a_minute() {
        let seconds: Vec<_> = (0..9).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff(u32::MAX), LONGEST);
    }

    #[test]
    fn after_three_failures_everybody_is_refused_but_one_try_after_the_backoff() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.ask(start, TRIAL), Turn::Go);
        breaker.failed(start, "no such file", 1.0);
        assert_eq!(breaker.ask(start, TRIAL), Turn::Go);
        breaker.failed(start, "no such file", 1.0);
        assert_eq!(
            breaker.ask(start, TRIAL),
            Turn::Wait(Duration::from_secs(1))
        );
        breaker.failed(start, "no such file", 1.0);
        let Turn::Refuse(error) = breaker.ask(start, TRIAL) else {
            panic!("the breaker did not open");
        };
        assert!(error.to_string().contains("no such file"), "{error}");
        let later = start + Duration::from_secs(3);
        assert_eq!(breaker.ask(later, TRIAL), Turn::Go);
        assert!(
            matches!(breaker.ask(later, TRIAL), Turn::Refuse(_)),
            "two tries at once"
        );
        breaker.succeeded();
        assert_eq!(breaker.ask(later, TRIAL), Turn::Go);
    }
}

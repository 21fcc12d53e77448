//! What becomes of a run that failed: the decision alone.

use std::time::Duration;

use crate::fault::Fault;
use crate::model::kept;

/// The wait before the second run is a random part of this; it doubles with each failure.
const FIRST: Duration = Duration::from_secs(2);
/// The wait grows no further.
const LONGEST: Duration = Duration::from_mins(5);
/// The longest wait that the other side may ask for.
const LONGEST_ASKED: Duration = Duration::from_hours(1);

/// What becomes of a run that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Its job waits and is tried again.
    Park {
        /// For how long.
        wait: Duration,
    },
    /// Its job fails.
    Fail,
}

/// What becomes of a run that failed with `fault`, after `failures` before it. `random` is in
/// `0..1`: jobs that failed together do not come back together.
#[must_use]
pub fn settle(fault: Fault, failures: u32, max_attempts: u32, random: f64) -> Settlement {
    let Fault::Retry { after } = fault else {
        return Settlement::Fail;
    };
    if failures.saturating_add(1) >= max_attempts {
        return Settlement::Fail;
    }
    let backoff = FIRST
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(LONGEST);
    let wait = match after {
        Some(after) => {
            let kept = kept(after.min(LONGEST_ASKED), backoff.mul_f64(random), random);
            // Who names a short wait again and again is in more trouble than it says; the runs of the job are to outlast it.
            if failures == 0 {
                kept
            } else {
                kept.max(backoff.mul_f64(random))
            }
        }
        None => backoff.mul_f64(random),
    };
    Settlement::Park { wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Fault = Fault::Retry { after: None };

    fn wait(failures: u32, random: f64) -> Duration {
        match settle(RETRY, failures, 100, random) {
            Settlement::Park { wait } => wait,
            Settlement::Fail => panic!("it is tried again"),
        }
    }

    #[test]
    fn the_wait_doubles_with_each_failure_is_jittered_in_full_and_has_an_end() {
        assert_eq!(wait(0, 0.0), Duration::ZERO);
        let most: Vec<_> = (0..9)
            .map(|failures| wait(failures, 1.0).as_secs())
            .collect();
        assert_eq!(most, [2, 4, 8, 16, 32, 64, 128, 256, 300]);
    }

    #[test]
    fn what_the_other_side_asks_for_is_kept_and_capped() {
        let asked = |secs| Fault::Retry {
            after: Some(Duration::from_secs(secs)),
        };
        let park = |secs| Settlement::Park {
            wait: Duration::from_secs(secs),
        };
        assert_eq!(settle(asked(90), 0, 5, 0.0), park(90));
        assert_eq!(settle(asked(100), 0, 5, 1.0), park(105));
        assert_eq!(settle(asked(1), 3, 5, 0.0), park(1));
        assert_eq!(settle(asked(1), 3, 5, 1.0), park(16));
        let first = Duration::from_millis(1050);
        assert_eq!(
            settle(asked(1), 0, 5, 1.0),
            Settlement::Park { wait: first }
        );
        assert_eq!(settle(asked(0), 1, 5, 1.0), park(4));
        assert_eq!(settle(asked(1_000_000), 0, 5, 0.0), park(3600));
    }

    #[test]
    fn the_last_failure_and_one_that_would_come_again_are_final() {
        assert_eq!(settle(RETRY, 4, 5, 0.5), Settlement::Fail);
        assert_eq!(settle(RETRY, 0, 1, 0.5), Settlement::Fail);
        assert_ne!(settle(RETRY, 3, 5, 0.5), Settlement::Fail);
        assert_eq!(settle(Fault::Permanent, 0, 5, 0.5), Settlement::Fail);
        assert_eq!(settle(Fault::Cancelled, 0, 5, 0.5), Settlement::Fail);
    }
}

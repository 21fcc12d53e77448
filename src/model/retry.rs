//! Whether a failed call is made again here and now. Pure.
//!
//! A slot that waits does nothing else, so the waits in place are short; what needs longer goes
//! back to the caller, who parks the job.

use std::time::Duration;

use super::classify::{MOST_ATTEMPTS, Verdict};
use crate::fault::Fault;

/// The wait before the second attempt is between a half of this and all of it; it trebles with each attempt, so
/// that each wait is longer than the one before, however chance has it.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// The backoff grows no further.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// The longest wait of a server's `Retry-After` that is spent in place.
pub(super) const LONGEST_WAIT_IN_PLACE: Duration = Duration::from_secs(10);

/// A server that names a wait of at least this has thought about it.
const CLEAR: Duration = Duration::from_millis(100);
/// What it takes to be soon: such a wait costs less in place than as a row.
const SOON: Duration = Duration::from_secs(2);
/// How often a call is made in all whose server says each time that it takes another one soon.
const MOST_ATTEMPTS_SOON: u32 = 5;

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask again after this long.
    Again(Duration),
    /// Tell the caller.
    GiveUp,
}

/// What follows the `attempts`-th attempt of a call that was tried in vain `before`, with `left` until the deadline. `random`
/// is in `0..1`. A job that is run five times comes to nine attempts, or eleven where its server names short waits at first
/// and none later.
pub(super) fn after(
    verdict: &Verdict,
    (before, attempts): (u32, u32),
    left: Duration,
    random: f64,
) -> Next {
    let Fault::Retry { after } = verdict.fault else {
        return Next::GiveUp;
    };
    let says_soon = after.is_some_and(|after| (CLEAR..=SOON).contains(&after));
    let most = match before {
        0 if says_soon && verdict.most_attempts == MOST_ATTEMPTS => MOST_ATTEMPTS_SOON,
        0 => verdict.most_attempts,
        1 | 2 if !says_soon => verdict.most_attempts.min(2),
        1.. => 1,
    };
    if attempts >= most {
        return Next::GiveUp;
    }
    let trebled = FIRST_BACKOFF.saturating_mul(3_u32.saturating_pow(attempts.saturating_sub(1)));
    let backoff = trebled.min(LONGEST_BACKOFF).mul_f64(0.5 + 0.5 * random);
    let wait = match after {
        Some(after) if after > LONGEST_WAIT_IN_PLACE => return Next::GiveUp,
        Some(after) => kept(after, backoff, random),
        None => backoff,
    };
    // An attempt that would start at the deadline is none.
    if wait >= left {
        Next::GiveUp
    } else {
        Next::Again(wait)
    }
}

/// A wait that a server asked for: kept in full, and spread by a twentieth. It means what it says, and where it
/// says at once it is not asked at once.
pub(crate) fn kept(after: Duration, backoff: Duration, random: f64) -> Duration {
    let after_all = after + after.mul_f64(0.05 * random);
    if after >= CLEAR {
        after_all
    } else {
        after_all.max(backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(10);

    fn busy(after: Option<Duration>) -> Verdict {
        Verdict {
            fault: Fault::Retry { after },
            ..Verdict::network(String::new())
        }
    }

    #[test]
    fn the_backoff_trebles_with_each_attempt_and_half_of_it_is_chance() {
        assert_eq!(
            after(&busy(None), (0, 1), LONG, 0.0),
            Next::Again(Duration::from_millis(125))
        );
        let most = |attempts| after(&busy(None), (0, attempts), LONG, 1.0);
        assert_eq!(most(1), Next::Again(Duration::from_millis(250)));
        assert_eq!(most(2), Next::Again(Duration::from_millis(750)));
        assert_eq!(most(3), Next::GiveUp);
    }

    #[test]
    fn the_backoff_ends_at_five_seconds() {
        let patient = Verdict {
            most_attempts: u32::MAX,
            ..busy(None)
        };
        for attempts in [6, 30, u32::MAX - 1] {
            assert_eq!(
                after(&patient, (0, attempts), LONG, 1.0),
                Next::Again(LONGEST_BACKOFF)
            );
        }
    }

    #[test]
    fn a_servers_wait_is_kept_in_full_and_only_lengthened() {
        let wait = Duration::from_secs(2);
        assert_eq!(
            after(&busy(Some(wait)), (0, 1), LONG, 0.0),
            Next::Again(wait)
        );
        let more = Next::Again(wait.mul_f64(1.05));
        assert_eq!(after(&busy(Some(wait)), (0, 1), LONG, 1.0), more);
    }

    #[test]
    fn who_says_when_is_believed_and_who_says_at_once_is_not_asked_at_once() {
        let ms = Duration::from_millis;
        let third = |after| super::after(&busy(Some(after)), (0, 3), LONG, 1.0);
        assert_eq!(third(ms(100)), Next::Again(ms(105)));
        assert_eq!(third(ms(2000)), Next::Again(ms(2100)));
        assert_eq!(third(ms(2001)), Next::GiveUp);
        assert_eq!(third(ms(99)), Next::GiveUp);
        let fifth = super::after(&busy(Some(ms(500))), (0, 5), LONG, 1.0);
        assert_eq!(fifth, Next::GiveUp);
        assert_eq!(
            super::after(&busy(Some(ms(0))), (0, 2), LONG, 1.0),
            Next::Again(ms(750))
        );
        assert_eq!(
            super::after(&busy(Some(ms(500))), (0, 2), LONG, 1.0),
            Next::Again(ms(525))
        );
    }

    #[test]
    fn a_long_wait_is_the_callers() {
        let at_most = busy(Some(LONGEST_WAIT_IN_PLACE));
        assert_ne!(after(&at_most, (0, 1), LONG, 0.0), Next::GiveUp);
        let more = busy(Some(LONGEST_WAIT_IN_PLACE + Duration::from_millis(1)));
        assert_eq!(after(&more, (0, 1), LONG, 0.0), Next::GiveUp);
    }

    #[test]
    fn nothing_is_waited_for_beyond_the_deadline() {
        let verdict = busy(Some(Duration::from_secs(1)));
        assert_eq!(
            after(&verdict, (0, 1), Duration::from_secs(1), 0.0),
            Next::GiveUp
        );
        assert_eq!(
            after(&busy(None), (0, 1), Duration::ZERO, 0.0),
            Next::GiveUp
        );
    }

    #[test]
    fn a_timeout_is_tried_once_more_and_a_refusal_never() {
        let timeout = Verdict::timeout(LONG);
        assert_ne!(after(&timeout, (0, 1), LONG, 0.0), Next::GiveUp);
        assert_eq!(after(&timeout, (0, 2), LONG, 0.0), Next::GiveUp);
        let refused = Verdict {
            fault: Fault::Permanent,
            ..busy(None)
        };
        assert_eq!(after(&refused, (0, 1), LONG, 0.0), Next::GiveUp);
    }

    #[test]
    fn a_call_that_failed_before_is_tried_less_and_less() {
        let tries = |verdict: &Verdict, before: u32| {
            let again =
                |attempts: &u32| after(verdict, (before, *attempts), LONG, 0.5) != Next::GiveUp;
            1 + (1..20).take_while(again).count()
        };
        let down = busy(None);
        let each: Vec<_> = (0..6).map(|before| tries(&down, before)).collect();
        assert_eq!(each, [3, 2, 2, 1, 1, 1]);
        let soon = busy(Some(Duration::from_secs(1)));
        let each: Vec<_> = (0..6).map(|before| tries(&soon, before)).collect();
        assert_eq!(each, [5, 1, 1, 1, 1, 1]);
    }
}

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

/// How often a loop that waits for what may be long in coming says that it waits.
const TICK: Duration = Duration::from_secs(5);
/// Answers of the database that are further apart than this have an outage between them.
const OUTAGE: Duration = Duration::from_secs(10);

/// The loops of a worker.
#[derive(Default)]
pub(super) struct Loops {
    pub(super) intake: Turns,
    pub(super) heartbeat: Turns,
    pub(super) sweep: Turns,
    pub(super) control: Turns,
    pub(super) marks: Turns,
    /// What the sweep, which asks every second, hears of the database.
    pub(super) database: Answers,
}

/// When a loop last turned. A clone is the same.
#[derive(Clone)]
pub(super) struct Turns(Arc<Turning>);

struct Turning {
    origin: Instant,
    last: AtomicU64,
    is_over: AtomicBool,
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Turning {
            origin: Instant::now(),
            last: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }))
    }
}

impl Turns {
    /// The loop turned.
    pub(super) fn turned(&self) {
        let millis = u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(millis, Ordering::Relaxed);
    }

    /// The loop ended in good order, and turns no more.
    pub(super) fn over(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    /// How long ago the loop last turned.
    pub(super) fn silent(&self) -> Duration {
        if self.0.is_over.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
        self.0.origin.elapsed().saturating_sub(last)
    }

    /// Waits for what may rightly be long in coming: a delivery, a slot. Meanwhile the loop turns
    /// by waking up, so that idle is told from stuck. For nothing that has to come soon.
    pub(super) async fn awaiting<T>(&self, coming: impl Future<Output = T>) -> T {
        self.awaiting_by(TICK, coming).await
    }

    async fn awaiting_by<T>(&self, tick: Duration, coming: impl Future<Output = T>) -> T {
        let mut coming = pin!(coming);
        loop {
            self.turned();
            if let Ok(come) = timeout(tick, &mut coming).await {
                self.turned();
                return come;
            }
        }
    }
}

/// When the database answered.
#[derive(Default)]
pub(super) struct Answers(Mutex<Option<Answered>>);

#[derive(Clone, Copy)]
struct Answered {
    since: Instant,
    last: Instant,
}

impl Answers {
    /// It answered at `now`.
    pub(super) fn answered(&self, now: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = kept
            .filter(|before| now.saturating_duration_since(before.last) <= OUTAGE)
            .map_or(now, |before| before.since);
        *kept = Some(Answered { since, last: now });
    }

    /// For how long it has been answering at `now`; nothing while it does not.
    pub(super) fn lasting(&self, now: Instant) -> Duration {
        let kept = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.filter(|answered| now.saturating_duration_since(answered.last) <= OUTAGE)
            .map_or(Duration::ZERO, |answered| {
                now.saturating_duration_since(answered.since)
            })
    }

    /// How long ago it last answered; none if it never did.
    pub(super) fn silent(&self, now: Instant) -> Option<Duration> {
        let kept = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.map(|answered| now.saturating_duration_since(answered.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_waits_for_a_delivery_goes_on_turning() {
        let turns = Turns::default();
        let waiting = turns.awaiting_by(Duration::from_millis(1), std::future::pending::<()>());
        let turning = async {
            for _ in 0..5 {
                turns.0.last.store(u64::MAX, Ordering::Relaxed);
                while turns.0.last.load(Ordering::Relaxed) == u64::MAX {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::select! {
            () = waiting => panic!("nothing came"),
            () = turning => {}
        }
    }

    #[test]
    fn a_loop_that_ended_in_good_order_is_not_silent() {
        let turns = Turns(Arc::new(Turning {
            origin: Instant::now().checked_sub(Duration::from_mins(1)).unwrap(),
            last: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }));
        assert!(turns.silent() >= Duration::from_mins(1));
        turns.clone().over();
        assert_eq!(turns.silent(), Duration::ZERO);
    }

    #[test]
    fn an_outage_begins_the_count_of_answers_anew() {
        let (answers, start) = (Answers::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        assert_eq!(answers.lasting(start), Duration::ZERO);
        assert_eq!(answers.silent(start), None);
        for second in 0..=30 {
            answers.answered(at(second));
        }
        assert_eq!(answers.lasting(at(31)), Duration::from_secs(31));
        assert_eq!(answers.lasting(at(60)), Duration::ZERO);
        assert_eq!(answers.silent(at(60)), Some(Duration::from_secs(30)));
        answers.answered(at(61));
        assert_eq!(answers.lasting(at(63)), Duration::from_secs(2));
    }
}

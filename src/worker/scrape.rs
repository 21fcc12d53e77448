use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Worker;
use crate::meter::{self, Backlog, Here};
use crate::store::Unfinished;

/// For so long the numbers of the installation are not asked for again, nor is a database that did
/// not answer: it costs the same whoever scrapes how often.
const FRESH: Duration = Duration::from_secs(5);
/// A scrape waits no longer for the database. Prometheus gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(3);
/// Rows of each kind that are counted: it bounds what a long backlog costs.
const MOST: u32 = 20_000;
/// The format that Prometheus reads.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// When the database was last asked for the numbers of the installation.
#[derive(Default)]
pub(super) struct Asked(Mutex<Option<Instant>>);

/// `GET /metrics`.
pub(super) async fn metrics(State(worker): State<Worker>) -> impl IntoResponse {
    worker.look_at_installation().await;
    worker.look_at_itself();
    ([(CONTENT_TYPE, FORMAT)], (worker.0.figures)())
}

impl Worker {
    /// Asks the database for the numbers of the installation, if they are not fresh.
    async fn look_at_installation(&self) {
        // Scrapes that come together ask once.
        let mut asked = self.0.asked.0.lock().await;
        if asked.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let counted = match timeout(PATIENCE, self.0.store.count_unfinished(MOST)).await {
            Ok(Ok(unfinished)) => Some(unfinished),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the jobs cannot be counted");
                None
            }
            Err(_elapsed) => None,
        };
        meter::backlog(counted.is_some(), &backlog(counted));
        *asked = Some(Instant::now());
    }

    fn look_at_itself(&self) {
        meter::here(Here {
            in_hand: u32::try_from(self.0.in_hand.len()).unwrap_or(u32::MAX),
            slots: self.0.config.worker.concurrency,
            version: env!("CARGO_PKG_VERSION"),
        });
        for one in self.vitals().loops {
            meter::loop_silent(one.name, one.silent);
        }
    }
}

/// The numbers as figures; NaN for those that nobody knows.
fn backlog(counted: Option<Unfinished>) -> Backlog {
    let is_known = counted.is_some();
    let known = counted.unwrap_or_default();
    let seconds = |seconds: f64| if is_known { seconds } else { f64::NAN };
    // Counted up to a bound that fits.
    let count = |count: i64| seconds(i32::try_from(count).unwrap_or(i32::MAX).into());
    let Unfinished {
        queued,
        running,
        turn,
        retry,
        schedule,
        approval,
        enqueued,
        oldest_waiting_seconds,
        unpublished,
    } = known;
    let waiting = turn + retry + schedule + approval + enqueued;
    Backlog {
        jobs: vec![
            ("waiting", count(waiting)),
            ("queued", count(queued)),
            ("running", count(running)),
        ],
        waiting: vec![
            ("turn", count(turn)),
            ("retry", count(retry)),
            ("schedule", count(schedule)),
            ("approval", count(approval)),
            ("enqueued", count(enqueued)),
        ],
        oldest_waiting_seconds: seconds(oldest_waiting_seconds),
        unpublished: count(unpublished),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_the_sum_of_what_it_waits_for() {
        let backlog = backlog(Some(Unfinished {
            queued: 1,
            running: 2,
            turn: 3,
            retry: 4,
            ..Unfinished::default()
        }));
        assert_eq!(
            backlog.jobs,
            [("waiting", 7.0), ("queued", 1.0), ("running", 2.0)]
        );
        let reasons: Vec<_> = backlog.waiting.iter().filter(|(_, n)| *n > 0.0).collect();
        assert_eq!(reasons, [&("turn", 3.0), &("retry", 4.0)]);
    }

    #[test]
    fn nothing_is_claimed_of_a_database_that_does_not_answer() {
        let backlog = backlog(None);
        let counts = backlog.jobs.iter().chain(&backlog.waiting);
        assert!(counts.map(|(_, count)| count).all(|count| count.is_nan()));
        assert!(backlog.oldest_waiting_seconds.is_nan() && backlog.unpublished.is_nan());
    }
}

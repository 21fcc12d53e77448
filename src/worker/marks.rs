use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::loops::Turns;
use crate::ids::JobId;
use crate::runner::insisting;
use crate::store::Store;

/// Marks wait this long for others: one commit serves all.
const GATHER: Duration = Duration::from_millis(200);
const MOST: usize = 1_000;
/// A mark whose row somebody has locked is written later: so often, then the sweep publishes again.
const TRIES: u8 = 50;

/// Notes which results the broker has confirmed, many in one commit. A mark that gets lost costs a
/// repeat of the result, with the same `message_id`.
#[derive(Clone)]
pub(super) struct Marks(mpsc::Sender<JobId>);

impl Marks {
    pub(super) fn start(
        store: Store,
        turns: Turns,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (marks, confirmed) = mpsc::channel(MOST);
        tasks.spawn(write(store, turns, confirmed, stop));
        Self(marks)
    }

    pub(super) async fn confirmed(&self, job: JobId) {
        if self.0.send(job).await.is_err() {
            tracing::debug!(%job, "its result is published and not marked so");
        }
    }
}

async fn write(
    store: Store,
    turns: Turns,
    mut confirmed: mpsc::Receiver<JobId>,
    stop: CancellationToken,
) {
    let mut jobs = Vec::new();
    let mut late: HashMap<JobId, u8> = HashMap::new();
    loop {
        let open = tokio::select! {
            biased;
            more = turns.awaiting(confirmed.recv_many(&mut jobs, MOST)) => more > 0,
            () = tokio::time::sleep(GATHER), if !late.is_empty() => true,
            () = stop.cancelled() => {
                confirmed.close();
                while confirmed.recv_many(&mut jobs, MOST).await > 0 {}
                false
            }
        };
        if open {
            // Marks that come meanwhile are written with these.
            stop.run_until_cancelled(tokio::time::sleep(GATHER)).await;
            while let Ok(job) = confirmed.try_recv() {
                jobs.push(job);
            }
        }
        jobs.extend(late.keys());
        if !jobs.is_empty() {
            match insisting!("marks", store, store.mark_published(&jobs)) {
                Ok(passed_over) => late = once_more(&late, passed_over),
                Err(error) => {
                    tracing::error!(%error, "published results could not be marked");
                    late.clear();
                }
            }
            jobs.clear();
        }
        if !open {
            return;
        }
    }
}

/// The marks that are written later still, and how often they were passed over.
fn once_more(late: &HashMap<JobId, u8>, passed_over: Vec<JobId>) -> HashMap<JobId, u8> {
    let counted = passed_over.into_iter().map(|job| {
        let tries = late.get(&job).copied().unwrap_or_default();
        (job, tries.saturating_add(1))
    });
    counted.filter(|(_, tries)| *tries < TRIES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_is_passed_over_is_written_later_and_not_for_ever() {
        let job = JobId(uuid::Uuid::from_u128(1));
        let mut late = HashMap::new();
        for _ in 1..TRIES {
            late = once_more(&late, vec![job]);
            assert!(late.contains_key(&job));
        }
        assert!(once_more(&late, vec![job]).is_empty());
        assert!(once_more(&late, Vec::new()).is_empty(), "it is written");
    }
}

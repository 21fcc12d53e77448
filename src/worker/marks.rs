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
    loop {
        let open = tokio::select! {
            biased;
            more = turns.awaiting(confirmed.recv_many(&mut jobs, MOST)) => more > 0,
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
        if !jobs.is_empty() {
            if let Err(error) = insisting!("marks", store, store.mark_published(&jobs)) {
                tracing::error!(%error, "published results could not be marked");
            }
            jobs.clear();
        }
        if !open {
            return;
        }
    }
}

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Worker;

/// The most deliveries that the broker sends ahead.
const MOST_AHEAD: u32 = 256;

impl Worker {
    /// Takes jobs in until `stop`, at most `CHAT_CONCURRENCY` at once, each on `runs`. What was
    /// sent ahead and is not taken goes back to the broker.
    pub async fn take_in(&self, runs: &TaskTracker, stop: &CancellationToken) {
        let concurrency = self.0.config.worker.concurrency;
        let slots = Arc::new(Semaphore::new(
            usize::try_from(concurrency).unwrap_or(usize::MAX),
        ));
        let ahead = u16::try_from(concurrency.min(MOST_AHEAD)).unwrap_or(u16::MAX);
        let mut intake = self.0.broker.intake(ahead);
        loop {
            // The slot first: a delivery that is taken runs at once.
            let Some(Ok(slot)) = stop
                .run_until_cancelled(Arc::clone(&slots).acquire_owned())
                .await
            else {
                break;
            };
            let Some(Some(delivery)) = stop.run_until_cancelled(intake.next()).await else {
                break;
            };
            let worker = self.clone();
            runs.spawn(async move {
                worker.handle(delivery).await;
                drop(slot);
            });
        }
        intake.stop().await;
        while let Some(delivery) = intake.next().await {
            delivery.requeue();
        }
    }

    /// Waits until every run has ended, for `patience` at most.
    pub async fn drain(runs: &TaskTracker, patience: Duration) -> bool {
        runs.close();
        tokio::time::timeout(patience, runs.wait()).await.is_ok()
    }
}

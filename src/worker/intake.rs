use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Worker;
use crate::broker::{Delivery, Intake};
use crate::store::Wants;

/// The most deliveries that the broker sends ahead.
const MOST_AHEAD: usize = 256;
/// How long a worker without a free slot keeps what was sent ahead to itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a step of the intake came to.
enum Taken {
    /// A slot, and a delivery for it.
    Delivery(OwnedSemaphorePermit, Box<Delivery>),
    /// No slot has come free for a while.
    NoSlot,
    /// The worker is told to stop, or the broker is.
    Stopped,
}

impl Worker {
    /// Takes jobs in until `stop`, at most `CHAT_CONCURRENCY` at once, each on `runs`.
    ///
    /// While no slot is free it takes nothing from the broker, and what was sent ahead goes to
    /// Postgres with a wake-up: a busy worker never sits on a job that an idle one could do.
    pub async fn take_in(&self, runs: &TaskTracker, stop: &CancellationToken) {
        let concurrency = usize::try_from(self.0.config.worker.concurrency).unwrap_or(usize::MAX);
        let slots = Arc::new(Semaphore::new(concurrency));
        while !stop.is_cancelled() {
            let Some(Ok(slot)) = stop
                .run_until_cancelled(Arc::clone(&slots).acquire_owned())
                .await
            else {
                return;
            };
            drop(slot);
            let free = slots.available_permits().clamp(1, MOST_AHEAD);
            let mut intake = self
                .0
                .broker
                .intake(u16::try_from(free).unwrap_or(u16::MAX));
            self.take_while_slots_are_free(&mut intake, &slots, runs, stop)
                .await;
            intake.stop().await;
            while let Some(delivery) = intake.next().await {
                let worker = self.clone();
                runs.spawn(worker.handle(delivery, Wants::ToHandOver));
            }
        }
    }

    async fn take_while_slots_are_free(
        &self,
        intake: &mut Intake,
        slots: &Arc<Semaphore>,
        runs: &TaskTracker,
        stop: &CancellationToken,
    ) {
        loop {
            let taken = stop.run_until_cancelled(take(intake, slots)).await;
            match taken.unwrap_or(Taken::Stopped) {
                Taken::Delivery(slot, delivery) => {
                    let worker = self.clone();
                    runs.spawn(async move {
                        worker.handle(*delivery, Wants::ToRun).await;
                        drop(slot);
                    });
                }
                Taken::NoSlot | Taken::Stopped => return,
            }
        }
    }

    /// Waits until every run has ended, for `patience` at most.
    pub async fn drain(runs: &TaskTracker, patience: Duration) -> bool {
        runs.close();
        tokio::time::timeout(patience, runs.wait()).await.is_ok()
    }
}

/// The slot first: a delivery that is taken runs at once.
async fn take(intake: &mut Intake, slots: &Arc<Semaphore>) -> Taken {
    let slot = match tokio::time::timeout(PATIENCE, Arc::clone(slots).acquire_owned()).await {
        Ok(Ok(slot)) => slot,
        Ok(Err(_closed)) => return Taken::Stopped,
        Err(_elapsed) => return Taken::NoSlot,
    };
    match intake.next().await {
        Some(delivery) => Taken::Delivery(slot, Box::new(delivery)),
        None => Taken::Stopped,
    }
}

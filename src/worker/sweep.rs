use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Worker;
use super::outgoing;
use crate::crash::{self, Act};
use crate::ids::JobId;
use crate::meter;
use crate::store::{Next, StoreError};

const TICK: Duration = Duration::from_secs(1);
/// The net under the marks of turns, and cancels that met their job, are looked at this often.
const RARELY: Duration = Duration::from_secs(5);
/// Rows that one statement of a sweep takes.
const BATCH: u32 = 200;
/// So many results that wait to be published hold jobs back.
const MOST_UNPUBLISHED: u32 = 5_000;
/// A sweep that takes longer is given up; the next one goes on where it stopped.
const PATIENCE: Duration = Duration::from_secs(20);
/// Wake-ups and results that are under way at once.
const AT_ONCE: usize = 64;
/// A wake-up that is not confirmed by then is sent again.
const WAKING: Duration = Duration::from_secs(10);
/// However often it is told to, it does not sweep more often than this: a commit of a producer tells.
const LEAST: Duration = Duration::from_millis(50);
/// So much later than its moment a thing is looked for: timers are early at times.
const MARGIN: Duration = Duration::from_millis(20);

/// Finds what is due and dispatches it: marked first, woken then.
pub(super) struct Sweep {
    worker: Worker,
    rare: Instant,
    closings: TaskTracker,
    results: TaskTracker,
}

impl Sweep {
    pub(super) fn of(worker: Worker) -> Self {
        Self {
            worker,
            rare: Instant::now(),
            closings: TaskTracker::new(),
            results: TaskTracker::new(),
        }
    }

    /// Sweeps once a second, and when it is told to, until `stop`: if this worker is the one that
    /// does.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        let mut wait = TICK;
        while !stop.is_cancelled() {
            let told = async {
                tokio::time::sleep(LEAST.min(wait)).await;
                tokio::select! {
                    () = self.worker.0.sweep_now.notified() => {}
                    () = tokio::time::sleep(wait.saturating_sub(LEAST)) => {}
                }
            };
            if stop.run_until_cancelled(told).await.is_none() {
                return;
            }
            let stepping = stop.run_until_cancelled(timeout(PATIENCE, self.step()));
            let Some(stepped) = stepping.await else {
                return;
            };
            wait = match stepped {
                Ok(Ok(next)) => next,
                Ok(Err(error)) => {
                    meter::sweeping(false);
                    tracing::warn!(%error, "a sweep failed; the next one goes on");
                    TICK
                }
                Err(_elapsed) => {
                    meter::sweeping(false);
                    tracing::warn!("a sweep took too long; the next one goes on");
                    TICK
                }
            };
            self.worker.0.loops.sweep.turned();
        }
    }

    /// Looks how many results wait to be published.
    async fn measure(&self) -> Result<(), StoreError> {
        let worker = &self.worker.0;
        let is_clogged =
            worker.store.count_unpublished(MOST_UNPUBLISHED).await? >= MOST_UNPUBLISHED;
        if worker.is_clogged.swap(is_clogged, Ordering::Relaxed) != is_clogged {
            tracing::warn!(is_clogged, "jobs are taken in only while results get out");
        }
        Ok(())
    }

    /// One sweep; how long until the next.
    async fn step(&mut self) -> Result<Duration, StoreError> {
        self.measure().await?;
        let worker = &self.worker.0;
        let store = &worker.store;
        let is_sweeper = store.stand_for_sweeper(worker.id).await?;
        meter::sweeping(is_sweeper);
        worker.loops.database.answered(Instant::now());
        if !is_sweeper {
            return Ok(TICK);
        }
        // Where a batch is full there is more: that does not wait for the next second.
        let mut is_full = false;
        if worker.judgement.may_judge() {
            let orphans = store.take_from_the_dead(BATCH).await?;
            meter::took_over("sweep", orphans.len());
            if !orphans.is_empty() {
                tracing::warn!(jobs = orphans.len(), "jobs of dead workers go to others");
            }
            is_full |= fills_a_batch(orphans.len());
            self.wake(orphans).await?;
        }
        is_full |= fills_a_batch(self.close_over().await?);
        if self.worker.0.broker.health().publishing {
            let due = store.dispatch_due(BATCH).await?;
            is_full |= fills_a_batch(due.len());
            self.wake(due).await?;
            self.publish_stored().await?;
        }
        if self.rare <= Instant::now() {
            self.rare = Instant::now() + RARELY;
            let stranded = store.dispatch_stranded(BATCH).await?;
            self.wake(stranded).await?;
            store.apply_kept_cancels().await?;
        }
        if is_full {
            return Ok(Duration::ZERO);
        }
        let moment = store.next_moment().await?;
        Ok(moment.map_or(TICK, |moment| TICK.min(moment + MARGIN)))
    }

    /// Publishes the wake-ups of jobs that are marked.
    async fn wake(&self, jobs: Vec<Next>) -> Result<(), StoreError> {
        let waking: Vec<_> = jobs.into_iter().map(|next| self.wake_one(next)).collect();
        let woken: Vec<_> = stream::iter(waking)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let lost: Vec<_> = woken.into_iter().flatten().collect();
        if lost.is_empty() {
            return Ok(());
        }
        self.worker.0.store.wake_again(&lost).await
    }

    /// The job, if its wake-up did not get out.
    async fn wake_one(&self, next: Next) -> Option<JobId> {
        let worker = &self.worker.0;
        let message = outgoing::wake_up(worker.broker.names(), next);
        meter::dispatched();
        crash::before(Act::PublishWakeUp);
        let error = match timeout(WAKING, worker.publisher.publish(message)).await {
            Ok(Ok(())) => {
                crash::after(Act::PublishWakeUp);
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "the broker does not confirm it".to_owned(),
        };
        tracing::warn!(job.id = %next.job_id, error, "a wake-up got lost; it is sent again soon");
        Some(next.job_id)
    }

    /// Ends the waiting jobs that were called off or are past their deadline; how many.
    async fn close_over(&self) -> Result<usize, StoreError> {
        let store = &self.worker.0.store;
        let mut ended = 0;
        for job in store.find_over(BATCH).await? {
            match store.close_over(job).await {
                Ok(Some(closed)) => {
                    ended += 1;
                    let worker = self.worker.clone();
                    self.closings
                        .spawn(async move { worker.closed(closed, None).await });
                }
                Ok(None) => {}
                // The others need not wait for it.
                Err(error) => {
                    tracing::warn!(job.id = %job, %error, "a job that is over cannot be ended yet");
                }
            }
        }
        Ok(ended)
    }

    /// Publishes results that are stored and not known to be published; not while an earlier batch
    /// is still on its way.
    async fn publish_stored(&self) -> Result<(), StoreError> {
        if !self.results.is_empty() {
            return Ok(());
        }
        let results = self.worker.0.store.lease_unpublished(BATCH).await?;
        if results.is_empty() {
            return Ok(());
        }
        tracing::info!(results = results.len(), "stored results are published");
        let worker = self.worker.clone();
        self.results.spawn(async move {
            let worker = &worker;
            stream::iter(results)
                .for_each_concurrent(AT_ONCE, async |stored| worker.publish_result(&stored).await)
                .await;
        });
        Ok(())
    }
}

fn fills_a_batch(rows: usize) -> bool {
    u32::try_from(rows).is_ok_and(|rows| rows >= BATCH)
}

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Worker;
use super::loops::Turns;
use crate::broker::{Broker, Delivery, Intake};
use crate::store::Wants;

/// The most deliveries that the broker sends ahead.
const MOST_AHEAD: usize = 256;
/// So many times as many free slots as deliveries are sent ahead, and more shall be.
const WIDER: usize = 4;
/// How long a worker keeps to itself what was sent ahead and has no slot.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long before its time is over a stopping worker gives its jobs back.
const GIVING_BACK: Duration = Duration::from_secs(3);
/// How long a stopping worker waits beyond its time for what is all but done.
const LAST_MOMENT: Duration = Duration::from_millis(500);
/// How often a worker that takes nothing in looks whether it may again.
const LOOKING: Duration = Duration::from_millis(500);

/// Where deliveries that the broker sent ahead wait for a slot.
struct Ahead<'a> {
    intake: Intake,
    prefetch: usize,
    slots: &'a Arc<Semaphore>,
    turns: &'a Turns,
    slot: Option<OwnedSemaphorePermit>,
    /// Since when there has been no slot, where there is none.
    slotless: Instant,
    waiting: VecDeque<(Instant, Delivery)>,
}

/// What comes next.
enum Taken {
    /// A slot, and a delivery for it.
    Delivery(OwnedSemaphorePermit, Box<Delivery>),
    /// No slot has come free for a while, or not enough of them for what was sent ahead.
    NoSlot,
    /// The worker is told to stop, or the broker is.
    Stopped,
}

impl Worker {
    /// Takes jobs in until `stop`, at most `CHAT_CONCURRENCY` at once, each on `runs`.
    ///
    /// While no slot is free it takes nothing from the broker; and what was sent ahead and waits for
    /// too long goes to Postgres with a wake-up: a busy worker never sits on a job that an idle one
    /// could do.
    ///
    /// `abandon` drops every run where it stands; its job stays as its last entry left it.
    pub async fn take_in(
        &self,
        runs: &TaskTracker,
        stop: &CancellationToken,
        abandon: &CancellationToken,
    ) {
        let concurrency = usize::try_from(self.0.config.worker.concurrency).unwrap_or(usize::MAX);
        let slots = Arc::new(Semaphore::new(concurrency));
        let turns = &self.0.loops.intake;
        while !stop.is_cancelled() {
            self.unclogged(stop).await;
            let Some(Ok(slot)) = stop
                .run_until_cancelled(turns.awaiting(Arc::clone(&slots).acquire_owned()))
                .await
            else {
                return;
            };
            drop(slot);
            let mut ahead = Ahead::new(&self.0.broker, &slots, turns);
            let spawn = |slot: OwnedSemaphorePermit, delivery: Delivery| {
                self.0.has_consumed.store(true, Ordering::Relaxed);
                let (worker, abandon) = (self.clone(), abandon.clone());
                runs.spawn(async move {
                    abandon
                        .run_until_cancelled(worker.handle(delivery, Wants::ToRun))
                        .await;
                    drop(slot);
                });
            };
            let clogged = || self.0.is_clogged.load(Ordering::Relaxed);
            ahead.take_while_it_can(stop, clogged, spawn).await;
            while let Some(delivery) = ahead.rest().await {
                match Arc::clone(&slots).try_acquire_owned() {
                    Ok(slot) if !stop.is_cancelled() && !clogged() => spawn(slot, delivery),
                    Ok(_) | Err(_) => {
                        let worker = self.clone();
                        runs.spawn(worker.handle(delivery, Wants::ToHandOver));
                    }
                }
            }
        }
    }

    /// Waits until every run has ended; those that have not shortly before `end` give
    /// their jobs back to others, with nothing counted as a failure. What is published on the side,
    /// such as the wake-ups of those jobs, gets out first.
    pub async fn drain(&self, runs: &TaskTracker, end: Instant, abandon: &CancellationToken) {
        let patience = end.saturating_duration_since(Instant::now());
        let giving_back = GIVING_BACK.min(patience / 3);
        runs.close();
        self.0.loops.intake.over();
        if timeout_at(end - giving_back, runs.wait()).await.is_err() {
            tracing::warn!(
                jobs = runs.len(),
                "jobs are still running; others go on with them"
            );
            self.0.in_hand.give_back_all();
            let last = end.max(Instant::now() + LAST_MOMENT);
            if timeout_at(last, runs.wait()).await.is_err() {
                tracing::warn!(
                    jobs = runs.len(),
                    "some jobs are left as their last entries are"
                );
                // Before the tool servers end: a call that fails only because they do is no outcome.
                abandon.cancel();
                // It says nothing if they do not end: the process does.
                let _ended = timeout_at(end + LAST_MOMENT, runs.wait()).await;
            }
        }
        self.0.errands.close();
        if timeout_at(end.max(Instant::now() + LAST_MOMENT), self.0.errands.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                messages = self.0.errands.len(),
                "wake-ups or dead letters are unpublished; rows say the same"
            );
        }
    }

    /// Takes no jobs in while too many results wait to be published.
    async fn unclogged(&self, stop: &CancellationToken) {
        while self.0.is_clogged.load(Ordering::Relaxed) && !stop.is_cancelled() {
            self.0.loops.intake.turned();
            stop.run_until_cancelled(tokio::time::sleep(LOOKING)).await;
        }
    }
}

impl<'a> Ahead<'a> {
    /// Has the broker send as many ahead as there are free slots, at least one.
    fn new(broker: &Broker, slots: &'a Arc<Semaphore>, turns: &'a Turns) -> Self {
        let prefetch = slots.available_permits().clamp(1, MOST_AHEAD);
        Self {
            intake: broker.intake(u16::try_from(prefetch).unwrap_or(u16::MAX)),
            prefetch,
            slots,
            turns,
            slot: None,
            slotless: Instant::now(),
            waiting: VecDeque::new(),
        }
    }

    /// Takes deliveries until the worker stops, has no slots for what was sent ahead, or has so many
    /// that more should be.
    async fn take_while_it_can(
        &mut self,
        stop: &CancellationToken,
        is_clogged: impl Fn() -> bool,
        spawn: impl Fn(OwnedSemaphorePermit, Delivery),
    ) {
        while !is_clogged() && self.is_wide_enough() {
            let taken = stop.run_until_cancelled(self.next()).await;
            match taken.unwrap_or(Taken::Stopped) {
                Taken::Delivery(slot, delivery) => spawn(slot, *delivery),
                Taken::NoSlot | Taken::Stopped => return,
            }
        }
    }

    fn is_wide_enough(&self) -> bool {
        self.prefetch == MOST_AHEAD || self.slots.available_permits() < WIDER * self.prefetch
    }

    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Taken {
        loop {
            self.turns.turned();
            if self.slot.is_none() {
                // The oldest of those that wait, or the wait itself where none does.
                let oldest = self.waiting.front().map(|(since, _)| *since);
                let since = oldest.map_or(self.slotless, |oldest| oldest.min(self.slotless));
                tokio::select! {
                    biased;
                    slot = Arc::clone(self.slots).acquire_owned() => match slot {
                        Ok(slot) => self.slot = Some(slot),
                        Err(_closed) => return Taken::Stopped,
                    },
                    () = sleep_until(since + PATIENCE) => return Taken::NoSlot,
                    delivery = self.intake.next() => match delivery {
                        Some(delivery) => self.waiting.push_back((Instant::now(), delivery)),
                        None => return Taken::Stopped,
                    },
                }
            } else if self.waiting.is_empty() {
                match self.turns.awaiting(self.intake.next()).await {
                    Some(delivery) => self.waiting.push_back((Instant::now(), delivery)),
                    None => return Taken::Stopped,
                }
            }
            if let Some((_, delivery)) = self.waiting.pop_front_if(|_| self.slot.is_some())
                && let Some(slot) = self.slot.take()
            {
                self.slotless = Instant::now();
                return Taken::Delivery(slot, Box::new(delivery));
            }
        }
    }

    /// What was sent ahead and not taken; from its first call on the broker sends no more.
    async fn rest(&mut self) -> Option<Delivery> {
        self.turns.turned();
        self.slot = None;
        self.intake.stop().await;
        match self.waiting.pop_front() {
            Some((_, delivery)) => Some(delivery),
            None => self.intake.next().await,
        }
    }
}

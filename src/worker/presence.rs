use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Worker;
use crate::ids::JobId;
use crate::runner::Halt;
use crate::store::{Notice, OwnJob, Session, StoreError, Wants};

const BEAT: Duration = Duration::from_secs(2);
/// A heartbeat that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before a lost session is made anew.
const PAUSE: Duration = Duration::from_millis(500);
/// How long signing off may take.
const LEAVE: Duration = Duration::from_secs(1);
/// The next heartbeat after something was called off that is not in hand.
const SOON: Duration = Duration::from_millis(300);
/// How long a worker that lost its session takes nobody for dead: a database that came back has
/// lost everybody's.
const TRUCE: Duration = Duration::from_secs(15);

/// What this worker's own session allows it. A clone is the same.
#[derive(Clone, Default)]
pub(super) struct Judgement(Arc<Standing>);

#[derive(Default)]
struct Standing {
    is_present: AtomicBool,
    may_judge: AtomicBool,
}

impl Judgement {
    /// Whether it may take others for dead.
    pub(super) fn may_judge(&self) -> bool {
        self.0.may_judge.load(Ordering::Relaxed)
    }

    /// Whether it has a session of its own.
    pub(super) fn is_present(&self) -> bool {
        self.0.is_present.load(Ordering::Relaxed)
    }

    fn set(&self, is_present: bool, may_judge: bool) {
        self.0.is_present.store(is_present, Ordering::Relaxed);
        self.0.may_judge.store(may_judge, Ordering::Relaxed);
    }
}

/// The part of a worker that says that it is alive, and hears what is called off.
pub(super) struct Presence {
    worker: Worker,
    /// When it may judge; none at the first session.
    truce_until: Option<Instant>,
    /// Runs that the database knows and this process does not, as of the last heartbeat.
    strangers: HashMap<JobId, i32>,
    runs: TaskTracker,
}

impl Presence {
    pub(super) fn of(worker: Worker, runs: TaskTracker) -> Self {
        Self {
            worker,
            truce_until: None,
            strangers: HashMap::new(),
            runs,
        }
    }

    /// Keeps a session until `stop`, then signs off.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        while let Some(session) = stop.run_until_cancelled(self.open()).await {
            self.worker.0.pulse.stored(Instant::now());
            if let Some(Err(error)) = stop.run_until_cancelled(self.live(session)).await {
                tracing::warn!(%error, "the session with the database is lost; making another");
            }
            self.worker.0.judgement.set(false, false);
            self.truce_until = Some(Instant::now() + TRUCE);
        }
        let worker = &self.worker.0;
        match timeout(LEAVE, worker.store.sign_off(worker.id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the worker could not sign off"),
            Err(_elapsed) => tracing::warn!("the worker could not sign off in time"),
        }
    }

    /// Opens a session, and says over the pool that the worker is alive as long as that takes: the pool
    /// may reach the database where a session of its own does not.
    async fn open(&mut self) -> Session {
        let worker = Arc::clone(&self.worker.0);
        let opening = async {
            loop {
                match timeout(PATIENCE, worker.store.open_session(&worker.registration)).await {
                    Ok(Ok(session)) => return session,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "there is no session of its own with the database");
                    }
                    Err(_elapsed) => tracing::warn!("a session with the database takes too long"),
                }
                self.truce_until = Some(Instant::now() + TRUCE);
                tokio::time::sleep(PAUSE).await;
            }
        };
        let mut opening = pin!(opening);
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            worker.loops.heartbeat.turned();
            tokio::select! {
                session = &mut opening => return session,
                _ = ticks.tick() => {
                    let sent = Instant::now();
                    let beating = timeout(BEAT, worker.store.register(&worker.registration));
                    if let Ok(Ok(())) = beating.await {
                        worker.pulse.stored(sent);
                    }
                }
            }
        }
    }

    /// Lives with a session until it is lost.
    async fn live(&mut self, mut session: Session) -> Result<(), StoreError> {
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.worker.0.loops.heartbeat.turned();
            let is_over = self.truce_until.is_none_or(|until| until <= Instant::now());
            self.worker.0.judgement.set(true, is_over);
            tokio::select! {
                _ = ticks.tick() => {
                    let sent = Instant::now();
                    let Ok(jobs) = timeout(PATIENCE, session.beat()).await else {
                        return Err(StoreError::SessionLost);
                    };
                    let jobs = jobs?;
                    self.worker.0.pulse.stored(sent);
                    self.compare(jobs, sent);
                }
                notice = session.next() => match notice? {
                    // The heartbeat brings the reason along.
                    Notice::CalledOff(job) if self.worker.0.in_hand.has(job) => ticks.reset_immediately(),
                    Notice::CalledOff(_) => {
                        self.worker.0.sweep_now.notify_one();
                        // A claim of it may be under way here.
                        ticks.reset_after(SOON);
                    }
                    Notice::Due => self.worker.0.sweep_now.notify_one(),
                },
            }
        }
    }

    /// Compares what the database says that this worker runs with what it has in hand. A run that
    /// is missing at two heartbeats got lost, and its job is claimed again. A run whose job is
    /// another's by now is stopped.
    fn compare(&mut self, jobs: Vec<OwnJob>, sent: Instant) {
        let ours = jobs.iter().map(|job| job.id).collect();
        self.worker.0.in_hand.let_go_of_others(&ours, sent);
        let mut strangers = HashMap::new();
        for job in jobs {
            if let Some(called_off) = job.called_off {
                let halt = Halt::CalledOff(called_off);
                self.worker.0.in_hand.pull(job.id, halt);
            }
            if self.worker.0.in_hand.has(job.id) {
                continue;
            }
            if self.strangers.get(&job.id) == Some(&job.attempt) {
                tracing::warn!(job.id = %job.id, "a run got lost; its job is claimed again");
                let worker = self.worker.clone();
                self.runs
                    .spawn(async move { worker.handle_known(job.id, Wants::ToRun).await });
            } else {
                strangers.insert(job.id, job.attempt);
            }
        }
        self.strangers = strangers;
    }
}

/// This machine's name, for people.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

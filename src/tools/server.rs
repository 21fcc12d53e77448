//! One tool server: its pool of processes, what is known of its tools, and the task that keeps a
//! process ready.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{BuildError, Object, Pool, PoolError, QueueMode};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::breaker::{Breaker, Turn};
use super::child::{Nursery, Vitals};
use super::error::StartError;
use super::listing::Listing;
use super::mcp::Era;
use super::process::{Process, Starter};
use super::toolbox::ServerHealth;
use crate::config::ServerConfig;

/// A process taken out of the pool for one call.
pub(super) type Lease = Object<Starter>;

/// Whether a server's tools can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Its first process is being started.
    Starting,
    /// At least one process has started, and no later start failed since.
    Ready,
    /// It has no process, and the last start failed.
    Down {
        /// Why.
        reason: String,
    },
}

/// What the pool and the keeper share.
#[derive(Debug)]
pub(super) struct Core {
    config: ServerConfig,
    nursery: Nursery,
    vitals: Arc<Vitals>,
    changed: Arc<Notify>,
    state: watch::Sender<ServerState>,
    listing: Mutex<Option<Arc<Listing>>>,
    /// Grows whenever what jobs may be offered changes; one number for all servers.
    version: Arc<AtomicU64>,
    breaker: Mutex<Breaker>,
    /// Held by the one that starts a process of a server that failed to start.
    trying: tokio::sync::Mutex<()>,
    discovers: AtomicBool,
}

/// A tool server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    core: Arc<Core>,
    pool: Pool<Starter>,
}

impl Core {
    pub(super) fn config(&self) -> &ServerConfig {
        &self.config
    }

    pub(super) fn nursery(&self) -> &Nursery {
        &self.nursery
    }

    pub(super) fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Starts a process when the breaker lets it, and keeps the books about it.
    pub(super) async fn start_process(&self) -> Result<Process, StartError> {
        let _turn = self.turn().await?;
        match Box::pin(self.start_in_some_era()).await {
            Ok((process, tools)) => {
                self.lock_breaker().succeeded();
                self.learn(tools, Learnt::AtStart);
                Ok(process)
            }
            Err(error) => {
                self.note_failure(&error);
                Err(error)
            }
        }
    }

    /// Waits for the turn to start a process. As long as starts fail they are made one by one.
    async fn turn(&self) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>, StartError> {
        let mut turn = None;
        loop {
            let failing = self.lock_breaker().is_failing();
            if failing && turn.is_none() {
                turn = Some(self.trying.lock().await);
                continue;
            }
            let told = self
                .lock_breaker()
                .ask(Instant::now(), self.config.start_timeout);
            match told {
                Turn::Go => return Ok(turn),
                Turn::Wait(left) => tokio::time::sleep(left).await,
                Turn::Refuse(error) => return Err(error),
            }
        }
    }

    /// Servers of either era refuse the other's handshake, some by ending; what worked is remembered.
    async fn start_in_some_era(&self) -> Result<(Process, Vec<Value>), StartError> {
        let discovers = self.discovers.load(Ordering::Relaxed);
        let era = |discovers| {
            if discovers {
                Era::Discovery
            } else {
                Era::Handshake
            }
        };
        match Process::start(self, era(discovers)).await {
            Err(refused @ StartError::Refused(_)) => {
                let other = Process::start(self, era(!discovers)).await;
                // Where neither works, the first refusal tells more.
                let started = other.map_err(|_error| refused)?;
                self.discovers.store(!discovers, Ordering::Relaxed);
                Ok(started)
            }
            started => started,
        }
    }

    fn note_failure(&self, error: &StartError) {
        let (server, reason) = (&self.config.name, error.to_string());
        tracing::warn!(tool.server = server, reason, "a tool server did not start");
        self.lock_breaker()
            .failed(Instant::now(), &reason, fastrand::f64());
        if self.vitals.ready.load(Ordering::Relaxed) == 0 {
            let down = ServerState::Down { reason };
            self.state.send_replace(down);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes a list of tools in.
    fn learn(&self, source: Vec<Value>, when: Learnt) {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = listing
            .as_ref()
            .is_some_and(|listing| listing.is_of(&source));
        let ready = *self.state.borrow() == ServerState::Ready;
        if known && ready {
            return;
        }
        if !known && ready && when == Learnt::AtStart && listing.is_some() {
            // Some servers list more once they have been running for a moment: look again then.
            self.changed.notify_one();
            return;
        }
        if !known {
            *listing = Some(Arc::new(Listing::read(&self.config.name, source)));
        }
        drop(listing);
        self.state.send_replace(ServerState::Ready);
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(super) fn listing(&self) -> Option<Arc<Listing>> {
        let listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        listing.as_ref().map(Arc::clone)
    }

    fn lock_breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a list of tools was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Learnt {
    AtStart,
    Later,
}

impl Server {
    /// A server without a process yet.
    pub(super) fn new(
        config: &ServerConfig,
        nursery: &Nursery,
        version: &Arc<AtomicU64>,
    ) -> Result<Self, BuildError> {
        let core = Arc::new(Core {
            config: config.clone(),
            nursery: nursery.clone(),
            vitals: Arc::default(),
            changed: Arc::default(),
            state: watch::Sender::new(ServerState::Starting),
            listing: Mutex::default(),
            version: Arc::clone(version),
            breaker: Mutex::default(),
            trying: tokio::sync::Mutex::default(),
            discovers: AtomicBool::new(false),
        });
        let pool = Pool::builder(Starter(Arc::clone(&core)))
            .max_size(config.pool.size)
            // Few processes stay warm, the others grow old.
            .queue_mode(QueueMode::Lifo)
            .build()?;
        Ok(Self { core, pool })
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// A process for one call: a free one, or a new one while there are fewer than the pool's size.
    pub(super) async fn lease(&self) -> Result<Lease, PoolError<StartError>> {
        self.pool.get().await
    }

    pub(super) fn state(&self) -> ServerState {
        self.core.state.borrow().clone()
    }

    /// Waits until the first start has succeeded or failed, at most as long as a start may take.
    pub(super) async fn first_start(&self) {
        if *self.core.state.borrow() != ServerState::Starting {
            return;
        }
        let mut state = self.core.state.subscribe();
        let started = state.wait_for(|state| *state != ServerState::Starting);
        // Who asks later finds the state.
        tokio::time::timeout(self.core.config.start_timeout, started)
            .await
            .ok();
    }

    pub(super) fn health(&self) -> ServerHealth {
        let (config, vitals) = (&self.core.config, &self.core.vitals);
        ServerHealth {
            name: config.name.clone(),
            state: self.state(),
            processes: vitals.alive.load(Ordering::Relaxed),
            starts: vitals.starts.load(Ordering::Relaxed),
            required: config.required,
            tools: self.core.listing().map_or(0, |listing| listing.tools.len()),
        }
    }

    /// Gives no process out any more.
    pub(super) fn close(&self) {
        self.pool.close();
    }

    /// Keeps one process ready and the list of tools fresh, for ever.
    pub(super) async fn keep(&self) {
        /// A process that lives shorter than this counts as a failed start.
        const HEALTHY: Duration = Duration::from_secs(10);
        /// Changes come in bursts.
        const DEBOUNCE: Duration = Duration::from_millis(200);
        let mut early_deaths = 0_u32;
        loop {
            if !self.ensure().await {
                let left = self.core.lock_breaker().left(Instant::now());
                tokio::time::sleep(left.max(Duration::from_millis(20))).await;
                continue;
            }
            let ready_since = Instant::now();
            tokio::select! {
                () = self.core.changed.notified() => {
                    tokio::time::sleep(DEBOUNCE).await;
                    self.refresh().await;
                }
                () = self.core.vitals.lost.notified() => {}
                () = self.core.vitals.died.notified() => {
                    let healthy = ready_since.elapsed() >= HEALTHY;
                    early_deaths = if healthy { 0 } else { early_deaths.saturating_add(1) };
                    drop(self.pool.retain(|process, _| process.is_usable()));
                    tokio::time::sleep(super::breaker::backoff(early_deaths)).await;
                }
            }
        }
    }

    /// Sees to it that there is a process; false if there is none and none could be started.
    async fn ensure(&self) -> bool {
        self.core.vitals.ready.load(Ordering::Relaxed) > 0 || self.lease().await.is_ok()
    }

    async fn refresh(&self) {
        let Ok(mut lease) = self.lease().await else {
            return;
        };
        match lease.list(self.core.config.start_timeout).await {
            Ok(tools) => self.core.learn(tools, Learnt::Later),
            Err(error) => {
                let server = &self.core.config.name;
                tracing::warn!(tool.server = server, %error, "tools cannot be listed again");
                drop(Lease::take(lease));
            }
        }
    }
}

//! One tool server: its processes, and the task that keeps one of them ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::breaker::backoff;
use super::child::Nursery;
use super::core::{Core, Learnt};
use super::jobs::Jobs;
use super::pool::{Key, Lease, LeaseError, Processes};
use super::toolbox::ServerHealth;
use crate::config::{ServerConfig, Transport};
use crate::ids::{JobId, UserId};

/// A tool server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    core: Arc<Core>,
    pool: Processes,
}

impl Server {
    /// A server without a process yet.
    pub(super) fn new(
        config: &ServerConfig,
        nursery: &Nursery,
        version: &Arc<AtomicU64>,
        jobs: &Arc<Jobs>,
    ) -> Self {
        let core = Arc::new(Core::new(config, nursery, version));
        let pool = Processes::new(&core, jobs);
        Self { core, pool }
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// For whom a call of this job and user wants its process.
    pub(super) fn key(&self, job: JobId, user: &UserId) -> Key {
        Key::new(self.core.config().pool.isolation, job, user)
    }

    /// A process for one call.
    pub(super) async fn lease(&self, key: &Key) -> Result<Lease, LeaseError> {
        self.pool.lease(key).await
    }

    /// The job has ended.
    pub(super) fn end(&self, job: JobId) {
        self.pool.end(job);
    }

    pub(super) fn health(&self) -> ServerHealth {
        let (config, vitals) = (self.core.config(), self.core.vitals());
        let listing = self.core.listing();
        ServerHealth {
            name: config.name.clone(),
            state: self.core.state(),
            processes: vitals.alive.load(Ordering::Relaxed),
            starts: vitals.starts.load(Ordering::Relaxed),
            required: config.required,
            transport: match config.transport {
                Transport::Stdio(_) => "stdio",
                Transport::Http(_) => "http",
            },
            tools: listing.as_ref().map_or(0, |listing| listing.tools.len()),
            about: self.core.about(),
            warnings: listing.map_or_else(Vec::new, |listing| listing.warnings.clone()),
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
        /// Between tries, however they fail.
        const PAUSE: Duration = Duration::from_millis(20);
        /// Changes come in bursts.
        const DEBOUNCE: Duration = Duration::from_millis(200);
        let (changed, vitals) = (self.core.changed(), self.core.vitals());
        let mut early_deaths = 0_u32;
        loop {
            if self.pool.wants() {
                // Before the pool holds room for it.
                tokio::time::sleep(self.core.rest()).await;
                if self.pool.stock().await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            let ready_since = Instant::now();
            tokio::select! {
                () = changed.notified() => {
                    tokio::time::sleep(DEBOUNCE).await;
                    self.refresh().await;
                }
                () = self.core.stale() => self.refresh().await,
                () = vitals.lost.notified() => self.pool.purge(),
                () = vitals.died.notified() => {
                    let healthy = ready_since.elapsed() >= HEALTHY;
                    early_deaths = if healthy { 0 } else { early_deaths.saturating_add(1) };
                    self.pool.purge();
                    tokio::time::sleep(backoff(early_deaths)).await;
                }
            }
        }
    }

    async fn refresh(&self) {
        self.core.begin_refresh();
        let Some(lease) = self.pool.any().await else {
            return;
        };
        match lease.list(self.core.config().start_timeout).await {
            Ok(tools) => self.core.learn(tools, Learnt::Later),
            Err(error) => {
                let server = &self.core.config().name;
                tracing::warn!(tool.server = server, %error, "tools cannot be listed again");
                lease.retire();
            }
        }
    }
}

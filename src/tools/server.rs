//! One tool server: its processes, and the task that keeps one of them ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::BuildError;

use super::breaker::backoff;
use super::child::Nursery;
use super::core::{Core, Learnt};
use super::pool::{Lease, LeaseError, Processes};
use super::toolbox::ServerHealth;
use crate::config::ServerConfig;

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
    ) -> Result<Self, BuildError> {
        let core = Arc::new(Core::new(config, nursery, version));
        let pool = Processes::new(&core)?;
        Ok(Self { core, pool })
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// A process for one call.
    pub(super) async fn lease(&self) -> Result<Lease, LeaseError> {
        self.pool.lease().await
    }

    pub(super) fn health(&self) -> ServerHealth {
        let (config, vitals) = (self.core.config(), self.core.vitals());
        ServerHealth {
            name: config.name.clone(),
            state: self.core.state(),
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
        let (changed, vitals) = (self.core.changed(), self.core.vitals());
        let mut early_deaths = 0_u32;
        loop {
            if !self.ensure().await {
                let left = self.core.rest();
                tokio::time::sleep(left.max(Duration::from_millis(20))).await;
                continue;
            }
            let ready_since = Instant::now();
            tokio::select! {
                () = changed.notified() => {
                    tokio::time::sleep(DEBOUNCE).await;
                    self.refresh().await;
                }
                () = vitals.lost.notified() => self.pool.purge().await,
                () = vitals.died.notified() => {
                    let healthy = ready_since.elapsed() >= HEALTHY;
                    early_deaths = if healthy { 0 } else { early_deaths.saturating_add(1) };
                    self.pool.purge().await;
                    tokio::time::sleep(backoff(early_deaths)).await;
                }
            }
        }
    }

    /// Sees to it that there is a process; false if there is none and none could be started.
    async fn ensure(&self) -> bool {
        self.core.vitals().ready.load(Ordering::Relaxed) > 0 || self.lease().await.is_ok()
    }

    async fn refresh(&self) {
        let Ok(lease) = self.lease().await else {
            return;
        };
        match lease.list(self.core.config().start_timeout).await {
            Ok(tools) => self.core.learn(tools, Learnt::Later),
            Err(error) => {
                let server = &self.core.config().name;
                tracing::warn!(tool.server = server, %error, "tools cannot be listed again");
                lease.give_up();
            }
        }
    }
}

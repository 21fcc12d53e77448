//! Who is given which process: each call one of its own, or all calls the same.

use std::ops::Deref;
use std::sync::Arc;

use deadpool::managed::{
    BuildError, Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult,
};
use tokio::sync::Mutex;

use super::core::Core;
use super::error::StartError;
use super::process::Process;
use crate::config::Isolation;

/// The processes of one server.
#[derive(Clone, Debug)]
pub(super) enum Processes {
    /// Up to the pool's size of them, each for one call at a time.
    Each(Pool<Starter>),
    /// One, for all calls at once.
    One(Shared),
}

/// The one process that all calls share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    core: Arc<Core>,
    /// Locked while a process is started, so that there is only ever one start.
    current: Arc<Mutex<Option<Arc<Process>>>>,
}

/// A process for one call.
#[derive(Debug)]
pub(super) enum Lease {
    /// Nobody else has it; it goes back when this is dropped.
    Own(Object<Starter>),
    /// Others may have it, too.
    Shared(Arc<Process>),
}

/// Why there is no process.
#[derive(Debug)]
pub(super) enum LeaseError {
    /// None could be started.
    Start(StartError),
    /// None are given out any more.
    Closed,
}

impl Processes {
    /// No process yet.
    pub(super) fn new(core: &Arc<Core>) -> Result<Self, BuildError> {
        let pool = core.config().pool;
        match pool.isolation {
            Isolation::Call => Pool::builder(Starter(Arc::clone(core)))
                .max_size(pool.size)
                // Few processes stay warm, the others grow old.
                .queue_mode(QueueMode::Lifo)
                .build()
                .map(Self::Each),
            Isolation::Shared => Ok(Self::One(Shared {
                core: Arc::clone(core),
                current: Arc::default(),
            })),
        }
    }

    /// A process for one call: one that is free, or a new one while there may be more.
    pub(super) async fn lease(&self) -> Result<Lease, LeaseError> {
        match self {
            Self::Each(pool) => match pool.get().await {
                Ok(process) => Ok(Lease::Own(process)),
                Err(PoolError::Backend(error)) => Err(LeaseError::Start(error)),
                Err(
                    PoolError::Closed
                    | PoolError::Timeout(_)
                    | PoolError::NoRuntimeSpecified
                    | PoolError::PostCreateHook(_),
                ) => Err(LeaseError::Closed),
            },
            Self::One(shared) => shared.lease().await.map_err(LeaseError::Start),
        }
    }

    /// Lets go of the processes that have ended.
    pub(super) async fn purge(&self) {
        match self {
            Self::Each(pool) => drop(pool.retain(|process, _| process.is_usable())),
            Self::One(shared) => {
                shared
                    .current
                    .lock()
                    .await
                    .take_if(|process| !process.is_usable());
            }
        }
    }

    /// Gives no process out any more.
    pub(super) fn close(&self) {
        match self {
            Self::Each(pool) => pool.close(),
            // Whoever starts one now finds that it is ended at once.
            Self::One(shared) => {
                if let Ok(mut current) = shared.current.try_lock() {
                    current.take();
                }
            }
        }
    }
}

impl Shared {
    async fn lease(&self) -> Result<Lease, StartError> {
        let mut current = self.current.lock().await;
        let worn = self.core.config().pool;
        if let Some(process) = current.as_ref()
            && process.is_usable()
            && !process.is_worn(&worn)
        {
            return Ok(Lease::Shared(Arc::clone(process)));
        }
        // Calls that are still under way keep the old one alive until they are done.
        current.take();
        let process = Arc::new(self.core.start_process().await?);
        *current = Some(Arc::clone(&process));
        Ok(Lease::Shared(process))
    }
}

impl Lease {
    /// Sees to it that no later call is given this process; it ends when nobody has it any more.
    pub(super) fn give_up(self) {
        match self {
            Self::Own(process) => Object::take(process).retire(),
            Self::Shared(process) => process.retire(),
        }
    }
}

impl Deref for Lease {
    type Target = Process;

    fn deref(&self) -> &Process {
        match self {
            Self::Own(process) => process,
            Self::Shared(process) => process,
        }
    }
}

/// Makes the processes of one server's pool.
#[derive(Debug)]
pub(super) struct Starter(Arc<Core>);

impl Manager for Starter {
    /// Boxed, so that a lease is cheap to move.
    type Type = Box<Process>;
    type Error = StartError;

    async fn create(&self) -> Result<Box<Process>, StartError> {
        self.0.start_process().await.map(Box::new)
    }

    async fn recycle(&self, process: &mut Box<Process>, _: &Metrics) -> RecycleResult<StartError> {
        if !process.is_usable() {
            Err(RecycleError::message("it ended"))
        } else if process.is_worn(&self.0.config().pool) {
            Err(RecycleError::message("it has served its time"))
        } else {
            Ok(())
        }
    }
}

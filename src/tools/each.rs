//! Processes that serve one call at a time, each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::core::{Core, Who};
use super::error::StartError;
use super::pool::LeaseError;
use super::process::Process;

/// Up to the pool's size of processes.
#[derive(Clone, Debug)]
pub(super) struct Each(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    /// A permit for each process that is called or started. One is started only where none is free,
    /// so that there are never more than permits.
    room: Arc<Semaphore>,
    /// Those that are free. The last one is taken first: few stay warm, the others grow old.
    free: Mutex<Vec<Arc<Process>>>,
}

/// The hold on a process that nobody else has; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Own {
    pool: Each,
    process: Arc<Process>,
    _room: OwnedSemaphorePermit,
}

impl Each {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self(Arc::new(Inner {
            core: Arc::clone(core),
            room: Arc::new(Semaphore::new(core.config().pool.size)),
            free: Mutex::default(),
        }))
    }

    /// A process that is free, or a new one while there may be more.
    pub(super) async fn lease(&self) -> Result<Own, LeaseError> {
        // The keeper may have all the room there is for its next try, and that may take long.
        if self.0.core.has_none()
            && let Some(error) = self.0.core.refusal()
        {
            return Err(LeaseError::Start(error));
        }
        let room = Arc::clone(&self.0.room).acquire_owned().await;
        let room = room.map_err(|_closed| LeaseError::Closed)?;
        if let Some(process) = self.take_free() {
            return Ok(self.own(process, room));
        }
        let (tell, told) = oneshot::channel();
        let pool = self.clone();
        // In a task of its own: one that nobody waits for any more is there for the next.
        self.0.core.nursery().spawn(async move {
            let started = pool.0.core.start_process(Who::Caller).await;
            let own = started.map(|process| pool.own(Arc::new(process), room));
            tell.send(own).ok();
        });
        match told.await {
            Ok(own) => own.map_err(LeaseError::Start),
            Err(_ended) => Err(LeaseError::Closed),
        }
    }

    /// Whether a call could find no process without waiting for a start.
    pub(super) fn wants(&self) -> bool {
        self.free().is_empty() && (self.0.core.has_none() || self.0.core.is_resting())
    }

    /// Starts a process for whoever comes next.
    pub(super) async fn stock(&self) -> Result<(), StartError> {
        // None left: others are starting theirs.
        let Ok(room) = Arc::clone(&self.0.room).try_acquire_owned() else {
            return Ok(());
        };
        let process = self.0.core.start_process(Who::Keeper).await?;
        drop(self.own(Arc::new(process), room));
        Ok(())
    }

    /// Lets go of those that cannot be called.
    pub(super) fn purge(&self) {
        let core = &self.0.core;
        let unfit: Vec<_> = self
            .free()
            .extract_if(.., |process| !core.is_fit(process))
            .collect();
        drop(unfit);
    }

    pub(super) fn close(&self) {
        self.0.room.close();
        let free = std::mem::take(&mut *self.free());
        drop(free);
    }

    fn own(&self, process: Arc<Process>, room: OwnedSemaphorePermit) -> Own {
        Own {
            pool: self.clone(),
            process,
            _room: room,
        }
    }

    fn take_free(&self) -> Option<Arc<Process>> {
        loop {
            let process = self.free().pop()?;
            if self.0.core.is_fit(&process) {
                return Some(process);
            }
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Arc<Process>>> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    pub(super) fn process(&self) -> &Process {
        &self.process
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if !self.pool.0.room.is_closed() && self.pool.0.core.is_fit(&self.process) {
            self.pool.free().push(Arc::clone(&self.process));
        }
    }
}

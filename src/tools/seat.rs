//! A place for one process, started when it is first wanted.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, oneshot};

use super::core::{Core, Who};
use super::pool::LeaseError;
use super::process::Process;

/// A place for one process. It is locked while a process is started, so that there is only ever one
/// start.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat(Arc<Mutex<Seated>>);

/// Who sits there.
#[derive(Debug, Default)]
pub(super) struct Seated {
    pub(super) process: Option<Arc<Process>>,
    /// What it takes of its pool's size, where the seat is one of many.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

impl Seat {
    /// Waits until nobody starts a process there.
    pub(super) async fn lock(&self) -> OwnedMutexGuard<Seated> {
        Arc::clone(&self.0).lock_owned().await
    }

    /// Whether it is this one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// None while a process is started there.
    pub(super) fn try_lock(&self) -> Option<OwnedMutexGuard<Seated>> {
        Arc::clone(&self.0).try_lock_owned().ok()
    }
}

impl Seated {
    /// The process, if it can be called.
    pub(super) fn fit(&self, core: &Core) -> Option<Arc<Process>> {
        let process = self.process.as_ref()?;
        core.is_fit(process).then(|| Arc::clone(process))
    }
}

/// Starts a process for `seated` in a task of its own, which goes on if nobody waits for it any more.
/// `held` is kept until it has ended.
pub(super) async fn start(
    core: &Arc<Core>,
    mut seated: OwnedMutexGuard<Seated>,
    held: impl Send + 'static,
) -> Result<Arc<Process>, LeaseError> {
    // Calls that are still under way keep the old one alive until they are done.
    seated.process = None;
    let (tell, told) = oneshot::channel();
    let starting = Arc::clone(core);
    core.nursery().spawn(async move {
        let started = starting.start_process(Who::Caller).await.map(Arc::new);
        match &started {
            Ok(process) => seated.process = Some(Arc::clone(process)),
            Err(_) => seated.room = None,
        }
        drop(seated);
        // Before the last hold on the seat may end: who is told has the process.
        tell.send(started).ok();
        drop(held);
    });
    match told.await {
        Ok(started) => started.map_err(LeaseError::Start),
        Err(_ended) => Err(LeaseError::Closed),
    }
}

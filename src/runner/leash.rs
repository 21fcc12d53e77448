use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::store::CalledOff;

/// Calls a run off from outside. A clone is the same leash.
#[derive(Clone, Debug, Default)]
pub struct Leash(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    token: CancellationToken,
    why: OnceLock<Halt>,
}

/// Why a run is to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Its job was called off.
    CalledOff(CalledOff),
    /// This worker stops; another goes on with the job.
    GiveBack,
}

impl PartialEq for Leash {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Leash {
    /// Stops the run. The first reason counts.
    pub fn pull(&self, why: Halt) {
        if self.0.why.set(why).is_ok() {
            self.0.token.cancel();
        }
    }

    /// Why the run is to stop, if it is.
    #[must_use]
    pub fn pulled(&self) -> Option<&Halt> {
        self.0.why.get()
    }

    /// Waits until the run is to stop. Dropping the future changes nothing.
    pub async fn wait(&self) {
        self.0.token.cancelled().await;
    }
}

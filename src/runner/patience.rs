use std::time::Duration;

use crate::meter;
use crate::store::StoreError;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// The waits between tries while the database is out of reach.
pub struct Patience {
    what: &'static str,
    pause: Duration,
}

impl Patience {
    /// Patience with one kind of statement.
    #[must_use]
    pub fn with(what: &'static str) -> Self {
        Self { what, pause: FIRST }
    }

    /// Waits before the next try, longer each time.
    ///
    /// # Errors
    /// The error itself, if the database refuses what it is given.
    pub async fn bear(&mut self, error: StoreError) -> Result<(), StoreError> {
        if error.is_about_data() {
            return Err(error);
        }
        meter::commit_failed(self.what);
        tracing::warn!(what = self.what, %error, "the database is out of reach; trying again");
        // Full jitter, so that all runs do not come back at the same moment.
        tokio::time::sleep(self.pause.mul_f64(fastrand::f64())).await;
        self.pause = (self.pause * 2).min(LONGEST);
        Ok(())
    }
}

/// How long one try may take. A connection may be dead without a word (a lost route, a failover): what
/// is sent on it is never answered. Longer than anything waits for a lock.
pub const TRY: Duration = Duration::from_secs(20);

/// Repeats a statement while the database is out of reach: what is in memory is kept until it is
/// stored, since a model's answer was paid for. (A macro, since an async closure that borrows
/// cannot be told to be `Send`.)
macro_rules! insisting {
    ($what:literal, $store:expr, $attempt:expr) => {{
        let mut patience = $crate::runner::Patience::with($what);
        loop {
            let begun = std::time::Instant::now();
            let mut trying = Box::pin($attempt);
            let tried = tokio::select! {
                biased;
                done = &mut trying => done,
                () = tokio::time::sleep($crate::runner::TRY) => Err($store.unanswered()),
            };
            drop(trying);
            match tried {
                Ok(value) => {
                    $crate::meter::committed($what, begun.elapsed());
                    break Ok(value);
                }
                Err(error) => {
                    if let Err(error) = patience.bear(error).await {
                        break Err(error);
                    }
                }
            }
        }
    }};
}

pub(crate) use insisting;

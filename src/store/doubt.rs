use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Error};

/// How long connections are looked at after one did not answer.
const LASTS: Duration = Duration::from_mins(1);
/// How long a connection may take to say that it lives.
const ANSWER: Duration = Duration::from_secs(3);

/// Whether connections of the pool may be dead without a word: a route that was lost, a failover. To
/// ask each before its use would cost a round trip a statement, so they are asked only after one has not
/// answered. A clone is the same doubt.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    origin: Instant,
    until: Arc<AtomicU64>,
}

impl Default for Doubt {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            until: Arc::default(),
        }
    }
}

impl Doubt {
    /// A connection has not answered.
    pub(super) fn raise(&self) {
        let until = self.origin.elapsed() + LASTS;
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.until.store(until, Ordering::Release);
    }

    fn is_raised(&self) -> bool {
        let until = Duration::from_millis(self.until.load(Ordering::Acquire));
        self.origin.elapsed() < until
    }

    /// Looks whether a connection lives, while there is doubt. An error has the pool give it up.
    pub(super) async fn look(&self, connection: &mut PgConnection) -> Result<bool, Error> {
        if !self.is_raised() {
            return Ok(true);
        }
        match tokio::time::timeout(ANSWER, connection.ping()).await {
            Ok(answer) => answer.map(|()| true),
            Err(elapsed) => Err(Error::Io(elapsed.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_lasts_for_a_while() {
        let doubt = Doubt::default();
        assert!(!doubt.is_raised());
        doubt.clone().raise();
        assert!(doubt.is_raised());
    }
}

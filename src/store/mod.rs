//! The record in Postgres: claim, append, finish, publish marks, presence, dead letters, what `show` reads.
//!
//! The only room that names sqlx. Every write of a run is fenced: it locks the job's row with the
//! run's `attempt` and worker, and without that row nothing is written. Locks are taken in one
//! order everywhere: the conversation's row, then the job's. Knows nothing of the broker, the
//! model or the tools. May import the leaves, `config`, `wire` and `conversation`.

mod buried;
mod cancel;
mod claim;
mod claim_locked;
mod claim_rules;
mod dead_letters;
mod error;
mod finish;
mod log;
mod migrate;
mod outbox;
mod record;
mod show;
mod workers;

use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::config::StoreConfig;

pub use buried::{BuriedCount, BuriedFilter, BuriedHead, BuriedLetter, BuriedPlace};
pub use cancel::Cancelled;
pub use claim::{Claimant, Claimed, ClaimedJob, NewJob, Wants};
pub use claim_rules::{Decision, Facts, JobFacts, Owner, Standing, decide};
pub use dead_letters::DeadLetter;
pub use error::StoreError;
pub use finish::{Finished, Next};
pub use log::parse_request;
pub use outbox::StoredResult;
pub use record::{AnswerTo, Ending, NewIteration, NewResult, RouteOf, Run, Written};
pub use show::{ShownCall, ShownIteration, ShownJob};
pub use workers::Registration;

/// How long a caller waits for a free connection before the database counts as out of reach.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// A pool of connections to the configured database; the first is made at once.
    ///
    /// # Errors
    /// The database cannot be reached or refuses us.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        let options: PgConnectOptions = config
            .url
            .expose()
            .parse()
            .map_err(|_secret| StoreError::Url)?;
        // Its log of statements costs a little each, and would show a statement that is slow.
        let options = options
            .application_name("chat-worker")
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(config.connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A ping before each use would be a round trip a statement; a dead connection shows
            // itself in the statement, which is then repeated.
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        Ok(Self { pool })
    }

    /// A store over a pool that a test made.
    #[must_use]
    pub fn over(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Asks the database for its version, as a sign of life.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn ping(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT version() AS "version!""#)
            .fetch_one(&self.pool)
            .await?)
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

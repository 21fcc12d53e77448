//! The record in Postgres: claim, append, finish, publish marks, presence, dead letters, what `show` reads.
//!
//! The only room that names sqlx. Every write of a run is fenced: it locks the job's row with the
//! run's `attempt` and worker, and without that row nothing is written. (The worker is compared by `IS NOT DISTINCT
//! FROM`, which no index serves: a plan by the index of all that a worker runs would read them all.) Locks are taken in one
//! order everywhere: the conversation's row, then the job's. Knows nothing of the broker, the
//! model or the tools. May import the leaves, `config`, `wire` and `conversation`.

mod approval;
mod backlog;
mod buried;
mod cancel;
mod claim;
mod claim_facts;
mod claim_locked;
mod claim_rules;
mod close;
mod columns;
mod dead_letters;
mod doubt;
mod enqueue;
mod error;
mod finish;
mod log;
mod migrate;
mod outbox;
mod park;
mod presence;
mod prune;
mod rates;
mod record;
mod show;
mod spent;
mod summaries;
mod sweep;
mod workers;

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Postgres, Transaction};

use crate::config::StoreConfig;
use crate::crash::{self, Act};
use doubt::Doubt;

pub use approval::{Approvals, Decided, Ruling, Word, WordOn};
pub use backlog::Unfinished;
pub use buried::{BuriedCount, BuriedFilter, BuriedHead, BuriedLetter, BuriedPlace};
pub use cancel::Cancelled;
pub use claim::{Claimant, Claimed, ClaimedJob, NewJob, Parked, Wants};
pub use claim_rules::{
    Closing, Decision, Facts, JobFacts, Owner, Standing, TakeOver, decide, is_suspect,
};
pub use close::{Closed, cancelled};
pub use dead_letters::DeadLetter;
pub use enqueue::{Enqueued, Progress};
pub use error::StoreError;
pub use finish::{Finished, Next};
pub use log::parse_request;
pub use outbox::StoredResult;
pub use presence::{Notice, OwnJob, Session};
pub use prune::{EndedPlace, Prunable, PrunedJobs};
pub use rates::{RateGranted, RateWanted};
pub use record::{AnswerTo, CalledOff, Ending, NewIteration, NewResult, RouteOf, Run, Written};
pub use show::{ShownCall, ShownIteration, ShownJob};
pub use summaries::NewSummary;
pub use workers::Registration;

/// How long a caller waits for a free connection before the database counts as out of reach.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    /// For sessions that must not go through a transaction pooler.
    direct: PgConnectOptions,
    doubt: Doubt,
    /// The most text of a history that is read, in bytes.
    history_bytes: i64,
}

/// The most text of a history that is read where the models' contexts are not known, in bytes.
const HISTORY_BYTES: i64 = 8 * 1024 * 1024;

impl Store {
    /// A pool of connections to the configured database; the first is made at once.
    ///
    /// # Errors
    /// The database cannot be reached or refuses us.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        let pooled = options(config.url.expose())?;
        let direct = options(config.direct_url.expose())?;
        let doubt = Doubt::default();
        let pool = PgPoolOptions::new()
            .max_connections(config.connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A ping before each use would be a round trip a statement; a dead connection shows
            // itself in the statement, which is then repeated.
            .test_before_acquire(false)
            .before_acquire(looking(&doubt))
            .after_release(looking(&doubt))
            .after_connect(|connection, _| Box::pin(bound(connection)))
            .connect_with(pooled)
            .await?;
        Ok(Self {
            pool,
            direct,
            doubt,
            history_bytes: HISTORY_BYTES,
        })
    }

    /// A store over a pool that a test made.
    #[must_use]
    pub fn over(pool: PgPool) -> Self {
        let direct = pool.connect_options().as_ref().clone();
        Self {
            pool,
            direct,
            doubt: Doubt::default(),
            history_bytes: HISTORY_BYTES,
        }
    }

    /// The same, which reads at most about so much text of a conversation's earlier turns: the newest.
    #[must_use]
    pub fn reading_history_up_to(self, bytes: u64) -> Self {
        Self {
            history_bytes: i64::try_from(bytes)
                .unwrap_or(HISTORY_BYTES)
                .min(HISTORY_BYTES),
            ..self
        }
    }

    /// A transaction of more than one statement. A process that is stopped in the middle of it
    /// must not keep its locks, and waiting for somebody else's has an end.
    async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        let begin = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL lock_timeout = '10s'";
        Ok(self.pool.begin_with(begin).await?)
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

    /// What a statement comes to that was given up since nobody answered. Other connections are
    /// looked at for a while then.
    #[must_use]
    pub fn unanswered(&self) -> StoreError {
        self.doubt.raise();
        StoreError::NoAnswer
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Bounds what a statement waits for. Where its caller gives up and hangs up, the server would go on
/// waiting for a lock, and do what nobody asks for any more: it looks whether somebody is there (`PostgreSQL` 14 and
/// later).
async fn bound(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        SELECT set_config(s.name, s.value, false) AS "set"
        FROM (VALUES ('lock_timeout', '10s'), ('client_connection_check_interval', '5s')) AS s (name, value)
        WHERE current_setting(s.name, true) IS NOT NULL
        "#
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}

/// Commits what a transaction did.
async fn commit(tx: Transaction<'_, Postgres>, act: Act) -> Result<(), StoreError> {
    crash::before(act);
    tx.commit().await?;
    crash::after(act);
    Ok(())
}

/// What the pool asks of a connection.
fn looking(
    doubt: &Doubt,
) -> impl Fn(&mut PgConnection, PoolConnectionMetadata) -> BoxFuture<'_, Result<bool, sqlx::Error>>
+ Send
+ Sync
+ 'static
+ use<> {
    let doubt = doubt.clone();
    move |connection, _| {
        let doubt = doubt.clone();
        Box::pin(async move { doubt.look(connection).await })
    }
}

fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options: PgConnectOptions = url.parse().map_err(|_secret| StoreError::Url)?;
    // Its log of statements costs a little each, and would show a statement that is slow.
    Ok(options
        .application_name("chat-worker")
        .disable_statement_logging())
}

//! What the database says when all is over.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use sqlx::postgres::PgPool;
use uuid::Uuid;

/// All rows of the run.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Jobs by id.
    pub(crate) jobs: BTreeMap<Uuid, Job>,
    /// Runs by job, in order.
    pub(crate) attempts: BTreeMap<Uuid, Vec<Attempt>>,
    /// Stored answers of the model by job, in order.
    pub(crate) iterations: BTreeMap<Uuid, Vec<Iteration>>,
    /// Tool calls, as far as they were stored.
    pub(crate) calls: Vec<Call>,
    /// The row of `chat.queue_health`.
    pub(crate) health: Health,
}

/// A row of `chat.jobs`.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Job {
    pub(crate) id: Uuid,
    pub(crate) conversation_id: Uuid,
    pub(crate) turn: Option<i32>,
    pub(crate) status: String,
    pub(crate) attempt: i32,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
}

/// A row of `chat.attempts`.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Attempt {
    pub(crate) job_id: Uuid,
    pub(crate) number: i32,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) outcome: Option<String>,
}

/// A row of `chat.iterations`.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Iteration {
    pub(crate) job_id: Uuid,
    pub(crate) attempt: i32,
}

/// A row of `chat.tool_calls`.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Call {
    pub(crate) job_id: Uuid,
    pub(crate) iteration: i32,
    pub(crate) position: i32,
    pub(crate) tool: String,
    pub(crate) status: String,
    pub(crate) finished_at: Option<DateTime<Utc>>,
}

/// The row of `chat.queue_health`.
#[derive(Clone, Copy, Debug, Default, FromRow, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) waiting: i64,
    pub(crate) running: i64,
    pub(crate) unpublished_results: i64,
}

impl Records {
    /// Reads them.
    pub(crate) async fn load(pool: &PgPool) -> sqlx::Result<Self> {
        let jobs: Vec<Job> = sqlx::query_as(
            "SELECT id, conversation_id, turn, status::text, attempt, error_code, error_message, finished_at FROM chat.jobs",
        )
        .fetch_all(pool)
        .await?;
        let attempts: Vec<Attempt> = sqlx::query_as(
            "SELECT job_id, attempt AS number, started_at, outcome FROM chat.attempts ORDER BY job_id, attempt",
        )
        .fetch_all(pool)
        .await?;
        let iterations: Vec<Iteration> =
            sqlx::query_as("SELECT job_id, attempt FROM chat.iterations ORDER BY job_id, number")
                .fetch_all(pool)
                .await?;
        let calls = sqlx::query_as(
            "SELECT job_id, iteration, position, tool, status::text, finished_at FROM chat.tool_calls",
        )
        .fetch_all(pool)
        .await?;
        Ok(Self {
            jobs: jobs.into_iter().map(|job| (job.id, job)).collect(),
            attempts: by_job(attempts, |attempt| attempt.job_id),
            iterations: by_job(iterations, |iteration| iteration.job_id),
            calls,
            health: Health::load(pool).await?,
        })
    }

    /// The runs of a job.
    pub(crate) fn attempts_of(&self, job: Uuid) -> &[Attempt] {
        self.attempts.get(&job).map_or(&[], Vec::as_slice)
    }

    /// The stored answers of a job.
    pub(crate) fn iterations_of(&self, job: Uuid) -> &[Iteration] {
        self.iterations.get(&job).map_or(&[], Vec::as_slice)
    }
}

impl Health {
    /// Reads it.
    pub(crate) async fn load(pool: &PgPool) -> sqlx::Result<Self> {
        sqlx::query_as("SELECT waiting, running, unpublished_results FROM chat.queue_health")
            .fetch_one(pool)
            .await
    }
}

fn by_job<T>(rows: Vec<T>, job: impl Fn(&T) -> Uuid) -> BTreeMap<Uuid, Vec<T>> {
    let mut map: BTreeMap<_, Vec<T>> = BTreeMap::new();
    for row in rows {
        map.entry(job(&row)).or_default().push(row);
    }
    map
}

use super::outbox::StoredResult;
use super::{Store, StoreError};
use crate::fault::{ErrorCode, Failure};
use crate::ids::JobId;

/// What came of jobs that were handed to the database together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// All are stored, now or before; their ids in order.
    Stored(Vec<JobId>),
    /// One was refused, so none is stored.
    Refused {
        /// Its place among them, from 0.
        at: usize,
        /// Why.
        failure: Failure,
    },
}

/// How far a job is.
#[derive(Clone, Debug)]
pub enum Progress {
    /// There is no such job, or none any more.
    Unknown,
    /// It waits, in line or for something to come.
    Waiting,
    /// A worker has it.
    Running,
    /// It has ended.
    Ended(Box<StoredResult>),
}

impl Store {
    /// Hands jobs to `chat.enqueue`, in their order and in one transaction. They are JSON texts as
    /// their sender wrote them: the database escapes what is to be escaped.
    ///
    /// # Errors
    /// The database fails; unless it did so at the very end, none of them is stored.
    pub async fn enqueue(&self, jobs: &[&str]) -> Result<Enqueued, StoreError> {
        let mut tx = self.pool.begin().await?;
        let mut ids = Vec::with_capacity(jobs.len());
        for (at, job) in jobs.iter().enumerate() {
            let stored =
                sqlx::query_scalar!(r#"SELECT chat.enqueue($1::text::jsonb) AS "id!""#, job)
                    .fetch_one(&mut *tx)
                    .await;
            match stored {
                Ok(id) => ids.push(JobId(id)),
                Err(error) => {
                    let failure = refusal(&error).ok_or(error)?;
                    tx.rollback().await?;
                    return Ok(Enqueued::Refused { at, failure });
                }
            }
        }
        tx.commit().await?;
        Ok(Enqueued::Stored(ids))
    }

    /// How far the job is.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_progress(&self, job: JobId) -> Result<Progress, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let status = sqlx::query_scalar!(
            r#"SELECT status::text AS "status!" FROM chat.jobs WHERE id = $1"#,
            job.0
        )
        .fetch_optional(&mut *connection)
        .await?;
        match status.as_deref() {
            None => Ok(Progress::Unknown),
            Some("queued" | "waiting") => Ok(Progress::Waiting),
            Some("running") => Ok(Progress::Running),
            Some(_) => {
                let result = StoredResult::load(&mut connection, job).await?;
                Ok(Progress::Ended(Box::new(result)))
            }
        }
    }

    /// Those of `jobs` that have ended or are not there.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_settled(&self, jobs: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        let ids: Vec<_> = jobs.iter().map(|job| job.0).collect();
        let settled = sqlx::query_scalar!(
            r#"
            SELECT asked.id AS "id!" FROM unnest($1::uuid[]) AS asked (id)
            WHERE NOT EXISTS (SELECT FROM chat.jobs AS j WHERE j.id = asked.id AND j.finished_at IS NULL)
            "#,
            &ids
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(settled.into_iter().map(JobId).collect())
    }
}

/// What `chat.enqueue` says of a job that it refuses: an SQLSTATE of its own class, and a text that
/// begins with the code.
fn refusal(error: &sqlx::Error) -> Option<Failure> {
    let error = error.as_database_error()?;
    if !error.code()?.starts_with("JB") {
        return None;
    }
    let (code, text) = error.message().split_once(": ")?;
    Some(Failure::new(ErrorCode::parse(code)?, text))
}

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::record::{Ending, NewIteration, NewResult, Record, Run, record};
use super::{Store, StoreError};
use crate::ids::JobId;

/// What came of an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The job has ended, now or by an earlier try of ours.
    Ended {
        /// When.
        finished_at: DateTime<Utc>,
        /// The conversation's next turn, if one was waiting.
        next: Option<Next>,
    },
    /// Somebody else owns the job; nothing was written.
    Fenced,
}

/// A job that is marked queued and wants a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The job.
    pub job_id: JobId,
    /// Its message's priority.
    pub priority: Option<u8>,
}

impl Store {
    /// Ends a job, together with its last entries, and marks the conversation's next turn queued.
    ///
    /// # Errors
    /// The database fails. The write may be repeated.
    pub async fn finish(
        &self,
        run: &Run,
        results: &[NewResult],
        iteration: Option<&NewIteration<'_>>,
        ending: &Ending,
    ) -> Result<Finished, StoreError> {
        let mut entry = Record {
            results,
            iteration,
            ending: Some(ending),
            locks_conversation: true,
        };
        let mut connection = self.pool.acquire().await?;
        let row = Box::pin(record(&mut connection, run, &entry)).await?;
        if let Some(finished_at) = row.finished_at {
            return Ok(Finished::Ended {
                finished_at,
                next: None,
            });
        }
        drop(connection);
        // There is a later turn, or the job is not ours any more.
        let mut tx = self.pool.begin().await?;
        sqlx::query!(
            "SELECT FROM chat.conversations WHERE id = $1 FOR NO KEY UPDATE",
            run.conversation_id.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        entry.locks_conversation = false;
        let row = Box::pin(record(&mut tx, run, &entry)).await?;
        let finished_at = match row.finished_at {
            Some(finished_at) => finished_at,
            None => match already_finished(&mut tx, run).await? {
                Some(finished_at) => finished_at,
                None => return Ok(Finished::Fenced),
            },
        };
        let next = queue_next_turn(&mut tx, run.conversation_id.0).await?;
        tx.commit().await?;
        Ok(Finished::Ended { finished_at, next })
    }
}

/// When an earlier try of this very run ended the job, if it did: a commit whose outcome was unknown.
async fn already_finished(
    connection: &mut sqlx::PgConnection,
    run: &Run,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let finished_at = sqlx::query_scalar!(
        "SELECT finished_at FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id = $3",
        run.job_id.0,
        run.attempt,
        run.worker.0
    );
    Ok(finished_at.fetch_optional(connection).await?.flatten())
}

/// Marks the first turn that waits for its predecessors queued, if all of them have ended. The
/// mark falls due again in a minute, so that a lost wake-up is sent again.
async fn queue_next_turn(
    connection: &mut sqlx::PgConnection,
    conversation: Uuid,
) -> Result<Option<Next>, StoreError> {
    let row = sqlx::query!(
        r#"
        UPDATE chat.jobs SET status = 'queued', wait_reason = NULL, due_at = now() + interval '1 min'
        WHERE id = (
            SELECT id FROM chat.jobs WHERE conversation_id = $1 AND turn IS NOT NULL AND finished_at IS NULL
            ORDER BY turn LIMIT 1
        ) AND status = 'waiting' AND wait_reason = 'turn'
        RETURNING id, priority
        "#,
        conversation
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Next {
        job_id: JobId(row.id),
        priority: row
            .priority
            .and_then(|priority| u8::try_from(priority).ok()),
    }))
}

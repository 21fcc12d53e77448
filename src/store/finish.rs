use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::record::{AnswerTo, CalledOff, Ending, NewIteration, NewResult, Record, Run, record};
use super::{Store, StoreError, commit};
use crate::crash::{self, Act};
use crate::ids::JobId;

/// What came of an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The job has ended, now or by an earlier try of ours.
    Ended {
        /// When.
        finished_at: DateTime<Utc>,
        /// Where its result goes: a repeat that came while it ran may have changed that.
        answer_to: AnswerTo,
        /// The conversation's next turn, if one was waiting.
        next: Option<Next>,
    },
    /// It was called off meanwhile, so that it has to end as cancelled. Its entries are stored.
    CalledOff(CalledOff),
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

impl Next {
    pub(super) fn new(id: Uuid, priority: Option<i16>) -> Self {
        Self {
            job_id: JobId(id),
            priority: priority.and_then(|priority| u8::try_from(priority).ok()),
        }
    }
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
        crash::before(Act::Finish);
        let row = Box::pin(record(&mut connection, run, &entry)).await?;
        if let Some(finished_at) = row.finished_at {
            crash::after(Act::Finish);
            return Ok(Finished::Ended {
                finished_at,
                answer_to: row.answer_to,
                next: None,
            });
        }
        drop(connection);
        if let Some(called_off) = row.called_off {
            return Ok(Finished::CalledOff(called_off));
        }
        // There is a later turn, or the job is not ours any more.
        let mut tx = self.begin().await?;
        sqlx::query!(
            "SELECT FROM chat.conversations WHERE id = $1 FOR NO KEY UPDATE",
            run.conversation_id.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        entry.locks_conversation = false;
        let row = Box::pin(record(&mut tx, run, &entry)).await?;
        if row.finished_at.is_none()
            && let Some(called_off) = row.called_off
        {
            commit(tx, Act::Finish).await?;
            return Ok(Finished::CalledOff(called_off));
        }
        let ended = match row.finished_at {
            Some(finished_at) => Some((finished_at, row.answer_to)),
            None => already_finished(&mut tx, run).await?,
        };
        let Some((finished_at, answer_to)) = ended else {
            return Ok(Finished::Fenced);
        };
        let next = queue_next_turn(&mut tx, run.conversation_id.0).await?;
        commit(tx, Act::Finish).await?;
        Ok(Finished::Ended {
            finished_at,
            answer_to,
            next,
        })
    }
}

/// When an earlier try of this very run ended the job, if it did: a commit whose outcome was unknown.
async fn already_finished(
    connection: &mut sqlx::PgConnection,
    run: &Run,
) -> Result<Option<(DateTime<Utc>, AnswerTo)>, StoreError> {
    let row = sqlx::query!(
        r#"
        SELECT finished_at AS "finished_at!", reply_to, correlation_id FROM chat.jobs
        WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND finished_at IS NOT NULL
          AND EXISTS (
              -- Not if it was taken away, and ended by somebody else.
              SELECT FROM chat.attempts AS a WHERE a.job_id = $1 AND a.attempt = $2 AND a.outcome = jobs.status::text)
        "#,
        run.job_id.0,
        run.attempt,
        run.worker.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| {
        let answer_to = AnswerTo {
            reply_to: row.reply_to,
            correlation_id: row.correlation_id,
        };
        (row.finished_at, answer_to)
    }))
}

/// Marks the first turn that waits for its predecessors queued, if all of them have ended. The
/// mark falls due again soon, so that a lost wake-up is sent again.
pub(super) async fn queue_next_turn(
    connection: &mut sqlx::PgConnection,
    conversation: Uuid,
) -> Result<Option<Next>, StoreError> {
    let row = sqlx::query!(
        r#"
        UPDATE chat.jobs SET status = 'queued', wait_reason = NULL, due_at = now() + interval '10 s', wake_ups = 0
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
    Ok(row.map(|row| Next::new(row.id, row.priority)))
}

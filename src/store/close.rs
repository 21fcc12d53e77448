use sqlx::PgConnection;

use super::claim_rules::Closing;
use super::finish::{Next, queue_next_turn};
use super::outbox::StoredResult;
use super::record::Run;
use super::{Store, StoreError, commit};
use crate::crash::Act;
use crate::fault::{ErrorCode, Failure};
use crate::ids::{ConversationId, JobId};

/// A job that was ended without a run.
#[derive(Debug)]
pub struct Closed {
    /// Its result, and where it goes.
    pub result: StoredResult,
    /// The conversation's next turn, which wants a wake-up.
    pub next: Option<Next>,
    /// Its JSON text, armoured.
    pub request: String,
    /// The number of its last event; none if a run that nobody hears of any more counted them.
    pub events: Option<u64>,
}

impl Closing {
    /// What the job's result says. `reason` is that of who called it off.
    pub(super) fn failure(self, max_attempts: u32, reason: Option<String>) -> Failure {
        match self {
            Self::Exhausted => Failure::new(
                ErrorCode::AttemptsExhausted,
                format!(
                    "the job's worker died, or the job failed, {max_attempts} times (CHAT_MAX_ATTEMPTS)"
                ),
            ),
            Self::CalledOff => cancelled(reason),
            Self::Busy => Failure::new(
                ErrorCode::ConversationBusy,
                "the conversation has an unfinished job, and this one has on_busy=reject",
            ),
        }
    }
}

/// The failure of a job that was called off.
#[must_use]
pub fn cancelled(reason: Option<String>) -> Failure {
    let text = reason.filter(|reason| !reason.is_empty());
    Failure::new(
        ErrorCode::Cancelled,
        text.unwrap_or_else(|| "the job was cancelled".to_owned()),
    )
}

fn overdue() -> Failure {
    Failure::new(
        ErrorCode::DeadlineExceeded,
        "the job's deadline passed while it waited",
    )
}

impl Store {
    /// Jobs that wait and need not any more: called off, or past their deadline.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_over(&self, most: u32) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query_scalar!(
            r#"
            (SELECT id AS "id!" FROM chat.jobs
             WHERE cancel_requested_at IS NOT NULL AND finished_at IS NULL AND status IN ('waiting', 'queued') LIMIT $1)
            UNION
            (SELECT id FROM chat.jobs
             WHERE deadline <= now() AND finished_at IS NULL AND status IN ('waiting', 'queued') LIMIT $1)
            "#,
            i64::from(most)
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(JobId).collect())
    }

    /// Ends a job that waits and was called off, or is past its deadline. None: it is neither any
    /// more, or somebody runs it, or has its rows locked.
    ///
    /// # Errors
    /// The database fails; nothing is stored then, or all of it.
    pub async fn close_over(&self, job: JobId) -> Result<Option<Closed>, StoreError> {
        let mut tx = self.begin().await?;
        let conversation = sqlx::query_scalar!(
            r#"
            SELECT id AS "id!" FROM chat.conversations
            WHERE id = (SELECT conversation_id FROM chat.jobs WHERE id = $1) FOR NO KEY UPDATE SKIP LOCKED
            "#,
            job.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(conversation) = conversation else {
            return Ok(None);
        };
        let row = sqlx::query!(
            r#"
            SELECT cancel_requested_at IS NOT NULL AS "called_off!", cancel_reason FROM chat.jobs
            WHERE id = $1 AND status IN ('waiting', 'queued')
              AND (cancel_requested_at IS NOT NULL OR deadline <= now())
            FOR NO KEY UPDATE SKIP LOCKED
            "#,
            job.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let failure = if row.called_off {
            cancelled(row.cancel_reason)
        } else {
            overdue()
        };
        let closed = close(
            &mut tx,
            job,
            ConversationId(conversation),
            failure,
            LastRun::Others,
        )
        .await?;
        commit(tx, Act::Close).await?;
        Ok(Some(closed))
    }
}

impl Store {
    /// Ends the job of a run that broke off. None: somebody else owns the job.
    ///
    /// # Errors
    /// The database fails; nothing is stored then, or all of it.
    pub async fn close_run(
        &self,
        run: &Run,
        failure: Failure,
    ) -> Result<Option<Closed>, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query!(
            "SELECT FROM chat.conversations WHERE id = $1 FOR NO KEY UPDATE",
            run.conversation_id.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        let owned = sqlx::query!(
            r#"
            SELECT FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id IS NOT DISTINCT FROM $3 AND status = 'running'
            FOR NO KEY UPDATE
            "#,
            run.job_id.0,
            run.attempt,
            run.worker.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        if owned.is_none() {
            return Ok(None);
        }
        let closed = close(
            &mut tx,
            run.job_id,
            run.conversation_id,
            failure,
            LastRun::Ours,
        )
        .await?;
        commit(tx, Act::Close).await?;
        Ok(Some(closed))
    }
}

/// Whose run it is that may still be noted as running when its job is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LastRun {
    /// That of the caller: it ends with the job.
    Ours,
    /// Somebody's who lost the job.
    Others,
}

/// Ends a job under the locks of its conversation and itself; its sums are those of its log. Calls
/// that were under way have an unknown outcome.
pub(super) async fn close(
    tx: &mut PgConnection,
    job: JobId,
    conversation: ConversationId,
    failure: Failure,
    outcome: LastRun,
) -> Result<Closed, StoreError> {
    let status = if failure.code == ErrorCode::Cancelled {
        "cancelled"
    } else {
        "failed"
    };
    let job_row = sqlx::query!(
        r#"
        WITH job AS (
            UPDATE chat.jobs AS j
            SET status = $2::text::chat.job_status, wait_reason = NULL, due_at = NULL, error_code = $3, error_message = $4,
                failures = j.failures + (j.status = 'running' AND $2::text = 'failed')::integer,
                iterations = i.iterations, tool_calls = c.calls, input_tokens = i.input, cached_tokens = i.cached,
                output_tokens = i.output, reasoning_tokens = i.reasoning, cost_usd = i.cost,
                finished_at = now(), publish_due_at = now() + interval '30 s'
            FROM (
                SELECT coalesce(sum(rounds), 0)::integer AS iterations, coalesce(sum(input_tokens), 0)::bigint AS input,
                       coalesce(sum(cached_tokens), 0)::bigint AS cached, coalesce(sum(output_tokens), 0)::bigint AS output,
                       coalesce(sum(reasoning_tokens), 0)::bigint AS reasoning, sum(cost_usd) AS cost
                FROM (
                    SELECT 1 AS rounds, input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_usd
                    FROM chat.iterations WHERE job_id = $1
                    UNION ALL
                    SELECT 0, input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_usd
                    FROM chat.summaries WHERE job_id = $1
                ) AS paid
            ) AS i, (
                SELECT status = 'running' AS ran FROM chat.jobs WHERE id = $1
            ) AS b, (
                SELECT count(*)::integer AS calls FROM chat.tool_calls WHERE job_id = $1 AND finished_at IS NOT NULL
            ) AS c
            WHERE j.id = $1 AND j.finished_at IS NULL
            RETURNING j.id, j.request::text AS request, j.reply_to, j.correlation_id, j.priority, j.events, b.ran
        ), attempt AS (
            UPDATE chat.attempts SET ended_at = now(), outcome = CASE WHEN $5 THEN $2 ELSE 'taken_over' END,
                error_code = CASE WHEN $5 THEN $3 END, error_message = CASE WHEN $5 THEN $4 END
            WHERE job_id = $1 AND ended_at IS NULL
        ), calls AS (
            UPDATE chat.tool_calls SET status = 'interrupted' WHERE job_id = $1 AND status = 'started' AND finished_at IS NULL
        ), dead_letter AS (
            INSERT INTO chat.dead_letters (id, job_id, error_code, error_message, body, properties)
            SELECT gen_random_uuid(), id, $3, $4, convert_to(replace(request, '␛', '\u'), 'UTF8'),
                   json_strip_nulls(json_build_object('message_id', id, 'type', 'chat.job', 'content_type', 'application/json',
                       'reply_to', reply_to, 'correlation_id', correlation_id, 'priority', priority))
            FROM job WHERE $2::text = 'failed'
        )
        SELECT request AS "request!", events AS "events!", ran AS "ran!" FROM job
        "#,
        job.0,
        status,
        failure.code.as_str(),
        failure.message,
        outcome == LastRun::Ours
    )
    .fetch_one(&mut *tx)
    .await?;
    let result = StoredResult::load(&mut *tx, job).await?;
    let next = queue_next_turn(tx, conversation.0).await?;
    Ok(Closed {
        result,
        next,
        request: job_row.request,
        events: u64::try_from(job_row.events).ok().filter(|_| !job_row.ran),
    })
}

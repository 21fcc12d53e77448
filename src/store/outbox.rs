use std::collections::HashSet;

use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::log::usage;
use super::{Store, StoreError};
use crate::chat::ModelOptions;
use crate::crash::{self, Act};
use crate::fault::ErrorCode;
use crate::ids::{ConversationId, JobId};
use crate::wire::{FinishReason, JobResult, Reply, ReplyFormat, ResultError, Status};

/// The stored result of a job, and where it goes.
#[derive(Clone, Debug)]
pub struct StoredResult {
    /// The result.
    pub result: JobResult,
    /// Where its producer wants it.
    pub reply_to: Option<String>,
    /// The producer's correlation id.
    pub correlation_id: Option<String>,
    /// The job's `traceparent`.
    pub traceparent: Option<String>,
    /// Whether this goes to another inbox than the job's own: that it got there says nothing of the
    /// job's own result.
    pub is_copy: bool,
}

impl StoredResult {
    /// Sends this copy to the sender of a repeat.
    pub(super) fn answer_to(&mut self, reply_to: Option<&str>, correlation_id: Option<&str>) {
        self.is_copy = self.reply_to.as_deref() != reply_to;
        self.reply_to = reply_to.map(str::to_owned);
        self.correlation_id = correlation_id.map(str::to_owned);
    }

    /// The result of a job that has ended.
    pub(super) async fn load(
        connection: &mut PgConnection,
        job_id: JobId,
    ) -> Result<Self, StoreError> {
        let row = sqlx::query!(
            r#"
            SELECT conversation_id, user_id, turn, status::text AS "status!", finish_reason, reply, refusal, warnings,
                   error_code, error_message, iterations, tool_calls, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
                   (CASE WHEN cost_usd > 9000000 THEN 9000000 ELSE cost_usd END * 1000000000000)::bigint AS picodollars, model, attempt, received_at, started_at, finished_at AS "finished_at!",
                   metadata AS "metadata: Json<Box<RawValue>>", reply_to, correlation_id, traceparent,
                   (request -> 'options' -> 'response_format')::text AS response_format
            FROM chat.jobs WHERE id = $1
            "#,
            job_id.0
        )
        .fetch_one(connection)
        .await?;
        let damaged = |what: &str| StoreError::Damaged {
            table: "chat.jobs",
            job: job_id.to_string(),
            what: what.to_owned(),
        };
        let status = [Status::Completed, Status::Failed, Status::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == row.status)
            .ok_or_else(|| damaged("status is not that of an ended job"))?;
        let metadata = row
            .metadata
            .map(|json| serde_json::from_str(json.0.get()))
            .transpose();
        let finish_reason = row.finish_reason.as_deref().and_then(FinishReason::parse);
        let message = row.reply.map(|reply| Reply::assistant(reply, row.refusal));
        // Not stored beside the reply, of which it is another form.
        let format = row.response_format.as_deref().and_then(format);
        let parsed = message
            .as_ref()
            .and_then(|reply| reply.parsed(format.as_ref(), finish_reason));
        let count = |number: i32| u32::try_from(number).unwrap_or_default();
        let result = JobResult {
            version: 1,
            job_id,
            conversation_id: Some(ConversationId(row.conversation_id)),
            user_id: Some(row.user_id),
            turn: row.turn.map(count),
            success: status == Status::Completed,
            status,
            finish_reason,
            parsed,
            message,
            error: row.error_code.map(|code| ResultError {
                code: ErrorCode::parse(&code).unwrap_or(ErrorCode::Internal),
                message: row.error_message.unwrap_or_default(),
            }),
            iterations: count(row.iterations),
            tool_calls: count(row.tool_calls),
            usage: usage(
                [
                    row.input_tokens,
                    row.cached_tokens,
                    row.output_tokens,
                    row.reasoning_tokens,
                ],
                row.picodollars,
            ),
            model: row.model,
            attempt: count(row.attempt),
            warnings: row.warnings,
            received_at: row.received_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            metadata: metadata.map_err(|_not_an_object| damaged("metadata is no object"))?,
        };
        Ok(Self {
            result,
            reply_to: row.reply_to,
            correlation_id: row.correlation_id,
            traceparent: row.traceparent,
            is_copy: false,
        })
    }
}

/// What a reply had to be. It was checked when its job came in.
fn format(json: &str) -> Option<ReplyFormat> {
    let options = ModelOptions {
        response_format: serde_json::from_str(json).ok()?,
        ..ModelOptions::default()
    };
    ReplyFormat::of(&options).ok()?
}

impl Store {
    /// Notes that the broker has confirmed the results of these jobs. Rows that somebody has locked are
    /// passed over, since one must not hold up the others: those are returned, and those that were
    /// marked before.
    ///
    /// # Errors
    /// The database fails; the marks may be set again.
    pub async fn mark_published(&self, jobs: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        let ids: Vec<_> = jobs.iter().map(|job| job.0).collect();
        crash::before(Act::Mark);
        let marked = sqlx::query_scalar!(
            r#"
            WITH free AS (
                SELECT id FROM chat.jobs WHERE id = ANY($1) AND result_published_at IS NULL
                FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE chat.jobs AS j SET result_published_at = now() FROM free WHERE j.id = free.id
            RETURNING j.id
            "#,
            &ids
        )
        .fetch_all(&self.pool)
        .await?;
        crash::after(Act::Mark);
        let marked: HashSet<_> = marked.into_iter().map(JobId).collect();
        let passed_over = jobs.iter().filter(|job| !marked.contains(job));
        Ok(passed_over.copied().collect())
    }
}

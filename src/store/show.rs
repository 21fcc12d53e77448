use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::ids::JobId;

/// A job as `show` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct ShownJob {
    /// The job's id.
    pub job_id: Uuid,
    /// Its conversation.
    pub conversation_id: Uuid,
    /// Its place there.
    pub turn: Option<i32>,
    /// Who it speaks for.
    pub user_id: String,
    /// Where it stands.
    pub status: String,
    /// Why it waits.
    pub wait_reason: Option<String>,
    /// Why it ended.
    pub finish_reason: Option<String>,
    /// The reply.
    pub reply: Option<String>,
    /// What kind of error it ended with.
    pub error_code: Option<String>,
    /// What went wrong.
    pub error_message: Option<String>,
    /// What it went on without.
    pub warnings: Vec<String>,
    /// The model.
    pub model: Option<String>,
    /// Runs so far.
    pub attempt: i32,
    /// Tokens of the prompts.
    pub input_tokens: i64,
    /// Tokens of the answers.
    pub output_tokens: i64,
    /// The message's own timestamp.
    pub enqueued_at: Option<DateTime<Utc>>,
    /// When it was taken in.
    pub received_at: DateTime<Utc>,
    /// When it first ran.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When its result was confirmed by the broker.
    pub result_published_at: Option<DateTime<Utc>>,
    /// Its rounds.
    #[serde(default)]
    pub iterations: Vec<ShownIteration>,
}

/// A round as `show` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct ShownIteration {
    /// The round, from 1.
    pub number: i32,
    /// The run that stored it.
    pub attempt: i32,
    /// The model.
    pub model: Option<String>,
    /// What the model said.
    pub content: Option<String>,
    /// Why it stopped.
    pub finish_reason: Option<String>,
    /// Tokens of the prompt.
    pub input_tokens: i64,
    /// Tokens of the answer.
    pub output_tokens: i64,
    /// When the model was asked.
    pub started_at: DateTime<Utc>,
    /// When it had answered.
    pub finished_at: DateTime<Utc>,
    /// The calls it asks for.
    pub tool_calls: Vec<ShownCall>,
}

/// A call as `show` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct ShownCall {
    /// Its place in the round, from 1.
    pub position: i32,
    /// The model's id of it.
    pub call_id: String,
    /// The server.
    pub server: Option<String>,
    /// The tool.
    pub tool: String,
    /// The arguments, as JSON text.
    pub arguments: String,
    /// How it stands.
    pub status: String,
    /// What it came to.
    pub result: Option<String>,
    /// When it was begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it had ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Until when a person may say whether it is made; none: it needs nobody's word.
    pub approval_expires_at: Option<DateTime<Utc>>,
    /// What was said: approved, denied, or expired; none while it waits for that.
    pub approval: Option<String>,
    /// Who said so.
    pub approval_by: Option<String>,
    /// Why.
    pub approval_reason: Option<String>,
    /// When.
    pub approval_at: Option<DateTime<Utc>>,
    #[serde(skip)]
    iteration: i32,
}

impl Store {
    /// A job with its rounds and calls; none if there is no such job.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_shown(&self, job: JobId) -> Result<Option<ShownJob>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let Some(row) = sqlx::query!(
            r#"
            SELECT conversation_id, turn, user_id, status::text AS "status!", wait_reason::text, finish_reason, reply,
                   error_code, error_message, warnings, model, attempt, input_tokens, output_tokens,
                   enqueued_at, received_at, started_at, finished_at, result_published_at
            FROM chat.jobs WHERE id = $1
            "#,
            job.0
        )
        .fetch_optional(&mut *tx)
        .await?
        else {
            return Ok(None);
        };
        let mut calls = sqlx::query_as!(
            ShownCall,
            r#"
            SELECT iteration, position, call_id, server, tool, arguments::text AS "arguments!", status::text AS "status!", result,
                   started_at, finished_at, approval_expires_at, approval::text, approval_by, approval_reason, approval_at
            FROM chat.tool_calls WHERE job_id = $1 ORDER BY iteration, position
            "#,
            job.0
        )
        .fetch_all(&mut *tx)
        .await?;
        let iterations = sqlx::query!(
            r#"
            SELECT number, attempt, model, coalesce(content, refusal) AS content, finish_reason, input_tokens, output_tokens, started_at, finished_at
            FROM chat.iterations WHERE job_id = $1 ORDER BY number
            "#,
            job.0
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let iterations = iterations.into_iter().map(|round| ShownIteration {
            tool_calls: calls
                .extract_if(.., |call| call.iteration == round.number)
                .collect(),
            number: round.number,
            attempt: round.attempt,
            model: round.model,
            content: round.content,
            finish_reason: round.finish_reason,
            input_tokens: round.input_tokens,
            output_tokens: round.output_tokens,
            started_at: round.started_at,
            finished_at: round.finished_at,
        });
        Ok(Some(ShownJob {
            iterations: iterations.collect(),
            job_id: job.0,
            conversation_id: row.conversation_id,
            turn: row.turn,
            user_id: row.user_id,
            status: row.status,
            wait_reason: row.wait_reason,
            finish_reason: row.finish_reason,
            reply: row.reply,
            error_code: row.error_code,
            error_message: row.error_message,
            warnings: row.warnings,
            model: row.model,
            attempt: row.attempt,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            enqueued_at: row.enqueued_at,
            received_at: row.received_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            result_published_at: row.result_published_at,
        }))
    }
}

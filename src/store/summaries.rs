use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::log::usage;
use super::record::{Run, Written, count, number};
use super::{Store, StoreError};
use crate::chat::Usage;
use crate::conversation::{Entry, Summary};
use crate::ids::{ConversationId, JobId};

/// A summary of older turns that is to be stored.
#[derive(Clone, Debug)]
pub struct NewSummary {
    /// What it stands for, and what it says.
    pub summary: Summary,
    /// The model that wrote it, as the provider names it.
    pub model: Option<String>,
    /// What it used.
    pub usage: Usage,
    /// Whether that is an estimate: the server counted nothing.
    pub is_estimated: bool,
    /// Whether what it cost counts for the user's day.
    pub counts_for_user: bool,
    /// When the model was asked.
    pub started_at: DateTime<Utc>,
}

impl Store {
    /// Stores a summary that was made for a run's job, under the run's fence.
    ///
    /// # Errors
    /// The database fails. The write may be repeated.
    pub async fn store_summary(&self, run: &Run, new: &NewSummary) -> Result<Written, StoreError> {
        let cost = new.usage.cost_usd.map(|cost| count(cost.picodollars()));
        let owned = sqlx::query_scalar!(
            r#"
            WITH owned AS (
                SELECT id, user_id FROM chat.jobs
                WHERE id = $1 AND attempt = $2 AND worker_id IS NOT DISTINCT FROM $3 AND status = 'running' FOR NO KEY UPDATE
            ), stored AS (
                INSERT INTO chat.summaries (conversation_id, up_to_turn, job_id, attempt, model, content, input_tokens,
                    cached_tokens, output_tokens, reasoning_tokens, cost_usd, started_at, usage_estimated)
                SELECT $4, $5, id, $2, $6, $7, $8, $9, $10, $11, $12::bigint * 0.000000000001, $13, $15 FROM owned
                -- One that says nothing is no summary.
                ON CONFLICT (conversation_id, up_to_turn) DO UPDATE
                SET job_id = excluded.job_id, attempt = excluded.attempt, model = excluded.model, content = excluded.content,
                    input_tokens = excluded.input_tokens, cached_tokens = excluded.cached_tokens,
                    output_tokens = excluded.output_tokens, reasoning_tokens = excluded.reasoning_tokens,
                    cost_usd = excluded.cost_usd, started_at = excluded.started_at, created_at = now(),
                    usage_estimated = excluded.usage_estimated
                WHERE chat.summaries.content = ''
                RETURNING job_id
            ), spent AS (
                INSERT INTO chat.user_costs AS u (user_id, day, cost_usd)
                SELECT owned.user_id, (now() AT TIME ZONE 'UTC')::date, $12::bigint * 0.000000000001
                FROM stored JOIN owned ON owned.id = stored.job_id WHERE $14 AND $12::bigint > 0
                ON CONFLICT (user_id, day) DO UPDATE SET cost_usd = u.cost_usd + excluded.cost_usd
            )
            SELECT EXISTS (SELECT FROM owned) AS "owned!"
            "#,
            run.job_id.0,
            run.attempt,
            run.worker.0,
            run.conversation_id.0,
            number(new.summary.up_to_turn),
            new.model,
            new.summary.content,
            count(new.usage.input_tokens),
            count(new.usage.cached_tokens),
            count(new.usage.output_tokens),
            count(new.usage.reasoning_tokens),
            cost,
            new.started_at,
            new.counts_for_user,
            new.is_estimated,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(if owned {
            Written::Stored
        } else {
            Written::Fenced
        })
    }
}

/// The newest summary of the turns before `turn`.
pub(super) async fn load_newest(
    connection: &mut PgConnection,
    conversation: ConversationId,
    turn: i32,
) -> Result<Option<Summary>, StoreError> {
    let row = sqlx::query!(
        r#"
        SELECT up_to_turn, content FROM chat.summaries
        WHERE conversation_id = $1 AND up_to_turn < $2 AND content <> '' ORDER BY up_to_turn DESC LIMIT 1
        "#,
        conversation.0,
        turn
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Summary {
        up_to_turn: u32::try_from(row.up_to_turn).unwrap_or_default(),
        content: row.content,
    }))
}

/// The entries of the summaries that were made for a job.
pub(super) async fn load_made_for(
    connection: &mut PgConnection,
    job: JobId,
) -> Result<Vec<Entry>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT input_tokens, cached_tokens, output_tokens, reasoning_tokens,
               (CASE WHEN cost_usd > 9000000 THEN 9000000 ELSE cost_usd END * 1000000000000)::bigint AS picodollars
        FROM chat.summaries WHERE job_id = $1 ORDER BY up_to_turn
        "#,
        job.0
    )
    .fetch_all(connection)
    .await?;
    let entries = rows.into_iter().map(|row| Entry::Summarised {
        usage: usage(
            [
                row.input_tokens,
                row.cached_tokens,
                row.output_tokens,
                row.reasoning_tokens,
            ],
            row.picodollars,
        ),
    });
    Ok(entries.collect())
}

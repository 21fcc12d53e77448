use super::{Store, StoreError};

/// What is unfinished, each counted up to a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Unfinished {
    /// Jobs that a wake-up is on its way for.
    pub queued: i64,
    /// Jobs that some worker runs.
    pub running: i64,
    /// Jobs that wait for an earlier turn of their conversation.
    pub turn: i64,
    /// Jobs that wait to be tried again.
    pub retry: i64,
    /// Jobs that wait for their hour.
    pub schedule: i64,
    /// Jobs that wait for an approval.
    pub approval: i64,
    /// Jobs of `chat.enqueue` that nobody has looked at.
    pub enqueued: i64,
    /// The age in seconds of the oldest of them, running ones left out and those that wait for their
    /// hour or an approval.
    pub oldest_waiting_seconds: f64,
    /// Ended jobs whose result is not known to be published.
    pub unpublished: i64,
}

impl Store {
    /// Counts what is unfinished, each up to `most`. The database gives up after two seconds.
    ///
    /// # Errors
    /// The database fails, or takes longer.
    pub async fn count_unfinished(&self, most: u32) -> Result<Unfinished, StoreError> {
        let begin = "BEGIN READ ONLY; SET LOCAL statement_timeout = '2s'";
        let mut tx = self.pool.begin_with(begin).await?;
        // Ordered by what the partial indexes are ordered by: no plan reads the ended jobs then.
        let row = sqlx::query!(
            r#"
            SELECT
                count(*) FILTER (WHERE status = 'queued') AS "queued!",
                count(*) FILTER (WHERE wait_reason = 'turn') AS "turn!",
                count(*) FILTER (WHERE wait_reason = 'retry') AS "retry!",
                count(*) FILTER (WHERE wait_reason = 'schedule') AS "schedule!",
                count(*) FILTER (WHERE wait_reason = 'approval') AS "approval!",
                count(*) FILTER (WHERE wait_reason = 'enqueued') AS "enqueued!",
                coalesce(extract(epoch FROM now() - min(received_at) FILTER (
                    WHERE status = 'queued' OR wait_reason NOT IN ('schedule', 'approval'))), 0)::double precision AS "oldest!",
                (SELECT count(*) FROM (
                    SELECT FROM chat.jobs WHERE status = 'running' ORDER BY worker_id LIMIT $1
                ) AS running) AS "running!",
                (SELECT count(*) FROM (
                    SELECT FROM chat.jobs WHERE result_published_at IS NULL AND publish_due_at IS NOT NULL
                    ORDER BY publish_due_at LIMIT $1
                ) AS unpublished) AS "unpublished!"
            FROM (
                SELECT status, wait_reason, received_at FROM chat.jobs
                WHERE status IN ('waiting', 'queued') ORDER BY due_at LIMIT $1
            ) AS waiting
            "#,
            i64::from(most)
        )
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Unfinished {
            queued: row.queued,
            running: row.running,
            turn: row.turn,
            retry: row.retry,
            schedule: row.schedule,
            approval: row.approval,
            enqueued: row.enqueued,
            oldest_waiting_seconds: row.oldest,
            unpublished: row.unpublished,
        })
    }
}

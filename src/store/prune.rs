use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, StoreError};

/// A place in the order of jobs that have ended: that of their ends, then of their ids.
pub type EndedPlace = (DateTime<Utc>, Uuid);

/// What can be forgotten of the time up to a moment of the database's clock.
#[derive(Clone, Copy, Debug)]
pub struct Prunable {
    /// The moment.
    pub until: DateTime<Utc>,
    /// Jobs that had ended by then and whose results are out.
    pub jobs: i64,
    /// Dead letters that were put down by then.
    pub dead_letters: i64,
}

/// What one batch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrunedJobs {
    /// Jobs that were deleted, with all that belongs to them.
    pub jobs: u64,
    /// Conversations that were deleted, since no job of theirs was left.
    pub conversations: u64,
    /// Jobs that were left because somebody has them, or their conversation, locked.
    pub in_use: u64,
    /// Where the next batch begins; none if this was the last.
    pub last: Option<EndedPlace>,
}

impl Store {
    /// What is at least as old as `age` and can be forgotten.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_prunable(&self, age: Duration) -> Result<Prunable, StoreError> {
        let prunable = sqlx::query_as!(
            Prunable,
            r#"
            SELECT t.until AS "until!",
                   (SELECT count(*) FROM chat.jobs
                    WHERE finished_at <= t.until AND (result_published_at IS NOT NULL OR publish_due_at IS NULL)) AS "jobs!",
                   (SELECT count(*) FROM chat.dead_letters WHERE created_at <= t.until) AS "dead_letters!"
            FROM (SELECT now() - make_interval(secs => $1) AS until) AS t
            "#,
            age.as_secs_f64()
        );
        Ok(prunable.fetch_one(&self.pool).await?)
    }

    /// Deletes jobs, at most `limit`, in the order of their ends from `after` on, that had ended by
    /// `until` and whose results are out; and their conversations, if nothing is left in them.
    ///
    /// Waits for no lock, and holds those of the conversations for as long as the deletes take: jobs of
    /// these conversations that come meanwhile wait so long.
    ///
    /// # Errors
    /// The database fails; nothing of this batch is deleted then, or all of it.
    pub async fn prune_jobs(
        &self,
        until: DateTime<Utc>,
        after: Option<EndedPlace>,
        limit: i64,
    ) -> Result<PrunedJobs, StoreError> {
        let mut tx = self.begin().await?;
        let found = sqlx::query!(
            r#"
            SELECT id, conversation_id, finished_at AS "finished_at!" FROM chat.jobs
            WHERE finished_at <= $1 AND (result_published_at IS NOT NULL OR publish_due_at IS NULL)
              AND (finished_at, id) > (coalesce($2, '-infinity'::timestamptz), coalesce($3, '00000000-0000-0000-0000-000000000000'::uuid))
            ORDER BY finished_at, id LIMIT $4
            "#,
            until,
            after.map(|(at, _)| at),
            after.map(|(_, id)| id),
            limit
        )
        .fetch_all(&mut *tx)
        .await?;
        let ids: Vec<_> = found.iter().map(|job| job.id).collect();
        let conversations: Vec<_> = found.iter().map(|job| job.conversation_id).collect();
        // A lock that keeps new jobs out: what a statement after it sees of a conversation is all there is.
        let locked = sqlx::query_scalar!(
            "SELECT id FROM chat.conversations WHERE id = ANY($1) FOR UPDATE SKIP LOCKED",
            &conversations
        )
        .fetch_all(&mut *tx)
        .await?;
        let jobs = sqlx::query!(
            r#"
            WITH free AS (
                SELECT id FROM chat.jobs WHERE id = ANY($1) AND conversation_id = ANY($2) AND finished_at IS NOT NULL
                FOR UPDATE SKIP LOCKED
            )
            DELETE FROM chat.jobs AS j USING free WHERE j.id = free.id
            "#,
            &ids,
            &locked
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        let emptied = sqlx::query!(
            r#"
            DELETE FROM chat.conversations AS c
            WHERE c.id = ANY($1) AND NOT EXISTS (SELECT FROM chat.jobs AS j WHERE j.conversation_id = c.id)
            "#,
            &locked
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        let count = u64::try_from(found.len()).unwrap_or(u64::MAX);
        let is_full = i64::try_from(found.len()).is_ok_and(|len| len >= limit);
        Ok(PrunedJobs {
            jobs,
            conversations: emptied,
            in_use: count.saturating_sub(jobs),
            last: found
                .last()
                .filter(|_| is_full)
                .map(|job| (job.finished_at, job.id)),
        })
    }

    /// Deletes the rows of workers that were last heard by `until`, are not alive and have no job;
    /// how many.
    ///
    /// # Errors
    /// The database fails.
    pub async fn prune_workers(&self, until: DateTime<Utc>) -> Result<u64, StoreError> {
        let pruned = sqlx::query!(
            r#"
            DELETE FROM chat.workers AS w
            WHERE w.heartbeat_at <= $1 AND NOT chat.is_alive(w.id)
              AND NOT EXISTS (SELECT FROM chat.jobs AS j WHERE j.worker_id = w.id AND j.status = 'running')
            "#,
            until
        );
        Ok(pruned.execute(&self.pool).await?.rows_affected())
    }

    /// Deletes the cancels of jobs that never came, asked by `until` and older than the day for which
    /// they are kept; how many.
    ///
    /// # Errors
    /// The database fails.
    pub async fn prune_cancels(&self, until: DateTime<Utc>) -> Result<u64, StoreError> {
        let pruned = sqlx::query!(
            "DELETE FROM chat.cancel_requests WHERE requested_at <= least($1, now() - interval '24 h')",
            until
        );
        Ok(pruned.execute(&self.pool).await?.rows_affected())
    }

    /// Deletes what users cost on days before that of `until`; how many rows.
    ///
    /// # Errors
    /// The database fails.
    pub async fn prune_user_costs(&self, until: DateTime<Utc>) -> Result<u64, StoreError> {
        let pruned = sqlx::query!(
            "DELETE FROM chat.user_costs WHERE day < ($1::timestamptz AT TIME ZONE 'UTC')::date",
            until
        );
        Ok(pruned.execute(&self.pool).await?.rows_affected())
    }
}

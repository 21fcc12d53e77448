use std::time::Duration;

use super::finish::Next;
use super::outbox::StoredResult;
use super::{Store, StoreError};
use crate::crash::{self, Act};
use crate::ids::{JobId, WorkerId};

// Each write here is one statement: a sweeper that is stopped in the middle leaves no lock behind,
// and rows that somebody else has locked are passed over, so that sweeps may meet.

impl Store {
    /// Whether this worker sweeps now. It keeps the office by asking again within two seconds; a
    /// lease and no lock, since a stopped process would hold a lock for ever.
    ///
    /// # Errors
    /// The database fails.
    pub async fn stand_for_sweeper(&self, worker: WorkerId) -> Result<bool, StoreError> {
        let elected = sqlx::query_scalar!(
            r#"
            UPDATE chat.installation SET sweeper = $1, swept_until = now() + interval '2 s'
            WHERE sweeper = $1 OR swept_until IS NULL OR swept_until < now()
            RETURNING true AS "elected!"
            "#,
            worker.0
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(elected.unwrap_or(false))
    }

    /// Queues the jobs of dead workers. Whose worker signed off has not failed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn take_from_the_dead(&self, most: u32) -> Result<Vec<Next>, StoreError> {
        crash::before(Act::TakeOver);
        let rows = sqlx::query!(
            r#"
            WITH owner AS MATERIALIZED (
                SELECT DISTINCT worker_id FROM chat.jobs WHERE status = 'running'
            ), dead AS MATERIALIZED (
                SELECT o.worker_id, w.stopped_at IS NULL AS died
                FROM owner AS o LEFT JOIN chat.workers AS w ON w.id = o.worker_id
                WHERE NOT chat.is_alive(o.worker_id)
            ), lost AS (
                SELECT j.id, j.attempt, d.died FROM chat.jobs AS j JOIN dead AS d ON d.worker_id = j.worker_id
                WHERE j.status = 'running' LIMIT $1 FOR NO KEY UPDATE OF j SKIP LOCKED
            ), attempt AS (
                UPDATE chat.attempts AS a SET ended_at = now(), outcome = 'taken_over'
                FROM lost WHERE a.job_id = lost.id AND a.attempt = lost.attempt
            )
            UPDATE chat.jobs AS j SET status = 'queued', failures = j.failures + lost.died::integer,
                deaths = j.deaths + lost.died::integer, wake_ups = 0, due_at = now() + interval '5 s',
                -- Nobody knows how many events the dead one said; this is after all of them.
                events = 1073741824
            FROM lost WHERE j.id = lost.id
            RETURNING j.id, j.priority
            "#,
            i64::from(most)
        )
        .fetch_all(&self.pool)
        .await?;
        if !rows.is_empty() {
            crash::after(Act::TakeOver);
        }
        Ok(rows
            .into_iter()
            .map(|row| Next::new(row.id, row.priority))
            .collect())
    }

    /// How long until there is something to do within the next second: a job falls due or passes its
    /// deadline, or a worker with jobs that has lost its session may be taken for dead.
    ///
    /// # Errors
    /// The database fails.
    pub async fn next_moment(&self) -> Result<Option<Duration>, StoreError> {
        let seconds = sqlx::query_scalar!(
            r#"
            WITH owner AS MATERIALIZED (
                SELECT DISTINCT worker_id FROM chat.jobs WHERE status = 'running'
            )
            SELECT extract(epoch FROM least(
                (SELECT min(due_at) FROM chat.jobs
                 WHERE status IN ('waiting', 'queued') AND due_at > now() AND due_at < now() + interval '1 s'),
                (SELECT min(deadline) FROM chat.jobs
                 WHERE finished_at IS NULL AND status IN ('waiting', 'queued')
                   AND deadline > now() AND deadline < now() + interval '1 s'),
                (SELECT min(w.heartbeat_at) + interval '4 s'
                 FROM owner AS o JOIN chat.workers AS w ON w.id = o.worker_id
                 WHERE w.heartbeat_at > now() - interval '4 s' AND w.heartbeat_at < now() - interval '3 s'
                   AND NOT chat.is_present(o.worker_id))
            ) - now())::double precision AS seconds
            "#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()))
    }

    /// Marks what is due queued: parked jobs whose time has come, and queued ones whose wake-up
    /// seems lost. Each mark falls due again, after a minute first and an hour at last.
    ///
    /// # Errors
    /// The database fails.
    pub async fn dispatch_due(&self, most: u32) -> Result<Vec<Next>, StoreError> {
        crash::before(Act::Dispatch);
        let rows = sqlx::query!(
            r#"
            WITH due AS (
                SELECT id FROM chat.jobs WHERE status IN ('waiting', 'queued') AND due_at <= now()
                ORDER BY due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE chat.jobs AS j SET status = 'queued', wait_reason = NULL, wake_ups = least(j.wake_ups + 1, 100),
                due_at = now() + least(interval '1 min' * power(2, least(j.wake_ups, 10)), interval '1 h')
            FROM due WHERE j.id = due.id
            RETURNING j.id, j.priority
            "#,
            i64::from(most)
        )
        .fetch_all(&self.pool)
        .await?;
        if !rows.is_empty() {
            crash::after(Act::Dispatch);
        }
        Ok(rows
            .into_iter()
            .map(|row| Next::new(row.id, row.priority))
            .collect())
    }

    /// Has jobs fall due soon whose wake-ups did not get out.
    ///
    /// # Errors
    /// The database fails; they fall due later then.
    pub async fn wake_again(&self, jobs: &[JobId]) -> Result<(), StoreError> {
        let ids: Vec<_> = jobs.iter().map(|job| job.0).collect();
        sqlx::query!(
            r#"
            WITH lost AS (
                SELECT id FROM chat.jobs WHERE id = ANY($1) AND status = 'queued' FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE chat.jobs AS j SET due_at = now() + interval '3 s' FROM lost WHERE j.id = lost.id
            "#,
            &ids
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Marks turns queued that wait for nobody: a net under the marks that ends of turns make.
    ///
    /// # Errors
    /// The database fails.
    pub async fn dispatch_stranded(&self, most: u32) -> Result<Vec<Next>, StoreError> {
        crash::before(Act::Dispatch);
        let rows = sqlx::query!(
            r#"
            WITH stranded AS (
                SELECT j.id FROM chat.jobs AS j
                WHERE j.status = 'waiting' AND j.wait_reason = 'turn' AND j.id = (
                    -- A look at an index for each, whatever the planner believes of their number.
                    SELECT e.id FROM chat.jobs AS e
                    WHERE e.conversation_id = j.conversation_id AND e.turn IS NOT NULL AND e.finished_at IS NULL
                    ORDER BY e.turn LIMIT 1)
                LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE chat.jobs AS j SET status = 'queued', wait_reason = NULL, wake_ups = 0, due_at = now() + interval '1 min'
            FROM stranded WHERE j.id = stranded.id
            RETURNING j.id, j.priority
            "#,
            i64::from(most)
        )
        .fetch_all(&self.pool)
        .await?;
        if !rows.is_empty() {
            crash::after(Act::Dispatch);
        }
        Ok(rows
            .into_iter()
            .map(|row| Next::new(row.id, row.priority))
            .collect())
    }

    /// Results that are not known to be published although their time has come, leased to the
    /// caller for half a minute.
    ///
    /// # Errors
    /// The database fails, or a row is damaged.
    pub async fn lease_unpublished(&self, most: u32) -> Result<Vec<StoredResult>, StoreError> {
        crash::before(Act::Lease);
        let ids = sqlx::query_scalar!(
            r#"
            WITH due AS (
                SELECT id FROM chat.jobs
                WHERE result_published_at IS NULL AND publish_due_at IS NOT NULL AND publish_due_at <= now()
                ORDER BY publish_due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE chat.jobs AS j SET publish_due_at = now() + interval '30 s' FROM due WHERE j.id = due.id
            RETURNING j.id
            "#,
            i64::from(most)
        )
        .fetch_all(&self.pool)
        .await?;
        if !ids.is_empty() {
            crash::after(Act::Lease);
        }
        let mut connection = self.pool.acquire().await?;
        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            match StoredResult::load(&mut connection, JobId(id)).await {
                Ok(result) => results.push(result),
                Err(error) if error.is_about_data() => {
                    tracing::error!(job.id = %id, %error, "a result cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    /// How many results are not known to be published, counted up to `most`.
    ///
    /// # Errors
    /// The database fails.
    pub async fn count_unpublished(&self, most: u32) -> Result<u32, StoreError> {
        let count = sqlx::query_scalar!(
            r#"
            SELECT count(*) AS "count!" FROM (
                SELECT FROM chat.jobs WHERE result_published_at IS NULL AND publish_due_at IS NOT NULL LIMIT $1
            ) AS unpublished
            "#,
            i64::from(most)
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Applies cancels to jobs that came in at the same moment, and forgets those of jobs that
    /// never came.
    ///
    /// # Errors
    /// The database fails.
    pub async fn apply_kept_cancels(&self) -> Result<(), StoreError> {
        sqlx::query!(
            r#"
            WITH old AS (
                DELETE FROM chat.cancel_requests WHERE requested_at < now() - interval '24 h'
            ), met AS (
                SELECT j.id, c.reason FROM chat.cancel_requests AS c JOIN chat.jobs AS j ON j.id = c.job_id
                WHERE j.finished_at IS NULL AND j.cancel_requested_at IS NULL AND c.user_id IN ('', j.user_id)
                  AND c.requested_at > now() - interval '24 h'
                FOR NO KEY UPDATE OF j SKIP LOCKED
            ), applied AS (
                UPDATE chat.jobs AS j SET cancel_requested_at = now(), cancel_reason = met.reason
                FROM met WHERE j.id = met.id
                RETURNING j.id
            ), done AS (
                DELETE FROM chat.cancel_requests AS c USING applied WHERE c.job_id = applied.id
            )
            SELECT pg_notify('chat_worker', 'cancel ' || id) FROM applied
            "#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(())
    }
}

use std::time::Duration;

use super::finish::Next;
use super::record::{Run, Written};
use super::{Store, StoreError};
use crate::crash::{self, Act};
use crate::fault::Failure;

impl Store {
    /// Parks a run's job until it is tried again, and counts the failure.
    ///
    /// # Errors
    /// The database fails. The write may be repeated; a repeat of one that was stored finds the
    /// job not running, which reads like a fence.
    pub async fn park(
        &self,
        run: &Run,
        wait: Duration,
        failure: &Failure,
    ) -> Result<Written, StoreError> {
        let code = Some(failure.code.as_str());
        self.set_aside(run, wait, code, &failure.message).await
    }

    /// Parks a run's job that can go on only later, through no failure of anybody's.
    ///
    /// # Errors
    /// As for [`Self::park`].
    pub async fn postpone(
        &self,
        run: &Run,
        wait: Duration,
        why: &str,
    ) -> Result<Written, StoreError> {
        self.set_aside(run, wait, None, why).await
    }

    /// Parks a job; what has an error code is a failure and counts.
    async fn set_aside(
        &self,
        run: &Run,
        wait: Duration,
        code: Option<&str>,
        why: &str,
    ) -> Result<Written, StoreError> {
        crash::before(Act::Park);
        let owned = sqlx::query_scalar!(
            r#"
            WITH owned AS (
                SELECT id FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'running'
                FOR NO KEY UPDATE
            ), job AS (
                UPDATE chat.jobs AS j SET status = 'waiting', wait_reason = 'retry', wake_ups = 0,
                    due_at = now() + make_interval(secs => $4), failures = j.failures + ($5::text IS NOT NULL)::integer, deaths = 0
                FROM owned WHERE j.id = owned.id
            ), attempt AS (
                UPDATE chat.attempts AS a SET ended_at = now(), outcome = 'parked', error_code = $5, error_message = $6
                FROM owned WHERE a.job_id = owned.id AND a.attempt = $2
            )
            SELECT EXISTS (SELECT FROM owned) AS "owned!"
            "#,
            run.job_id.0,
            run.attempt,
            run.worker.0,
            wait.as_secs_f64(),
            code,
            why
        )
        .fetch_one(&self.pool)
        .await?;
        crash::after(Act::Park);
        Ok(written(owned))
    }

    /// Notes how many events a run has said that left its job waiting, so that the next is numbered on.
    ///
    /// # Errors
    /// The database fails. The write may be repeated.
    pub async fn note_events(&self, run: &Run, events: u64) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE chat.jobs SET events = $3 WHERE id = $1 AND attempt = $2 AND finished_at IS NULL",
            run.job_id.0,
            run.attempt,
            i32::try_from(events).unwrap_or(i32::MAX)
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Gives a run's job back, to be run by whoever is woken: nothing failed. Calls under way have
    /// an unknown outcome. None: somebody else owns the job.
    ///
    /// # Errors
    /// The database fails. The write may be repeated.
    pub async fn give_back(&self, run: &Run) -> Result<Option<Next>, StoreError> {
        crash::before(Act::GiveBack);
        let row = sqlx::query!(
            r#"
            WITH owned AS (
                SELECT id FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'running'
                FOR NO KEY UPDATE
            ), attempt AS (
                UPDATE chat.attempts AS a SET ended_at = now(), outcome = 'given_back'
                FROM owned WHERE a.job_id = owned.id AND a.attempt = $2
            ), calls AS (
                UPDATE chat.tool_calls AS c SET status = 'interrupted'
                FROM owned WHERE c.job_id = owned.id AND c.status = 'started' AND c.finished_at IS NULL
            )
            UPDATE chat.jobs AS j SET status = 'queued', wake_ups = 0, due_at = now() + interval '5 s'
            FROM owned WHERE j.id = owned.id
            RETURNING j.id, j.priority
            "#,
            run.job_id.0,
            run.attempt,
            run.worker.0
        )
        .fetch_optional(&self.pool)
        .await?;
        crash::after(Act::GiveBack);
        Ok(row.map(|row| Next::new(row.id, row.priority)))
    }

    /// Marks the calls that a run leaves without an outcome.
    ///
    /// # Errors
    /// The database fails. The write may be repeated.
    pub async fn interrupt_calls(&self, run: &Run) -> Result<(), StoreError> {
        crash::before(Act::Interrupt);
        sqlx::query!(
            r#"
            UPDATE chat.tool_calls AS c SET status = 'interrupted'
            FROM chat.jobs AS j
            WHERE j.id = $1 AND j.attempt = $2 AND j.worker_id = $3 AND j.status = 'running'
              AND c.job_id = j.id AND c.status = 'started' AND c.finished_at IS NULL
            "#,
            run.job_id.0,
            run.attempt,
            run.worker.0
        )
        .execute(&self.pool)
        .await?;
        crash::after(Act::Interrupt);
        Ok(())
    }

    /// Failures and deaths since the last stored entry of a run's job. None: somebody else owns the
    /// job.
    ///
    /// # Errors
    /// The database fails.
    pub async fn failures(&self, run: &Run) -> Result<Option<u32>, StoreError> {
        let failures = sqlx::query_scalar!(
            "SELECT failures FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'running'",
            run.job_id.0,
            run.attempt,
            run.worker.0
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(failures.map(|failures| u32::try_from(failures).unwrap_or_default()))
    }

    /// Whether the run still owns its job.
    ///
    /// # Errors
    /// The database fails.
    pub async fn owns(&self, run: &Run) -> Result<Written, StoreError> {
        let owned = sqlx::query_scalar!(
            r#"
            SELECT EXISTS (
                SELECT FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'running'
            ) AS "owned!"
            "#,
            run.job_id.0,
            run.attempt,
            run.worker.0
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(written(owned))
    }
}

fn written(owned: bool) -> Written {
    if owned {
        Written::Stored
    } else {
        Written::Fenced
    }
}

use std::time::Duration;

use super::finish::Next;
use super::record::{Run, Written};
use super::{Store, StoreError};
use crate::crash::{self, Act};
use crate::fault::Failure;

impl Store {
    /// Parks a run's job until it is tried again, and counts the failure. `events` is the number of
    /// the event that says so: the next goes on from there.
    ///
    /// # Errors
    /// The database fails. The write may be repeated; a repeat of one that was stored finds the
    /// job not running, which reads like a fence.
    pub async fn park(
        &self,
        run: &Run,
        wait: Duration,
        failure: &Failure,
        events: u64,
    ) -> Result<Written, StoreError> {
        let why = (Some(failure.code.as_str()), &*failure.message);
        self.set_aside(run, wait, why, events).await
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
        events: u64,
    ) -> Result<Written, StoreError> {
        self.set_aside(run, wait, (None, why), events).await
    }

    /// Parks a job; what has an error code is a failure and counts.
    async fn set_aside(
        &self,
        run: &Run,
        wait: Duration,
        (code, why): (Option<&str>, &str),
        events: u64,
    ) -> Result<Written, StoreError> {
        crash::before(Act::Park);
        let owned = sqlx::query_scalar!(
            r#"
            WITH owned AS (
                SELECT id FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id IS NOT DISTINCT FROM $3 AND status = 'running'
                FOR NO KEY UPDATE
            ), job AS (
                UPDATE chat.jobs AS j SET status = 'waiting', wait_reason = 'retry', wake_ups = 0,
                    due_at = now() + make_interval(secs => $4), failures = j.failures + ($5::text IS NOT NULL)::integer, deaths = 0,
                    events = $7
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
            why,
            count_of(events)
        )
        .fetch_one(&self.pool)
        .await?;
        crash::after(Act::Park);
        Ok(written(owned))
    }

    /// Gives a run's job back, to be run by whoever is woken: nothing failed. Calls under way have
    /// an unknown outcome. `events` is the number of the run's last event. None: somebody else owns the
    /// job.
    ///
    /// # Errors
    /// The database fails. The write may be repeated.
    pub async fn give_back(&self, run: &Run, events: u64) -> Result<Option<Next>, StoreError> {
        crash::before(Act::GiveBack);
        let row = sqlx::query!(
            r#"
            WITH owned AS (
                SELECT id FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id IS NOT DISTINCT FROM $3 AND status = 'running'
                FOR NO KEY UPDATE
            ), attempt AS (
                UPDATE chat.attempts AS a SET ended_at = now(), outcome = 'given_back'
                FROM owned WHERE a.job_id = owned.id AND a.attempt = $2
            ), calls AS (
                UPDATE chat.tool_calls AS c SET status = 'interrupted'
                FROM owned WHERE c.job_id = owned.id AND c.status = 'started' AND c.finished_at IS NULL
            )
            UPDATE chat.jobs AS j SET status = 'queued', wake_ups = 0, due_at = now() + interval '5 s', events = $4
            FROM owned WHERE j.id = owned.id
            RETURNING j.id, j.priority
            "#,
            run.job_id.0,
            run.attempt,
            run.worker.0,
            count_of(events)
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
            WITH owned AS (
                SELECT id FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id IS NOT DISTINCT FROM $3 AND status = 'running'
                FOR NO KEY UPDATE
            )
            UPDATE chat.tool_calls AS c SET status = 'interrupted'
            FROM owned WHERE c.job_id = owned.id AND c.status = 'started' AND c.finished_at IS NULL
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
            "SELECT failures FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id IS NOT DISTINCT FROM $3 AND status = 'running'",
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
                SELECT FROM chat.jobs WHERE id = $1 AND attempt = $2 AND worker_id IS NOT DISTINCT FROM $3 AND status = 'running'
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

/// The number of an event, as a row holds it.
pub(super) fn count_of(events: u64) -> i32 {
    i32::try_from(events).unwrap_or(i32::MAX)
}

fn written(owned: bool) -> Written {
    if owned {
        Written::Stored
    } else {
        Written::Fenced
    }
}

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use uuid::Uuid;

use super::record::CalledOff;
use super::workers::{Registration, enroll};
use super::{Store, StoreError};
use crate::ids::{JobId, WorkerId};

/// Where SQL functions and claims tell workers what cannot wait for the next heartbeat.
const CHANNEL: &str = "chat_worker";
/// How long making the session may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A worker's own session with the database, outside the pool: the lock on it is the worker's
/// presence, and it hears what is called off.
pub struct Session {
    listener: PgListener,
    registration: Registration,
    holds_lock: bool,
}

/// A job that the database says this worker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnJob {
    /// The job.
    pub id: JobId,
    /// The run.
    pub attempt: i32,
    /// Whether it was called off, and why, if that was said.
    pub called_off: Option<CalledOff>,
}

/// What a session hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A job was called off.
    CalledOff(JobId),
    /// A job may be due.
    Due,
}

/// Key of the advisory lock that shows a worker's presence.
pub(super) fn presence_key(worker: WorkerId) -> i64 {
    let (high, low) = worker.0.as_u64_pair();
    (high ^ low).cast_signed()
}

impl Store {
    /// Opens the worker's own session and takes its lock.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn open_session(&self, registration: &Registration) -> Result<Session, StoreError> {
        // The pool of this one session makes no second connection: a session that was lost must
        // be noticed, not replaced.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(PATIENCE)
            .test_before_acquire(false)
            .connect_with(self.direct.clone())
            .await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        let mut session = Session {
            listener,
            registration: registration.clone(),
            holds_lock: false,
        };
        session.beat().await?;
        Ok(session)
    }
}

impl Session {
    /// Says that the worker is alive; learns which jobs the database says it runs.
    ///
    /// # Errors
    /// The session is lost, and the lock with it.
    pub async fn beat(&mut self) -> Result<Vec<OwnJob>, StoreError> {
        if !self.holds_lock {
            // An earlier session of ours that the server has not given up yet may still have it.
            self.holds_lock = sqlx::query_scalar!(
                r#"SELECT pg_try_advisory_lock($1) AS "locked!""#,
                presence_key(self.registration.id)
            )
            .fetch_one(&mut self.listener)
            .await?;
        }
        enroll(&mut self.listener, &self.registration).await?;
        let rows = sqlx::query!(
            r#"
            SELECT id, attempt, cancel_requested_at IS NOT NULL AS "called_off!", cancel_reason
            FROM chat.jobs WHERE worker_id = $1 AND status = 'running'
            "#,
            self.registration.id.0
        )
        .fetch_all(&mut self.listener)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| OwnJob {
                id: JobId(row.id),
                attempt: row.attempt,
                called_off: row.called_off.then_some(CalledOff {
                    reason: row.cancel_reason,
                }),
            })
            .collect())
    }

    /// Waits for the next thing to hear. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The session is lost, and the lock with it.
    pub async fn next(&mut self) -> Result<Notice, StoreError> {
        loop {
            let Some(notice) = self.listener.try_recv().await? else {
                return Err(StoreError::SessionLost);
            };
            if let Some(notice) = Notice::read(notice.payload()) {
                return Ok(notice);
            }
        }
    }
}

impl Notice {
    /// What a payload says; none for one of a later version.
    fn read(payload: &str) -> Option<Self> {
        match payload.split_once(' ') {
            Some(("cancel", job)) => Uuid::parse_str(job)
                .ok()
                .map(|job| Self::CalledOff(JobId(job))),
            None if payload == "due" => Some(Self::Due),
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_is_read_and_what_is_unknown_is_passed_over() {
        let job = Uuid::from_u128(7);
        assert_eq!(
            Notice::read(&format!("cancel {job}")),
            Some(Notice::CalledOff(JobId(job)))
        );
        assert_eq!(Notice::read("due"), Some(Notice::Due));
        for unknown in ["", "cancel", "cancel x", "cancel ", "more to come"] {
            assert_eq!(Notice::read(unknown), None, "{unknown}");
        }
    }
}

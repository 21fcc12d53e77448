use std::time::Duration;

use chrono::{DateTime, Utc};

use super::columns::places;
use super::park::count_of;
use super::record::{Run, number};
use super::{Store, StoreError, commit};
use crate::crash::{self, Act};
use crate::ids::JobId;

/// What was said of a call that needs a person's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It may be made.
    Approved,
    /// It may not.
    Denied {
        /// Why, if that was said.
        reason: Option<String>,
    },
    /// Nobody said anything in time.
    Expired {
        /// Until when somebody could have.
        at: DateTime<Utc>,
    },
}

/// A call, and what was said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordOn {
    /// The call's place in its round, from 1.
    pub position: u32,
    /// What was said.
    pub word: Word,
}

/// How far the calls of a round are that need a person's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approvals {
    /// All are decided; those that may be made are stored as started.
    Decided(Vec<WordOn>),
    /// Some are not; the job waits for them and is not this run's any more.
    Awaited {
        /// Their places in the round.
        positions: Vec<u32>,
        /// When the time of the last one is up.
        until: DateTime<Utc>,
    },
    /// Somebody else owns the job; nothing was written.
    Fenced,
}

/// What became of a person's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It stands.
    Now,
    /// The same was said before.
    Before,
    /// There is no such job.
    UnknownJob,
    /// The job has no such call.
    UnknownCall,
    /// The call needs nobody's word.
    NotNeeded,
    /// The job had ended before anybody said anything.
    Ended,
    /// The call's time was up.
    Expired,
    /// The call was approved already, and this was a denial.
    ApprovedBefore,
    /// The call was denied already, and this was an approval.
    DeniedBefore,
}

impl Decided {
    /// What is wrong with a word that does not count: the field it is about, and what to say of it.
    #[must_use]
    pub fn complaint(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Now | Self::Before => None,
            Self::UnknownJob => Some(("job_id", "there is no such job")),
            Self::UnknownCall => Some((
                "call_id",
                "the job has no such call; chat.pending_approvals shows what waits",
            )),
            Self::NotNeeded => Some(("call_id", "the call needs nobody's approval")),
            Self::Ended => Some(("job_id", "the job had ended before this came")),
            Self::Expired => Some((
                "call_id",
                "the time to approve the call was up before this came; it counts as denied",
            )),
            Self::ApprovedBefore => {
                Some(("type", "the call was approved already, and that stands"))
            }
            Self::DeniedBefore => Some(("type", "the call was denied already, and that stands")),
        }
    }
}

/// A person's word on a call; its texts are escaped as all stored text is (see [`crate::escape`]).
#[derive(Clone, Copy, Debug)]
pub struct Ruling<'a> {
    /// The job.
    pub job: JobId,
    /// The model's id of the call.
    pub call: &'a str,
    /// Whether it may be made.
    pub approves: bool,
    /// Who says so.
    pub by: Option<&'a str>,
    /// Why.
    pub reason: Option<&'a str>,
}

impl Store {
    /// Looks what was said of the calls at `positions` of a round, which all need a person's word.
    /// Where one is still to be decided the job is parked until it is, or its time is up; else the run
    /// goes on, and those that may be made count as started. `events` is the number of the event that
    /// says that the job waits. A call that did not need anybody's word
    /// when it was stored has `timeout` from now on.
    ///
    /// # Errors
    /// The database fails. The write may be repeated; a repeat of one that parked the job reads like a
    /// fence.
    pub async fn settle_approvals(
        &self,
        run: &Run,
        iteration: u32,
        positions: &[u32],
        timeout: Duration,
        events: u64,
    ) -> Result<Approvals, StoreError> {
        let mut tx = self.begin().await?;
        // A statement of its own: what was said before this lock was to be had is seen after it.
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
            return Ok(Approvals::Fenced);
        }
        let rows = sqlx::query!(
            r#"
            UPDATE chat.tool_calls SET
                approval_expires_at = coalesce(approval_expires_at, now() + make_interval(secs => $4)),
                approval = CASE WHEN approval IS NULL AND approval_expires_at <= now() THEN 'expired' ELSE approval END,
                approval_at = CASE WHEN approval IS NULL AND approval_expires_at <= now() THEN now() ELSE approval_at END
            WHERE job_id = $1 AND iteration = $2 AND position = ANY($3)
            RETURNING position, approval::text, approval_reason, approval_expires_at AS "expires_at!"
            "#,
            run.job_id.0,
            number(iteration),
            &places(Some(positions)),
            timeout.as_secs_f64()
        )
        .fetch_all(&mut *tx)
        .await?;
        let (mut words, mut open, mut until) = (Vec::new(), Vec::new(), None);
        for row in rows {
            let position = u32::try_from(row.position).unwrap_or_default();
            let word = match row.approval.as_deref() {
                None => {
                    open.push(position);
                    until = until.max(Some(row.expires_at));
                    continue;
                }
                Some("approved") => Word::Approved,
                Some("denied") => Word::Denied {
                    reason: row.approval_reason,
                },
                Some(_expired) => Word::Expired { at: row.expires_at },
            };
            words.push(WordOn { position, word });
        }
        let settled = if let Some(until) = until {
            park_until(&mut tx, run, until, events).await?;
            let positions = open;
            Approvals::Awaited { positions, until }
        } else {
            start(&mut tx, run, iteration, &words).await?;
            Approvals::Decided(words)
        };
        commit(tx, Act::Await).await?;
        Ok(settled)
    }

    /// Stores what a person says of a call. `again` if the same may have been obeyed before: a repeat
    /// decides no later call to which the model gave the same id.
    ///
    /// # Errors
    /// The database fails. The same may be asked again, as a repeat.
    pub async fn decide(&self, said: Ruling<'_>, again: bool) -> Result<Decided, StoreError> {
        crash::before(Act::Decide);
        let verdict = if said.approves { "approved" } else { "denied" };
        let outcome = sqlx::query_scalar!(
            r#"SELECT chat.decide($1, $2, $3::text::chat.approval, $4, $5, $6) AS "outcome!""#,
            said.job.0,
            said.call,
            verdict,
            said.by,
            said.reason,
            again
        )
        .fetch_one(&self.pool)
        .await?;
        crash::after(Act::Decide);
        match outcome.as_str() {
            "decided" => Ok(Decided::Now),
            "repeated" => Ok(Decided::Before),
            "unknown_job" => Ok(Decided::UnknownJob),
            "unknown_call" => Ok(Decided::UnknownCall),
            "not_needed" => Ok(Decided::NotNeeded),
            "ended" => Ok(Decided::Ended),
            "expired" => Ok(Decided::Expired),
            "approved" => Ok(Decided::ApprovedBefore),
            "denied" => Ok(Decided::DeniedBefore),
            other => Err(StoreError::Damaged {
                table: "chat.decide",
                job: said.job.to_string(),
                what: format!("it answers {other:?}"),
            }),
        }
    }
}

/// Parks a run's job until its calls' time is up, or somebody decides. Nothing failed.
async fn park_until(
    tx: &mut sqlx::PgConnection,
    run: &Run,
    until: DateTime<Utc>,
    events: u64,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        WITH attempt AS (
            UPDATE chat.attempts SET ended_at = now(), outcome = 'parked' WHERE job_id = $1 AND attempt = $2
        )
        UPDATE chat.jobs SET status = 'waiting', wait_reason = 'approval', wake_ups = 0, deaths = 0, due_at = $3,
            events = $4
        WHERE id = $1
        "#,
        run.job_id.0,
        run.attempt,
        until,
        count_of(events)
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Stores the approved calls as started. They leave at once.
async fn start(
    tx: &mut sqlx::PgConnection,
    run: &Run,
    iteration: u32,
    words: &[WordOn],
) -> Result<(), StoreError> {
    let approved = words.iter().filter(|on| on.word == Word::Approved);
    let approved: Vec<_> = approved.map(|on| on.position).collect();
    if approved.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"
        UPDATE chat.tool_calls SET status = 'started', started_at = now(), attempt = $2
        WHERE job_id = $1 AND iteration = $3 AND position = ANY($4) AND status = 'requested'
        "#,
        run.job_id.0,
        run.attempt,
        number(iteration),
        &places(Some(&approved))
    )
    .execute(tx)
    .await?;
    Ok(())
}

use sqlx::PgConnection;

use super::StoreError;
use super::claim_locked::Claim;
use super::claim_rules::{Facts, JobFacts, Owner, Standing};
use super::log::parse_request;
use crate::wire::OnBusy;

/// What a claim found under its locks.
pub(super) struct Found {
    pub(super) facts: Facts,
    /// Why the job was called off, if that was said.
    pub(super) cancel_reason: Option<String>,
    /// The hash of a stored job's content.
    pub(super) hash: Option<Vec<u8>>,
    /// Whether it is stored and ready for the first time.
    pub(super) is_fresh: bool,
}

/// A row as it is locked.
struct Stored {
    facts: JobFacts,
    turn: Option<i32>,
    hash: Option<Vec<u8>>,
    on_busy: OnBusy,
    called_off: bool,
    cancel_reason: Option<String>,
}

impl Claim<'_> {
    /// Locks the job, and reads what there is.
    pub(super) async fn find(&self, tx: &mut PgConnection) -> Result<Found, StoreError> {
        let stored = self.find_job(tx).await?;
        let around = sqlx::query!(
            r#"
            SELECT EXISTS (
                SELECT FROM chat.jobs
                WHERE conversation_id = $1 AND id <> $2 AND turn < coalesce($3, 2147483647) AND finished_at IS NULL
            ) AS "unfinished!",
            coalesce($4::timestamptz > now(), false) AS "scheduled!",
            kept.job_id IS NOT NULL AS "called_off!", kept.reason
            FROM (VALUES (1)) AS once LEFT JOIN LATERAL (
                SELECT job_id, reason FROM chat.cancel_requests
                WHERE job_id = $2 AND user_id IN ('', $5) AND requested_at > now() - interval '24 h'
                ORDER BY requested_at LIMIT 1
            ) AS kept ON true
            "#,
            self.conversation_id.0,
            self.job_id.0,
            stored.as_ref().and_then(|job| job.turn),
            self.delivery.and_then(|job| job.not_before),
            self.owner
        )
        .fetch_one(&mut *tx)
        .await?;
        let is_new = stored.is_none();
        let on_busy = match (&stored, self.delivery) {
            (Some(job), _) => job.on_busy,
            (None, Some(delivery)) => delivery.on_busy,
            (None, None) => OnBusy::Enqueue,
        };
        let facts = Facts {
            foreign_conversation: self.delivery.is_some_and(|new| new.user_id != self.owner),
            job: stored.as_ref().map(|job| job.facts),
            earlier_turn_unfinished: around.unfinished,
            on_busy,
            scheduled: is_new && around.scheduled,
            called_off: stored
                .as_ref()
                .map_or(around.called_off, |job| job.called_off),
            takes_suspects: self.claimant.takes_suspects,
            max_attempts: self.claimant.max_attempts,
        };
        let is_fresh = stored
            .as_ref()
            .is_some_and(|job| job.facts.standing == Standing::Fresh);
        let (hash, reason) =
            stored.map_or((None, around.reason), |job| (job.hash, job.cancel_reason));
        Ok(Found {
            facts,
            cancel_reason: reason,
            hash,
            is_fresh,
        })
    }

    async fn find_job(&self, tx: &mut PgConnection) -> Result<Option<Stored>, StoreError> {
        let row = sqlx::query!(
            r#"
            SELECT j.request_hash, j.turn, j.status::text AS "status!", j.failures, j.deaths, j.worker_id, j.cancel_reason,
                   j.cancel_requested_at IS NOT NULL AS "called_off!", 
                   -- Once it has its turn nobody asks any more; a long request takes a while to be read.
                   CASE WHEN j.turn IS NULL THEN j.request ->> 'on_busy' END AS on_busy,
                   coalesce(j.status = 'waiting' AND j.wait_reason <> 'turn' AND j.due_at > now(), false) AS "not_due!",
                   CASE WHEN j.status = 'running' THEN chat.is_alive(j.worker_id) ELSE false END AS "owner_alive!",
                   w.stopped_at IS NOT NULL AS "signed_off!",
                   CASE WHEN j.request_hash IS NULL THEN j.request::text END AS request
            FROM chat.jobs AS j LEFT JOIN chat.workers AS w ON w.id = j.worker_id
            WHERE j.id = $1 FOR NO KEY UPDATE OF j
            "#,
            self.job_id.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let owner = if row.worker_id == Some(self.claimant.worker.0) {
            if self.claimant.in_hand {
                Owner::Me
            } else {
                Owner::MeWithoutRun
            }
        } else if row.signed_off {
            Owner::Gone
        } else if row.owner_alive || !self.claimant.may_judge {
            Owner::Alive
        } else {
            Owner::Dead
        };
        let standing = match row.status.as_str() {
            "completed" | "failed" | "cancelled" => Standing::Finished,
            "running" => Standing::Running(owner),
            _ if row.not_due => Standing::NotDue,
            _ if row.turn.is_none() => Standing::Fresh,
            _ => Standing::Ready,
        };
        // A job of chat.enqueue: what it says has not been read by a worker yet.
        let hash = match (row.request_hash, row.request) {
            (Some(hash), _) => Some(hash),
            (None, Some(request)) => parse_request(&request, self.job_id)
                .ok()
                .map(|job| job.content_hash().to_vec()),
            (None, None) => None,
        };
        let same_content = self
            .delivery
            .is_none_or(|new| hash.as_deref() == Some(new.request_hash));
        Ok(Some(Stored {
            facts: JobFacts {
                same_content,
                standing,
                failures: u32::try_from(row.failures).unwrap_or_default(),
                deaths: u32::try_from(row.deaths).unwrap_or_default(),
            },
            turn: row.turn,
            hash,
            on_busy: match row.on_busy.as_deref() {
                Some("reject") => OnBusy::Reject,
                Some("interrupt") => OnBusy::Interrupt,
                Some(_) | None => OnBusy::Enqueue,
            },
            called_off: row.called_off,
            cancel_reason: row.cancel_reason,
        }))
    }
}

use sqlx::PgConnection;

use super::StoreError;
use super::claim::{Claimant, Claimed, ClaimedJob, NewJob, Parked, Wants};
use super::claim_facts::Found;
use super::claim_rules::{Decision, TakeOver, decide, is_suspect};
use super::close::{LastRun, close};
use super::finish::Next;
use super::outbox::StoredResult;
use super::record::Run;
use crate::conversation::History;
use crate::ids::{ConversationId, JobId};
use crate::wire::WaitReason;

/// A claim under way, in its transaction, which holds the lock of the conversation.
pub(super) struct Claim<'a> {
    pub(super) job_id: JobId,
    pub(super) conversation_id: ConversationId,
    /// Whose conversation it is.
    pub(super) owner: String,
    pub(super) delivery: Option<&'a NewJob<'a>>,
    pub(super) claimant: Claimant<'a>,
}

/// The place of a new job in its conversation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// After all there are.
    Next,
    /// None yet: it waits for its time.
    None,
}

impl Claim<'_> {
    /// Decides, and writes what follows.
    pub(super) async fn decide_and_do(
        &self,
        tx: &mut PgConnection,
        found: Found,
    ) -> Result<Claimed, StoreError> {
        match decide(&found.facts) {
            Decision::Conflict => Ok(Claimed::Conflict),
            Decision::Forbidden => Ok(Claimed::Forbidden),
            Decision::Busy => Ok(Claimed::Busy),
            Decision::Republish => {
                let mut result = StoredResult::load(tx, self.job_id).await?;
                if let Some(delivery) = self.delivery {
                    result.answer_to(delivery.reply_to, delivery.correlation_id);
                }
                Ok(Claimed::Finished(Box::new(result)))
            }
            Decision::InHand => {
                self.redirect(tx, &found).await?;
                Ok(Claimed::InHand)
            }
            Decision::Schedule => {
                self.insert(tx, Place::None).await?;
                self.wait_for(tx, WaitReason::Schedule).await
            }
            Decision::WaitForTurn => {
                self.enter(tx, &found).await?;
                self.redirect(tx, &found).await?;
                self.wait_for(tx, WaitReason::Turn).await
            }
            Decision::Interrupt => {
                self.enter(tx, &found).await?;
                self.redirect(tx, &found).await?;
                let parked = self.wait_for(tx, WaitReason::Turn).await?;
                self.call_off_earlier_turns(tx).await?;
                Ok(parked)
            }
            Decision::Close(closing) => {
                // No turn: what never ran is no part of the conversation.
                if found.facts.job.is_none() {
                    self.insert(tx, Place::None).await?;
                }
                self.redirect(tx, &found).await?;
                let failure = closing.failure(self.claimant.max_attempts, found.cancel_reason);
                let (job, conversation) = (self.job_id, self.conversation_id);
                let closed = close(tx, job, conversation, failure, LastRun::Others).await?;
                Ok(Claimed::Closed(Box::new(closed)))
            }
            // Until this worker, or another, runs no other of its kind.
            Decision::SetApart => {
                self.redirect(tx, &found).await?;
                self.wait_for(tx, WaitReason::Retry).await
            }
            Decision::Run(took_over) => {
                self.enter(tx, &found).await?;
                self.redirect(tx, &found).await?;
                self.end_last_run(tx, took_over).await?;
                match self.claimant.wants {
                    Wants::ToHandOver => Ok(Claimed::Queued(self.queue(tx, took_over).await?)),
                    Wants::ToRun => Ok(Claimed::Run(Box::new(self.take(tx, took_over).await?))),
                }
            }
        }
    }

    /// Makes sure that the job is stored and has its turn.
    async fn enter(&self, tx: &mut PgConnection, found: &Found) -> Result<(), StoreError> {
        if found.facts.job.is_none() {
            self.insert(tx, Place::Next).await
        } else if found.is_fresh {
            self.give_turn(tx, found.hash.as_deref()).await
        } else {
            Ok(())
        }
    }

    /// Stores a new job. It counts as received now, under the conversation's lock: so that the order
    /// of turns is that of the times.
    async fn insert(&self, tx: &mut PgConnection, place: Place) -> Result<(), StoreError> {
        let Some(job) = self.delivery else {
            return Ok(());
        };
        sqlx::query!(
            r#"
            WITH turn AS (
                UPDATE chat.conversations SET turns = turns + 1, updated_at = now()
                WHERE id = $2 AND $16 RETURNING turns
            )
            INSERT INTO chat.jobs (id, conversation_id, user_id, turn, status, wait_reason, due_at,
                request, request_hash, model, metadata, deadline, reply_to, correlation_id, priority,
                traceparent, tracestate, trace_id, enqueued_at, received_at)
            SELECT $1, $2, $3, turn.turns,
                CASE WHEN turn.turns IS NULL THEN 'waiting' ELSE 'queued' END::chat.job_status,
                CASE WHEN turn.turns IS NULL THEN 'schedule' END::chat.wait_reason,
                CASE WHEN turn.turns IS NULL THEN $15::timestamptz END,
                $4::text::json, $5, $6, $7::text::json, $8, $9, $10, $11, $12, $13, substr($12, 4, 32), $14, clock_timestamp()
            FROM (VALUES (1)) AS once LEFT JOIN turn ON true
            "#,
            job.id.0,
            job.conversation_id.0,
            job.user_id,
            job.request,
            job.request_hash,
            job.model,
            job.metadata,
            job.deadline,
            job.reply_to,
            job.correlation_id,
            job.priority,
            job.traceparent,
            job.tracestate,
            job.enqueued_at,
            job.not_before,
            place == Place::Next,
        )
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    /// Gives a job its turn that is ready for the first time, and what only a worker can fill in.
    async fn give_turn(
        &self,
        tx: &mut PgConnection,
        hash: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            r#"
            WITH turn AS (
                UPDATE chat.conversations SET turns = turns + 1, updated_at = now() WHERE id = $2 RETURNING turns
            )
            UPDATE chat.jobs SET turn = turn.turns, request_hash = coalesce(request_hash, $3), model = coalesce(model, $4)
            FROM turn WHERE id = $1
            "#,
            self.job_id.0,
            self.conversation_id.0,
            hash,
            self.claimant.default_model
        )
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    /// Lets the job wait: for its turn, for its time, or for a moment.
    async fn wait_for(
        &self,
        tx: &mut PgConnection,
        reason: WaitReason,
    ) -> Result<Claimed, StoreError> {
        let row = sqlx::query!(
            r#"
            UPDATE chat.jobs SET status = 'waiting', wait_reason = $2::text::chat.wait_reason, events = events + 1,
                wake_ups = CASE $2 WHEN 'retry' THEN 0 ELSE wake_ups END,
                due_at = CASE $2 WHEN 'schedule' THEN due_at
                                 WHEN 'retry' THEN now() + interval '1 s' + random() * interval '3 s' END
            WHERE id = $1
            RETURNING user_id, attempt, due_at, events, metadata::text AS metadata
            "#,
            self.job_id.0,
            reason.as_str()
        )
        .fetch_one(&mut *tx)
        .await?;
        Ok(Claimed::Parked(Box::new(Parked {
            job_id: self.job_id,
            conversation_id: self.conversation_id,
            user_id: row.user_id,
            attempt: u32::try_from(row.attempt).unwrap_or_default(),
            reason,
            due_at: row.due_at,
            events: u64::try_from(row.events).unwrap_or_default(),
            metadata: row.metadata,
        })))
    }

    /// Calls every unfinished turn before this one off. Their workers and the sweep listen.
    async fn call_off_earlier_turns(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
        sqlx::query!(
            r#"
            WITH earlier AS (
                UPDATE chat.jobs AS j
                SET cancel_requested_at = coalesce(j.cancel_requested_at, now()),
                    cancel_reason = coalesce(j.cancel_reason, 'interrupted by job ' || this.id)
                FROM chat.jobs AS this
                WHERE this.id = $1 AND j.conversation_id = $2 AND j.turn < this.turn AND j.finished_at IS NULL
                RETURNING j.id
            )
            SELECT pg_notify('chat_worker', 'cancel ' || id) FROM earlier
            "#,
            self.job_id.0,
            self.conversation_id.0
        )
        .fetch_all(&mut *tx)
        .await?;
        Ok(())
    }

    /// A genuine duplicate's sender is where the result goes from now on.
    async fn redirect(&self, tx: &mut PgConnection, found: &Found) -> Result<(), StoreError> {
        let repeat = self.delivery.filter(|_| found.facts.job.is_some());
        let Some(NewJob {
            reply_to: Some(reply_to),
            correlation_id,
            ..
        }) = repeat
        else {
            return Ok(());
        };
        sqlx::query!(
            "UPDATE chat.jobs SET reply_to = $2, correlation_id = $3 WHERE id = $1",
            self.job_id.0,
            reply_to,
            *correlation_id
        )
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    /// The run that this one follows is over, whatever its worker believes.
    async fn end_last_run(
        &self,
        tx: &mut PgConnection,
        took_over: TakeOver,
    ) -> Result<(), StoreError> {
        if took_over == TakeOver::None {
            return Ok(());
        }
        sqlx::query!(
            "UPDATE chat.attempts SET ended_at = now(), outcome = 'taken_over' WHERE job_id = $1 AND ended_at IS NULL",
            self.job_id.0
        )
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    /// Marks the job queued. The mark falls due again in a minute, so that a lost wake-up is sent
    /// again.
    async fn queue(&self, tx: &mut PgConnection, took_over: TakeOver) -> Result<Next, StoreError> {
        let row = sqlx::query!(
            r#"
            UPDATE chat.jobs
            SET status = 'queued', wait_reason = NULL, due_at = now() + interval '1 min', wake_ups = 0,
                failures = failures + $2::boolean::integer, deaths = deaths + $2::boolean::integer,
                -- As in the sweep: after whatever a lost run has said.
                events = CASE WHEN $3 THEN 1073741824 ELSE events END
            WHERE id = $1 RETURNING priority
            "#,
            self.job_id.0,
            took_over == TakeOver::Failed,
            took_over != TakeOver::None
        )
        .fetch_one(tx)
        .await?;
        Ok(Next::new(self.job_id.0, row.priority))
    }

    async fn take(
        &self,
        tx: &mut PgConnection,
        took_over: TakeOver,
    ) -> Result<ClaimedJob, StoreError> {
        let row = sqlx::query!(
            r#"
            WITH job AS (
                UPDATE chat.jobs SET status = 'running', wait_reason = NULL, due_at = NULL, wake_ups = 0, worker_id = $2, events = 0,
                    attempt = attempt + 1, failures = failures + $3::boolean::integer, deaths = deaths + $3::boolean::integer,
                    started_at = coalesce(started_at, clock_timestamp())
                WHERE id = $1
                RETURNING id, attempt, turn, failures, deaths, received_at, started_at, traceparent, request::text AS request
            ), attempt AS (
                INSERT INTO chat.attempts (job_id, attempt, worker_id) SELECT id, attempt, $2 FROM job
            )
            SELECT attempt, turn AS "turn!", failures, deaths, received_at, started_at AS "started_at!", traceparent,
                   request AS "request!"
            FROM job
            "#,
            self.job_id.0,
            self.claimant.worker.0,
            took_over == TakeOver::Failed
        )
        .fetch_one(&mut *tx)
        .await?;
        Ok(ClaimedJob {
            run: Run {
                job_id: self.job_id,
                conversation_id: self.conversation_id,
                worker: self.claimant.worker,
                attempt: row.attempt,
                turn: row.turn,
            },
            received_at: row.received_at,
            started_at: row.started_at,
            failures: u32::try_from(row.failures).unwrap_or_default(),
            is_suspect: is_suspect(u32::try_from(row.deaths).unwrap_or_default()),
            took_over,
            traceparent: row.traceparent,
            request: Some(row.request),
            // Loaded when the locks are gone.
            entries: Vec::new(),
            history: History::default(),
        })
    }
}

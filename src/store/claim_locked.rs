use sqlx::PgConnection;

use super::claim::{Claimant, Claimed, ClaimedJob, NewJob, Wants};
use super::claim_rules::{Decision, Facts, JobFacts, Owner, Standing, decide};
use super::finish::Next;
use super::outbox::StoredResult;
use super::record::Run;
use super::{StoreError, log};
use crate::ids::{ConversationId, JobId};

/// A claim under way, in its transaction.
pub(super) struct Claim<'a> {
    pub(super) job_id: JobId,
    pub(super) conversation_id: ConversationId,
    pub(super) delivery: Option<&'a NewJob<'a>>,
    pub(super) claimant: Claimant,
}

impl Claim<'_> {
    /// Reads what there is under locks, decides, and writes what follows.
    pub(super) async fn decide_and_do(&self, tx: &mut PgConnection) -> Result<Claimed, StoreError> {
        let facts = self.read(tx).await?;
        match decide(&facts) {
            Decision::Conflict => Ok(Claimed::Conflict),
            Decision::Forbidden => Ok(Claimed::Forbidden),
            Decision::Republish => {
                let mut result = StoredResult::load(tx, self.job_id).await?;
                if let Some(delivery) = self.delivery {
                    result.answer_to(delivery.reply_to, delivery.correlation_id);
                }
                Ok(Claimed::Finished(Box::new(result)))
            }
            Decision::InHand => {
                self.redirect(tx).await?;
                Ok(Claimed::InHand)
            }
            Decision::WaitForTurn => {
                self.insert_if_new(tx, facts.job.is_none()).await?;
                self.wait_for_turn(tx).await?;
                Ok(Claimed::Parked)
            }
            Decision::Run { .. } if self.claimant.wants == Wants::ToHandOver => {
                self.insert_if_new(tx, facts.job.is_none()).await?;
                self.redirect(tx).await?;
                Ok(Claimed::Queued(self.queue(tx).await?))
            }
            Decision::Run { took_over } => {
                self.insert_if_new(tx, facts.job.is_none()).await?;
                Ok(Claimed::Run(Box::new(self.take(tx, took_over).await?)))
            }
            Decision::GiveUp => Ok(Claimed::GiveUp(Box::new(self.take(tx, true).await?))),
        }
    }

    /// Locks the conversation, then the job, and reads what there is.
    async fn read(&self, tx: &mut PgConnection) -> Result<Facts, StoreError> {
        let owner_of_conversation = sqlx::query_scalar!(
            "SELECT user_id FROM chat.conversations WHERE id = $1 FOR NO KEY UPDATE",
            self.conversation_id.0
        )
        .fetch_one(&mut *tx)
        .await?;
        let job = sqlx::query!(
            r#"
            SELECT j.request_hash, j.turn, j.status::text AS "status!", j.failures, j.worker_id,
                   coalesce(j.wait_reason <> 'turn' AND j.due_at > now(), false) AS "not_due!",
                   coalesce(w.stopped_at IS NULL AND w.heartbeat_at > now() - interval '30 s', false) AS "owner_alive!"
            FROM chat.jobs AS j LEFT JOIN chat.workers AS w ON w.id = j.worker_id
            WHERE j.id = $1 FOR NO KEY UPDATE OF j
            "#,
            self.job_id.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        let turn = job.as_ref().and_then(|job| job.turn);
        let earlier_turn_unfinished = sqlx::query_scalar!(
            r#"
            SELECT EXISTS (
                SELECT FROM chat.jobs
                WHERE conversation_id = $1 AND id <> $2 AND turn < coalesce($3, 2147483647) AND finished_at IS NULL
            ) AS "unfinished!"
            "#,
            self.conversation_id.0,
            self.job_id.0,
            turn
        )
        .fetch_one(&mut *tx)
        .await?;
        let job = job.map(|job| JobFacts {
            same_content: self
                .delivery
                .is_none_or(|new| new.request_hash == job.request_hash),
            standing: match job.status.as_str() {
                "completed" | "failed" | "cancelled" => Standing::Finished,
                "running"
                    if job.worker_id == Some(self.claimant.worker.0) && self.claimant.in_hand =>
                {
                    Standing::Running(Owner::Me)
                }
                "running" if job.worker_id == Some(self.claimant.worker.0) => {
                    Standing::Running(Owner::MeWithoutRun)
                }
                "running" if job.owner_alive => Standing::Running(Owner::Alive),
                "running" => Standing::Running(Owner::Dead),
                _ if job.not_due => Standing::NotDue,
                _ => Standing::Ready,
            },
            failures: u32::try_from(job.failures).unwrap_or_default(),
        });
        let foreign = self
            .delivery
            .is_some_and(|new| new.user_id != owner_of_conversation);
        Ok(Facts {
            foreign_conversation: foreign,
            job,
            earlier_turn_unfinished,
            max_attempts: self.claimant.max_attempts,
        })
    }

    async fn insert_if_new(&self, tx: &mut PgConnection, is_new: bool) -> Result<(), StoreError> {
        let Some(job) = self.delivery.filter(|_| is_new) else {
            return Ok(());
        };
        sqlx::query!(
            r#"
            WITH turn AS (
                UPDATE chat.conversations SET turns = turns + 1, updated_at = now() WHERE id = $2 RETURNING turns
            )
            INSERT INTO chat.jobs (id, conversation_id, user_id, turn, status,
                request, request_hash, model, metadata, deadline, reply_to, correlation_id, priority,
                traceparent, tracestate, trace_id, enqueued_at)
            SELECT $1, $2, $3, turns, 'queued',
                $4::text::json, $5, $6, $7::text::json, $8, $9, $10, $11, $12, $13, substr($12, 4, 32), $14
            FROM turn
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
        )
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    async fn wait_for_turn(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
        self.redirect(tx).await?;
        sqlx::query!(
            "UPDATE chat.jobs SET status = 'waiting', wait_reason = 'turn', due_at = NULL WHERE id = $1",
            self.job_id.0
        )
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    /// Marks the job queued. The mark falls due again in a minute, so that a lost wake-up is sent
    /// again. A running job whose owner is dead stays as it is: whoever is woken takes it over.
    async fn queue(&self, tx: &mut PgConnection) -> Result<Next, StoreError> {
        let row = sqlx::query!(
            r#"
            UPDATE chat.jobs
            SET status = CASE WHEN status = 'running' THEN status ELSE 'queued' END, wait_reason = NULL, due_at = now() + interval '1 min'
            WHERE id = $1 RETURNING priority
            "#,
            self.job_id.0
        )
        .fetch_one(tx)
        .await?;
        Ok(Next {
            job_id: self.job_id,
            priority: row
                .priority
                .and_then(|priority| u8::try_from(priority).ok()),
        })
    }

    /// A genuine duplicate's sender is where the result goes from now on.
    async fn redirect(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
        let Some(NewJob {
            reply_to: Some(reply_to),
            correlation_id,
            ..
        }) = self.delivery
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

    async fn take(&self, tx: &mut PgConnection, took_over: bool) -> Result<ClaimedJob, StoreError> {
        self.redirect(tx).await?;
        let row = sqlx::query!(
            r#"
            WITH before AS (
                UPDATE chat.attempts AS a SET ended_at = now(), outcome = 'taken_over'
                FROM chat.jobs AS j WHERE $3 AND j.id = $1 AND a.job_id = j.id AND a.attempt = j.attempt AND a.ended_at IS NULL
            ), job AS (
                UPDATE chat.jobs SET status = 'running', wait_reason = NULL, due_at = NULL, worker_id = $2,
                    attempt = attempt + 1, failures = failures + $3::boolean::integer,
                    started_at = coalesce(started_at, clock_timestamp())
                WHERE id = $1
                RETURNING id, attempt, turn, received_at, started_at, traceparent, request::text AS request
            ), attempt AS (
                INSERT INTO chat.attempts (job_id, attempt, worker_id) SELECT id, attempt, $2 FROM job
            )
            SELECT attempt, turn AS "turn!", received_at, started_at AS "started_at!", traceparent,
                   request AS "request!"
            FROM job
            "#,
            self.job_id.0,
            self.claimant.worker.0,
            took_over
        )
        .fetch_one(&mut *tx)
        .await?;
        let entries = log::load_entries(tx, self.job_id).await?;
        let history = log::load_history(tx, self.conversation_id, row.turn).await?;
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
            traceparent: row.traceparent,
            request: Some(row.request),
            entries,
            history,
        })
    }
}

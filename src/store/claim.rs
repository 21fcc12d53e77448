use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::claim_locked::Claim;
use super::claim_rules::TakeOver;
use super::close::Closed;
use super::finish::Next;
use super::outbox::StoredResult;
use super::record::Run;
use super::{Store, StoreError, commit, log};
use crate::conversation::{Entry, History};
use crate::crash::{self, Act};
use crate::ids::{ConversationId, JobId, WorkerId};
use crate::wire::{OnBusy, WaitReason};

/// A job as a delivery brings it.
#[derive(Clone, Copy, Debug)]
pub struct NewJob<'a> {
    /// Its id.
    pub id: JobId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Who it speaks for.
    pub user_id: &'a str,
    /// Its JSON text, armoured.
    pub request: &'a str,
    /// The hash of its content.
    pub request_hash: &'a [u8],
    /// The model to be asked.
    pub model: &'a str,
    /// Its metadata as JSON text, armoured.
    pub metadata: Option<&'a str>,
    /// Its deadline.
    pub deadline: Option<DateTime<Utc>>,
    /// When it may run at the earliest.
    pub not_before: Option<DateTime<Utc>>,
    /// What it does while its conversation is busy.
    pub on_busy: OnBusy,
    /// Where the sender wants the result.
    pub reply_to: Option<&'a str>,
    /// The sender's correlation id.
    pub correlation_id: Option<&'a str>,
    /// The message's priority.
    pub priority: Option<i16>,
    /// The message's `traceparent`.
    pub traceparent: Option<&'a str>,
    /// The message's `tracestate`.
    pub tracestate: Option<&'a str>,
    /// The message's own timestamp.
    pub enqueued_at: Option<DateTime<Utc>>,
}

/// Who claims, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// The worker.
    pub worker: WorkerId,
    /// Whether this process has a run of the job.
    pub in_hand: bool,
    /// Whether it may take a silent worker for dead. Not so for a while after it lost its own
    /// session: a database that came back has lost everybody's.
    pub may_judge: bool,
    /// The model of a job that names none.
    pub default_model: &'a str,
    /// Whether it would run a job that may be what its last workers died of.
    pub takes_suspects: bool,
    /// What it wants with the job.
    pub wants: Wants,
    /// Failures and deaths after which a job is given up.
    pub max_attempts: u32,
}

/// What a worker wants with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// To run it.
    ToRun,
    /// To leave it to whoever has a free slot.
    ToHandOver,
}

/// What came of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// The job is ours to run.
    Run(Box<ClaimedJob>),
    /// It has ended without a run.
    Closed(Box<Closed>),
    /// It is stored, and waits for its turn or its time.
    Parked(Box<Parked>),
    /// It is stored and marked queued; any worker that a wake-up reaches may run it.
    Queued(Next),
    /// It has ended; its result can be published again.
    Finished(Box<StoredResult>),
    /// Somebody has it, or it waits.
    InHand,
    /// Its id was used before with other content.
    Conflict,
    /// Its conversation belongs to another user.
    Forbidden,
    /// Its conversation is busy, and it would not wait.
    Busy,
}

/// A job that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The job.
    pub job_id: JobId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Who it speaks for.
    pub user_id: String,
    /// Its last run; 0 before the first.
    pub attempt: u32,
    /// What it waits for.
    pub reason: WaitReason,
    /// Until when, if that is known.
    pub due_at: Option<DateTime<Utc>>,
    /// The number of the event that says so.
    pub events: u64,
    /// Its metadata as JSON text, armoured.
    pub metadata: Option<String>,
}

/// A job in hand.
#[derive(Debug)]
pub struct ClaimedJob {
    /// The key to its rows.
    pub run: Run,
    /// When it was first taken in.
    pub received_at: DateTime<Utc>,
    /// When it first ran.
    pub started_at: DateTime<Utc>,
    /// Failures and deaths since its last entry.
    pub failures: u32,
    /// Whose run this one follows.
    pub took_over: TakeOver,
    /// Whether it may be what its last workers died of.
    pub is_suspect: bool,
    /// The message's `traceparent`.
    pub traceparent: Option<String>,
    /// Its JSON text; none where the delivery itself brought it.
    pub request: Option<String>,
    /// What is stored of it already.
    pub entries: Vec<Entry>,
    /// What came before it in its conversation.
    pub history: History,
}

impl Store {
    /// Claims the job that a delivery brought: in one statement where job and conversation are
    /// new, else in one transaction under the locks of both.
    ///
    /// # Errors
    /// The database fails; nothing is stored then, or the whole claim.
    pub async fn claim(
        &self,
        job: &NewJob<'_>,
        claimant: Claimant<'_>,
    ) -> Result<Claimed, StoreError> {
        if claimant.wants == Wants::ToRun
            && !claimant.in_hand
            && job.not_before.is_none()
            && let Some(claimed) = self.claim_new(job, claimant.worker).await?
        {
            return Ok(Claimed::Run(Box::new(claimed)));
        }
        let mut tx = self.begin().await?;
        let owner = lock_or_make_conversation(&mut tx, job).await?;
        let claim = Claim {
            job_id: job.id,
            conversation_id: job.conversation_id,
            owner,
            delivery: Some(job),
            claimant,
        };
        let found = claim.find(&mut tx).await?;
        let claimed = claim.decide_and_do(&mut tx, found).await?;
        match &claimed {
            // The delivery leaves no trace: no conversation without a job either.
            Claimed::Conflict | Claimed::Forbidden | Claimed::Busy => tx.rollback().await?,
            Claimed::Run(_)
            | Claimed::Closed(_)
            | Claimed::Parked(_)
            | Claimed::Queued(_)
            | Claimed::Finished(_)
            | Claimed::InHand => commit(tx, Act::Claim).await?,
        }
        self.with_log(claimed).await
    }

    /// Claims the job that a wake-up names. None: there is no such job.
    ///
    /// # Errors
    /// The database fails; nothing is stored then, or the whole claim.
    pub async fn claim_known(
        &self,
        job_id: JobId,
        claimant: Claimant<'_>,
    ) -> Result<Option<Claimed>, StoreError> {
        let mut tx = self.begin().await?;
        let conversation = sqlx::query!(
            r#"
            SELECT id, user_id FROM chat.conversations
            WHERE id = (SELECT conversation_id FROM chat.jobs WHERE id = $1) FOR NO KEY UPDATE
            "#,
            job_id.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(conversation) = conversation else {
            return Ok(None);
        };
        let claim = Claim {
            job_id,
            conversation_id: ConversationId(conversation.id),
            owner: conversation.user_id,
            delivery: None,
            claimant,
        };
        let found = claim.find(&mut tx).await?;
        // It may have been pruned while we waited for the lock.
        if found.facts.job.is_none() {
            return Ok(None);
        }
        let claimed = claim.decide_and_do(&mut tx, found).await?;
        commit(tx, Act::Claim).await?;
        Ok(Some(self.with_log(claimed).await?))
    }

    /// Reads what is stored of a claimed job and of its conversation: after the commit, since nobody
    /// else writes either now, and so that no lock waits for a long history.
    async fn with_log(&self, mut claimed: Claimed) -> Result<Claimed, StoreError> {
        if let Claimed::Run(job) = &mut claimed {
            let run = job.run;
            if run.attempt == 1 && run.turn == 1 {
                return Ok(claimed);
            }
            let mut connection = self.pool.acquire().await?;
            // A first run has left nothing behind.
            if run.attempt > 1 {
                job.entries = log::load_entries(&mut connection, run.job_id).await?;
            }
            let (conversation, turn) = (run.conversation_id, run.turn);
            let most = self.history_bytes;
            job.history = log::load_history(&mut connection, conversation, turn, most).await?;
        }
        Ok(claimed)
    }

    /// The claim of a job and a conversation that nobody has seen before: nothing to decide, and
    /// one round trip. None: one of them is there already, or the job was called off before it came.
    async fn claim_new(
        &self,
        job: &NewJob<'_>,
        worker: WorkerId,
    ) -> Result<Option<ClaimedJob>, StoreError> {
        crash::before(Act::Claim);
        let stored = sqlx::query!(
            r#"
            WITH conversation AS (
                INSERT INTO chat.conversations (id, user_id, turns) SELECT $2, $3, 1
                WHERE NOT EXISTS (SELECT FROM chat.cancel_requests WHERE job_id = $1)
                ON CONFLICT (id) DO NOTHING RETURNING id
            ), job AS (
                INSERT INTO chat.jobs (id, conversation_id, user_id, turn, status, attempt, worker_id, started_at,
                    request, request_hash, model, metadata, deadline, reply_to, correlation_id, priority,
                    traceparent, tracestate, trace_id, enqueued_at)
                SELECT $1, id, $3, 1, 'running', 1, $4, now(),
                    $5::text::json, $6, $7, $8::text::json, $9, $10, $11, $12, $13, $14, substr($13, 4, 32), $15
                FROM conversation RETURNING id, received_at
            ), attempt AS (
                INSERT INTO chat.attempts (job_id, attempt, worker_id) SELECT id, 1, $4 FROM job
            )
            SELECT received_at FROM job
            "#,
            job.id.0,
            job.conversation_id.0,
            job.user_id,
            worker.0,
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
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::from);
        let received_at = match stored {
            Ok(Some(row)) => row.received_at,
            Ok(None) => return Ok(None),
            // The job is known, in another conversation.
            Err(error) if error.is_unique_violation() => return Ok(None),
            Err(error) => return Err(error),
        };
        crash::after(Act::Claim);
        Ok(Some(ClaimedJob {
            run: Run {
                job_id: job.id,
                conversation_id: job.conversation_id,
                worker,
                attempt: 1,
                turn: 1,
            },
            received_at,
            started_at: received_at,
            failures: 0,
            is_suspect: false,
            took_over: TakeOver::None,
            traceparent: job.traceparent.map(str::to_owned),
            request: None,
            entries: Vec::new(),
            history: History::default(),
        }))
    }
}

/// Locks the job's conversation, which is made if it is not there; whose it is.
async fn lock_or_make_conversation(
    tx: &mut PgConnection,
    job: &NewJob<'_>,
) -> Result<String, StoreError> {
    loop {
        let owner = sqlx::query_scalar!(
            "SELECT user_id FROM chat.conversations WHERE id = $1 FOR NO KEY UPDATE",
            job.conversation_id.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(owner) = owner {
            return Ok(owner);
        }
        // Once, unless somebody else makes it at the same moment, or prunes it before it is locked.
        sqlx::query!(
            "INSERT INTO chat.conversations (id, user_id) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
            job.conversation_id.0,
            job.user_id
        )
        .execute(&mut *tx)
        .await?;
    }
}

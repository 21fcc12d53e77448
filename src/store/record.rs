use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::columns::{Calls, Results, places};
use super::{Store, StoreError};
use crate::chat::{Answer, ToolOutcome, Usage};
use crate::crash::{self, Act};
use crate::fault::Failure;
use crate::ids::{ConversationId, JobId, WorkerId};
use crate::wire::{FinishReason, Status};

/// The key to a job's rows while it is in hand: with it the rows can be written, until somebody
/// else claims the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The job.
    pub job_id: JobId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// The worker that has it.
    pub worker: WorkerId,
    /// The fencing token.
    pub attempt: i32,
    /// Its place in the conversation.
    pub turn: i32,
}

/// An answer of the model that is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewIteration<'a> {
    /// The round, from 1.
    pub number: u32,
    /// The model that the job is for.
    pub requested_model: &'a str,
    /// The answer.
    pub answer: &'a Answer,
    /// Where each of its calls goes, in order.
    pub routes: &'a [RouteOf],
    /// The places of those of its calls that leave at once.
    pub calls_starting: &'a [u32],
    /// The places of those of its calls that wait for a person's word.
    pub calls_held: &'a [u32],
    /// How long they wait before their time is up.
    pub approval_timeout: Duration,
    /// Whether its cost is added to what the user spent today.
    pub counts_for_user: bool,
    /// When the model was asked.
    pub started_at: DateTime<Utc>,
    /// When it had answered.
    pub finished_at: DateTime<Utc>,
}

/// The server and the tool that a call goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOf {
    /// The server; none when no server has the tool.
    pub server: Option<String>,
    /// The tool's name there.
    pub tool: String,
}

/// What a call came to, to be stored.
#[derive(Clone, Debug)]
pub struct NewResult {
    /// The round of the call.
    pub iteration: u32,
    /// Its place in the round, from 1.
    pub position: u32,
    /// What it came to.
    pub outcome: ToolOutcome,
    /// When it was begun.
    pub started_at: DateTime<Utc>,
    /// When it had ended.
    pub finished_at: DateTime<Utc>,
}

/// How a job ends, to be stored with its last entry.
#[derive(Clone, Debug)]
pub struct Ending {
    /// How.
    pub status: Status,
    /// Why, of a completed job.
    pub finish_reason: Option<FinishReason>,
    /// The reply of a completed job.
    pub reply: Option<String>,
    /// The model's refusal.
    pub refusal: Option<String>,
    /// What it went on without.
    pub warnings: Vec<String>,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// The model that answered last.
    pub model: Option<String>,
    /// Answers of the model.
    pub iterations: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// What it used.
    pub usage: Usage,
}

/// Where a result goes: what the last sender of the job asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerTo {
    /// The queue that it named.
    pub reply_to: Option<String>,
    /// Its correlation id.
    pub correlation_id: Option<String>,
}

/// A job was called off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalledOff {
    /// Why, if that was said.
    pub reason: Option<String>,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is stored, now or by an earlier try of ours.
    Stored,
    /// Somebody else owns the job; nothing was written.
    Fenced,
}

impl Store {
    /// Stores results of calls and an answer of the model, together.
    ///
    /// # Errors
    /// The database fails. The write may be repeated: what is stored already is left as it is.
    pub async fn append(
        &self,
        run: &Run,
        results: &[NewResult],
        iteration: Option<&NewIteration<'_>>,
    ) -> Result<Written, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let entry = Record {
            results,
            iteration,
            ending: None,
            locks_conversation: false,
        };
        crash::before(Act::Append);
        // Boxed like every call of it: its room is needed for a moment, a run's future for an hour.
        let row = Box::pin(record(&mut connection, run, &entry)).await?;
        crash::after(Act::Append);
        Ok(if row.owned {
            Written::Stored
        } else {
            Written::Fenced
        })
    }
}

/// What one write holds.
pub(super) struct Record<'a> {
    pub(super) results: &'a [NewResult],
    pub(super) iteration: Option<&'a NewIteration<'a>>,
    pub(super) ending: Option<&'a Ending>,
    /// Lock the conversation first, and write only if no later turn has a number.
    pub(super) locks_conversation: bool,
}

/// Whether the run owned its job, and when it ended.
pub(super) struct Recorded {
    pub(super) owned: bool,
    pub(super) finished_at: Option<DateTime<Utc>>,
    pub(super) answer_to: AnswerTo,
    /// Why it was called off, if it was: it ends as cancelled and no other way then.
    pub(super) called_off: Option<CalledOff>,
}

/// The one write of a run: results, an answer with its calls, and the end, each where there is one.
///
/// One statement is one round trip and one commit. `owned` is the fence that all parts hang on.
#[expect(
    clippy::too_many_lines,
    reason = "one statement, and the values it takes"
)]
pub(super) async fn record(
    connection: &mut PgConnection,
    run: &Run,
    entry: &Record<'_>,
) -> Result<Recorded, StoreError> {
    let results = Results::of(entry.results);
    let calls = Calls::of(entry.iteration);
    let answer = entry.iteration.map(|iteration| iteration.answer);
    let usage = answer.map(|answer| answer.usage).unwrap_or_default();
    let ending = entry.ending;
    let totals = ending.map(|ending| ending.usage).unwrap_or_default();
    let failure = ending.and_then(|ending| ending.failure.as_ref());
    let row = sqlx::query!(
        r#"
        WITH conversation AS (
            SELECT id FROM chat.conversations WHERE $5 AND id = $4 AND turns = $6 FOR NO KEY UPDATE
        ), owned AS (
            SELECT j.id, j.user_id, j.cancel_requested_at IS NOT NULL AS called_off, j.cancel_reason,
                   $33::text IS NOT NULL AND (j.cancel_requested_at IS NULL OR $33::text = 'cancelled') AS ends
            FROM chat.jobs AS j LEFT JOIN conversation AS c ON true
            WHERE j.id = $1 AND j.attempt = $2 AND j.worker_id IS NOT DISTINCT FROM $3 AND j.status = 'running' AND (NOT $5 OR c.id IS NOT NULL)
            FOR NO KEY UPDATE OF j
        ), returned AS (
            UPDATE chat.tool_calls AS c
            SET status = r.status::chat.tool_call_status, result = r.result, result_bytes = r.bytes,
                media = r.media::json,
                started_at = r.started_at, finished_at = r.finished_at, attempt = $2
            FROM owned, unnest($7::int[], $8::int[], $9::text[], $10::text[], $11::bigint[], $12::timestamptz[], $13::timestamptz[], $47::text[])
                AS r (iteration, position, status, result, bytes, started_at, finished_at, media)
            WHERE c.job_id = owned.id AND c.iteration = r.iteration AND c.position = r.position AND c.finished_at IS NULL
        ), iteration AS (
            INSERT INTO chat.iterations (job_id, number, attempt, model, response_id, message, content, refusal, finish_reason,
                tool_calls, input_tokens, cached_tokens, output_tokens, reasoning_tokens, started_at, finished_at,
                requested_model, asked_model, cost_usd, usage_estimated)
            SELECT id, $14::integer, $2, $15, $16, $17::text::json, $18, $19, $20, cardinality($21::text[]), $22, $23, $24, $25, $26, $27, $48, $49,
                   $50::bigint * 0.000000000001, $55
            FROM owned WHERE $14::integer IS NOT NULL
            ON CONFLICT (job_id, number) DO NOTHING
            RETURNING job_id
        ), spent AS (
            INSERT INTO chat.user_costs AS u (user_id, day, cost_usd)
            SELECT owned.user_id, (now() AT TIME ZONE 'UTC')::date, $50::bigint * 0.000000000001
            FROM iteration JOIN owned ON owned.id = iteration.job_id WHERE $52 AND $50 > 0
            ON CONFLICT (user_id, day) DO UPDATE SET cost_usd = u.cost_usd + excluded.cost_usd
        ), calls AS (
            INSERT INTO chat.tool_calls (job_id, iteration, position, call_id, offered_as, server, tool, arguments, status, attempt, started_at,
                approval_expires_at)
            SELECT id, $14::integer, position, call_id, offered_as, server, tool, arguments::json,
                   CASE WHEN position = ANY($32::integer[]) THEN 'started' ELSE 'requested' END::chat.tool_call_status, $2,
                   CASE WHEN position = ANY($32::integer[]) THEN $27::timestamptz END,
                   CASE WHEN position = ANY($53::integer[]) THEN now() + make_interval(secs => $54) END
            FROM owned, unnest($21::text[], $28::text[], $29::text[], $30::text[], $31::text[]) WITH ORDINALITY
                AS c (call_id, offered_as, server, tool, arguments, position)
            ON CONFLICT (job_id, iteration, position) DO NOTHING
        ), job AS (
            UPDATE chat.jobs AS j
            SET failures = CASE WHEN $14::integer IS NULL AND cardinality($7::int[]) = 0 THEN j.failures ELSE 0 END
                    + coalesce($33::text = 'failed', false)::integer,
                deaths = 0,
                status = CASE WHEN owned.ends THEN $33::text::chat.job_status ELSE j.status END,
                finish_reason = $34, reply = $35, refusal = $36, warnings = coalesce($37, j.warnings),
                error_code = $38, error_message = $39, model = coalesce($40, j.model),
                iterations = coalesce($41, j.iterations), tool_calls = coalesce($42, j.tool_calls),
                input_tokens = $43, cached_tokens = $44, output_tokens = $45, reasoning_tokens = $46, cost_usd = $51::bigint * 0.000000000001,
                finished_at = CASE WHEN owned.ends THEN now() END,
                publish_due_at = CASE WHEN owned.ends THEN now() + interval '30 s' END
            FROM owned WHERE j.id = owned.id AND (owned.ends OR ($33::text IS NULL AND j.failures > 0))
            RETURNING j.id, j.finished_at, CASE WHEN $33::text = 'failed' THEN j.request::text END AS request, j.reply_to, j.correlation_id, j.priority
        ), attempt AS (
            UPDATE chat.attempts AS a SET ended_at = now(), outcome = $33::text, error_code = $38, error_message = $39
            FROM job WHERE a.job_id = job.id AND a.attempt = $2 AND job.finished_at IS NOT NULL
        ), dead_letter AS (
            INSERT INTO chat.dead_letters (id, job_id, error_code, error_message, body, properties)
            SELECT gen_random_uuid(), id, $38, $39, convert_to(replace(request, '␛', '\u'), 'UTF8'),
                   json_strip_nulls(json_build_object('message_id', id, 'type', 'chat.job', 'content_type', 'application/json',
                       'reply_to', reply_to, 'correlation_id', correlation_id, 'priority', priority))
            FROM job WHERE $33::text = 'failed' AND job.finished_at IS NOT NULL
        )
        SELECT EXISTS (SELECT FROM owned) AS "owned!", (SELECT finished_at FROM job) AS finished_at,
               (SELECT reply_to FROM job) AS reply_to, (SELECT correlation_id FROM job) AS correlation_id,
               coalesce((SELECT called_off FROM owned), false) AS "called_off!", (SELECT cancel_reason FROM owned) AS cancel_reason
        "#,
        run.job_id.0,
        run.attempt,
        run.worker.0,
        run.conversation_id.0,
        entry.locks_conversation,
        run.turn,
        &results.iterations,
        &results.positions,
        &results.statuses as &[&str],
        &results.texts as &[&str],
        &results.bytes,
        &results.started_at,
        &results.finished_at,
        entry.iteration.map(|iteration| number(iteration.number)),
        answer.and_then(|answer| answer.model.as_deref()),
        answer.and_then(|answer| answer.response_id.as_deref()),
        answer.map(|answer| answer.message.get()),
        answer.and_then(|answer| answer.content.as_deref()),
        answer.and_then(|answer| answer.refusal.as_deref()),
        answer.and_then(|answer| answer.finish_reason.as_deref()),
        &calls.ids as &[&str],
        count(usage.input_tokens),
        count(usage.cached_tokens),
        count(usage.output_tokens),
        count(usage.reasoning_tokens),
        entry.iteration.map(|iteration| iteration.started_at),
        entry.iteration.map(|iteration| iteration.finished_at),
        &calls.names as &[&str],
        &calls.servers as &[Option<&str>],
        &calls.tools as &[&str],
        &calls.arguments as &[String],
        &places(entry.iteration.map(|iteration| iteration.calls_starting)),
        ending.map(|ending| ending.status.as_str()),
        ending.and_then(|ending| ending.finish_reason).map(FinishReason::as_str),
        ending.and_then(|ending| ending.reply.as_deref()),
        ending.and_then(|ending| ending.refusal.as_deref()),
        ending.map(|ending| ending.warnings.as_slice()),
        failure.map(|failure| failure.code.as_str()),
        failure.map(|failure| failure.message.as_str()),
        ending.and_then(|ending| ending.model.as_deref()),
        ending.map(|ending| number(ending.iterations)),
        ending.map(|ending| number(ending.tool_calls)),
        count(totals.input_tokens),
        count(totals.cached_tokens),
        count(totals.output_tokens),
        count(totals.reasoning_tokens),
        &results.media as &[Option<String>],
        entry.iteration.map(|iteration| iteration.requested_model),
        answer.and_then(|answer| answer.asked.as_deref()),
        usage.cost_usd.map(|cost| count(cost.picodollars())),
        totals.cost_usd.map(|cost| count(cost.picodollars())),
        entry.iteration.is_some_and(|iteration| iteration.counts_for_user),
        &places(entry.iteration.map(|iteration| iteration.calls_held)),
        entry.iteration.map(|iteration| iteration.approval_timeout.as_secs_f64()),
        answer.is_some_and(|answer| answer.is_estimated),
    )
    .fetch_one(connection)
    .await?;
    Ok(Recorded {
        owned: row.owned,
        finished_at: row.finished_at,
        called_off: row.called_off.then_some(CalledOff {
            reason: row.cancel_reason,
        }),
        answer_to: AnswerTo {
            reply_to: row.reply_to,
            correlation_id: row.correlation_id,
        },
    })
}

pub(super) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

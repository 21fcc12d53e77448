use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::record::number;
use super::{StoreError, summaries};
use crate::chat::{Answer, Media, Message, OutcomeStatus, Stop, ToolCall, ToolOutcome, Usage};
use crate::conversation::{Entry, History, PastRound, PastTurn};
use crate::cost::Cost;
use crate::escape::{disarm, disarm_text};
use crate::ids::{ConversationId, JobId};
use crate::wire::Job;

/// The most earlier turns that are read for a prompt.
const MAX_TURNS: i32 = 200;
/// What of a turn's request counts towards the bound at most, in bytes: it may hold images.
const MAX_TEXT: i32 = 64 * 1024;
/// The most that is read of a history, images and all, in bytes as they are stored.
const MAX_BYTES: i64 = 16 * 1024 * 1024;
/// The most bytes of images and the like that are read for a prompt, newest first; what is older is
/// known by its marks in the results' texts.
const MAX_MEDIA_BYTES: i64 = 32 * 1024 * 1024;

/// The job that a stored request holds. It was checked when it came in.
///
/// # Errors
/// The row was written by somebody else.
pub fn parse_request(request: &str, job_id: JobId) -> Result<Job, StoreError> {
    serde_json::from_str(request).map_err(|error| StoreError::Damaged {
        table: "chat.jobs",
        job: job_id.to_string(),
        what: format!("request is no job: {error}"),
    })
}

/// What is stored of a job, in the order in which it happened.
pub(super) async fn load_entries(
    connection: &mut PgConnection,
    job: JobId,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries = summaries::load_made_for(connection, job).await?;
    let mut rounds = load_rounds(connection, &[job.0]).await?;
    for round in rounds.remove(&job.0).unwrap_or_default() {
        entries.push(Entry::Answered(round.answer));
        for (position, call) in (1..).zip(round.calls) {
            if call.held {
                entries.push(Entry::Held { position });
            }
            match (call.outcome, call.begun) {
                (Some(outcome), _) => entries.push(Entry::Returned { position, outcome }),
                (None, true) => entries.push(Entry::Interrupted {
                    position,
                    server: call.server.map(Arc::from),
                }),
                (None, false) => {}
            }
        }
    }
    Ok(entries)
}

/// What came before `turn` in a conversation: the newest summary, and the newest turns after it
/// until they hold `text_bytes` of text.
///
/// Sizes are those of the stored values, which may be compressed: so nothing is read only to be
/// measured, and rather too much is read than too little.
pub(super) async fn load_history(
    connection: &mut PgConnection,
    conversation: ConversationId,
    turn: i32,
    text_bytes: i64,
) -> Result<History, StoreError> {
    if turn <= 1 {
        return Ok(History::default());
    }
    let summary = summaries::load_newest(connection, conversation, turn).await?;
    let after = summary
        .as_ref()
        .map_or(0, |summary| number(summary.up_to_turn));
    let jobs = sqlx::query!(
        r#"
        WITH turns AS (
            SELECT j.id, j.turn, pg_column_size(j.request) AS request, rest.bytes AS rest, rest.media
            FROM chat.jobs AS j, LATERAL (
                SELECT coalesce((SELECT sum(pg_column_size(i.message)) FROM chat.iterations AS i WHERE i.job_id = j.id), 0)
                       + coalesce(sum(pg_column_size(c.result)), 0) AS bytes,
                       coalesce(sum(pg_column_size(c.media)), 0) AS media
                FROM chat.tool_calls AS c WHERE c.job_id = j.id
            ) AS rest
            WHERE j.conversation_id = $1 AND j.turn < $2 AND j.turn > $3 AND j.turn >= $2 - $4::integer
        ), sized AS (
            SELECT id, turn,
                   sum(least(request, $5::integer) + rest) OVER newest - least(request, $5::integer) - rest AS newer_text,
                   sum(request + rest + media) OVER newest AS bytes
            FROM turns WINDOW newest AS (ORDER BY turn DESC)
        )
        SELECT j.id, j.turn AS "turn!", j.request::text AS "request!"
        FROM sized AS s JOIN chat.jobs AS j ON j.id = s.id
        WHERE s.newer_text < $6::bigint AND s.bytes <= $7::bigint ORDER BY j.turn
        "#,
        conversation.0,
        turn,
        after,
        MAX_TURNS,
        MAX_TEXT,
        text_bytes,
        MAX_BYTES
    )
    .fetch_all(&mut *connection)
    .await?;
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let mut rounds = load_rounds(connection, &ids).await?;
    let mut turns = Vec::with_capacity(jobs.len());
    for job in jobs {
        let past = rounds
            .remove(&job.id)
            .unwrap_or_default()
            .into_iter()
            .map(|round| PastRound {
                answer: round.answer,
                outcomes: round.calls.into_iter().map(|call| call.outcome).collect(),
            });
        // A request of another version of the worker: what was said in it is what matters.
        match serde_json::from_str::<Said>(&job.request) {
            Ok(said) => turns.push(PastTurn {
                number: u32::try_from(job.turn).unwrap_or_default(),
                messages: said.messages,
                rounds: past.collect(),
            }),
            Err(error) => {
                tracing::warn!(job.id = %job.id, %error, "an earlier turn cannot be read and is left out");
            }
        }
    }
    Ok(History { summary, turns })
}

/// What a stored request says, whatever else stands in it.
#[derive(serde::Deserialize)]
struct Said {
    messages: Vec<Arc<Message>>,
}

struct StoredRound {
    answer: Answer,
    calls: Vec<StoredCall>,
}

struct StoredCall {
    call: ToolCall,
    server: Option<String>,
    begun: bool,
    /// Whether it waits for a person's word, or was ended by one.
    held: bool,
    outcome: Option<ToolOutcome>,
}

async fn load_rounds(
    connection: &mut PgConnection,
    jobs: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<StoredRound>>, StoreError> {
    let mut calls = load_calls(connection, jobs).await?;
    let rows = sqlx::query!(
        r#"
        SELECT job_id, number, model, asked_model, response_id, message AS "message: Json<Box<RawValue>>", content, refusal, finish_reason,
               input_tokens, cached_tokens, output_tokens, reasoning_tokens, usage_estimated,
               (CASE WHEN cost_usd > 9000000 THEN 9000000 ELSE cost_usd END * 1000000000000)::bigint AS picodollars
        FROM chat.iterations WHERE job_id = ANY($1) ORDER BY job_id, number
        "#,
        jobs
    )
    .fetch_all(connection)
    .await?;
    let mut rounds: BTreeMap<Uuid, Vec<StoredRound>> = BTreeMap::new();
    for row in rows {
        let calls = calls.remove(&(row.job_id, row.number)).unwrap_or_default();
        let answer = Answer {
            message: Arc::from(row.message.0),
            content: row.content,
            refusal: row.refusal,
            stop: Stop::of(row.finish_reason.as_deref()),
            finish_reason: row.finish_reason,
            tool_calls: calls.iter().map(|call| call.call.clone()).collect(),
            usage: usage(
                [
                    row.input_tokens,
                    row.cached_tokens,
                    row.output_tokens,
                    row.reasoning_tokens,
                ],
                row.picodollars,
            ),
            is_estimated: row.usage_estimated,
            model: row.model,
            asked: row.asked_model.map(Arc::from),
            response_id: row.response_id,
        };
        rounds
            .entry(row.job_id)
            .or_default()
            .push(StoredRound { answer, calls });
    }
    Ok(rounds)
}

async fn load_calls(
    connection: &mut PgConnection,
    jobs: &[Uuid],
) -> Result<BTreeMap<(Uuid, i32), Vec<StoredCall>>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT job_id, iteration, call_id, offered_as, server, arguments::text AS "arguments!", status::text AS "status!", result, result_bytes,
               approval_expires_at IS NOT NULL AND (status = 'requested' OR approval IS DISTINCT FROM 'approved') AS "held!",
               CASE WHEN media IS NOT NULL AND sum(pg_column_size(media)) OVER newest_first <= $2 THEN media END AS "media: Json<Arc<[Media]>>"
        FROM chat.tool_calls WHERE job_id = ANY($1)
        WINDOW newest_first AS (ORDER BY array_position($1, job_id) DESC, iteration DESC, position DESC)
        ORDER BY job_id, iteration, position
        "#,
        jobs,
        MAX_MEDIA_BYTES
    )
    .fetch_all(connection)
    .await?;
    let mut calls: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        let outcome = OutcomeStatus::parse(&row.status)
            .zip(row.result)
            .map(|(status, text)| ToolOutcome {
                status,
                bytes: row
                    .result_bytes
                    .and_then(|bytes| u64::try_from(bytes).ok())
                    .unwrap_or_default(),
                text,
                media: row.media.map(|media| media.0).unwrap_or_default(),
            });
        let call = StoredCall {
            call: ToolCall {
                call_id: row.call_id,
                name: row.offered_as,
                arguments: arguments_of(&row.arguments),
            },
            server: row.server,
            held: row.held,
            begun: matches!(row.status.as_str(), "started" | "interrupted"),
            outcome,
        };
        calls
            .entry((row.job_id, row.iteration))
            .or_default()
            .push(call);
    }
    Ok(calls)
}

/// What was used, of a row's columns: input, cached, output and reasoning tokens, and the cost.
pub(super) fn usage(columns: [i64; 4], picodollars: Option<i64>) -> Usage {
    let [input_tokens, cached_tokens, output_tokens, reasoning_tokens] =
        columns.map(|tokens| u64::try_from(tokens).unwrap_or_default());
    Usage {
        input_tokens,
        cached_tokens,
        output_tokens,
        reasoning_tokens,
        total_tokens: input_tokens.saturating_add(output_tokens),
        cost_usd: picodollars
            .and_then(|pico| u64::try_from(pico).ok())
            .map(Cost::from_picodollars),
    }
}

/// The arguments as the model wrote them: what stands as a JSON string was no JSON.
fn arguments_of(stored: &str) -> String {
    match serde_json::from_str::<String>(stored) {
        Ok(text) => disarm_text(&text).into_owned(),
        Err(_json) => disarm(stored).into_owned(),
    }
}

use chrono::{DateTime, Utc};

use super::run::JobInHand;
use crate::conversation::{Outcome, Totals};
use crate::store::{AnswerTo, Ending, Next, StoredResult};
use crate::wire::{JobResult, Reply, ReplyFormat, ResultError, Status};

/// A job that this run has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its result, and where it goes.
    pub result: StoredResult,
    /// The conversation's next turn, which wants a wake-up.
    pub next: Option<Next>,
}

/// How a job ends, as it is stored.
pub(super) fn ending(
    outcome: Outcome,
    totals: Totals,
    model: Option<String>,
    warnings: Vec<String>,
    unfinished_reply: &str,
) -> Ending {
    let mut ending = Ending {
        status: Status::Completed,
        finish_reason: None,
        reply: None,
        refusal: None,
        warnings,
        failure: None,
        model,
        iterations: totals.iterations,
        tool_calls: totals.tool_calls,
        usage: totals.usage,
    };
    match outcome {
        Outcome::Completed {
            reason,
            content,
            refusal,
        } => {
            ending.finish_reason = Some(reason);
            ending.reply = Some(content.unwrap_or_else(|| unfinished_reply.to_owned()));
            ending.refusal = refusal;
        }
        Outcome::Failed(failure) => {
            ending.status = Status::Failed;
            ending.failure = Some(failure);
        }
        Outcome::Cancelled(failure) => {
            ending.status = Status::Cancelled;
            ending.failure = Some(failure);
        }
    }
    ending
}

/// The result message of a job that ended so.
pub(super) fn result(
    job: &JobInHand,
    ending: &Ending,
    format: Option<&ReplyFormat>,
    finished_at: DateTime<Utc>,
    answer_to: AnswerTo,
) -> StoredResult {
    let run = &job.claimed.run;
    let reply = ending.reply.clone();
    let message = reply.map(|reply| Reply::assistant(reply, ending.refusal.clone()));
    let parsed = message.as_ref();
    let result = JobResult {
        version: 1,
        job_id: run.job_id,
        conversation_id: Some(run.conversation_id),
        user_id: Some(job.job.user_id.clone()),
        turn: u32::try_from(run.turn).ok(),
        success: ending.status == Status::Completed,
        status: ending.status,
        finish_reason: ending.finish_reason,
        parsed: parsed.and_then(|reply| reply.parsed(format, ending.finish_reason)),
        message,
        error: ending.failure.as_ref().map(|failure| ResultError {
            code: failure.code,
            message: failure.message.clone(),
        }),
        iterations: ending.iterations,
        tool_calls: ending.tool_calls,
        usage: ending.usage,
        model: ending.model.clone().or_else(|| Some(job.model.to_string())),
        attempt: u32::try_from(run.attempt).unwrap_or_default(),
        warnings: ending.warnings.clone(),
        received_at: job.claimed.received_at,
        started_at: Some(job.claimed.started_at),
        finished_at,
        metadata: job.job.metadata.clone(),
    };
    StoredResult {
        result,
        reply_to: answer_to.reply_to,
        correlation_id: answer_to.correlation_id,
        traceparent: job.claimed.traceparent.clone(),
        is_copy: false,
    }
}

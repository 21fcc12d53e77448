//! What keeps a loop of model and tools from going round for nothing.

use serde_json::Value;

use super::state::{CallState, Round};
use super::step::Barred;
use crate::chat::{Answer, OutcomeStatus, ToolCall};

/// Turns in a row that ask for nothing that can be called, after which the job ends.
pub(super) const MAX_INVALID: usize = 3;
/// The same call in this many turns in a row is not made again, but answered with [`repeated`].
const REPEATED: usize = 3;

/// Whether an answer holds nothing for anybody: no words, no refusal, no calls.
pub(super) fn is_silent(answer: &Answer) -> bool {
    let words = answer.content.as_deref().unwrap_or_default();
    words.trim().is_empty() && answer.refusal.is_none() && answer.tool_calls.is_empty()
}

/// Whether the last turns all asked for tools that do not exist or with arguments that do not fit.
pub(super) fn went_wrong_too_often(rounds: &[Round]) -> bool {
    let wrong = rounds.iter().rev().take_while(|round| is_invalid(round));
    wrong.take(MAX_INVALID).count() == MAX_INVALID
}

fn is_invalid(round: &Round) -> bool {
    let refused = |call: &CallState| match call {
        CallState::Done(outcome) => outcome.status == OutcomeStatus::Refused,
        // The model did nothing wrong when a person would not have it.
        CallState::Denied(_) | CallState::Pending { .. } => false,
    };
    !round.calls.is_empty() && round.calls.iter().all(refused)
}

/// How a call of the last turn stands to the turns before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repetition {
    /// It may be made.
    New,
    /// It was made with the same arguments in the turns right before: the model is told so instead.
    Repeated,
    /// The model was told so, and asks for it all the same.
    Stubborn,
}

/// How `call`, one of the last of `rounds`, stands to the turns before it.
///
/// By turns: the same call twice in one turn may be meant so.
pub(super) fn repetition(rounds: &[Round], call: &ToolCall) -> Repetition {
    let holds = |round: &&Round| {
        let mut calls = round.answer.tool_calls.iter();
        calls.any(|other| is_same(other, call))
    };
    let turns = rounds.iter().rev().take_while(holds).take(REPEATED + 1);
    match turns.count() {
        ..REPEATED => Repetition::New,
        REPEATED => Repetition::Repeated,
        _ => Repetition::Stubborn,
    }
}

/// Whether the last turn asks for nothing but what the model was told that it has asked for before.
pub(super) fn goes_round_in_circles(rounds: &[Round]) -> bool {
    rounds.last().is_some_and(|round| {
        let calls = &round.answer.tool_calls;
        let stubborn = |call: &ToolCall| repetition(rounds, call) == Repetition::Stubborn;
        !calls.is_empty() && calls.iter().all(stubborn)
    })
}

/// What the model reads instead of the result of a call that is not made.
#[must_use]
pub fn not_made(call: &ToolCall, barred: Barred) -> String {
    let why = match barred {
        Barred::Repeated => format!(
            "the same call with the same arguments was asked for in {REPEATED} turns in a row. Use the results that are there, try something else, or answer."
        ),
        Barred::WithoutTools => "no tool may be used here. Answer without them.".to_owned(),
    };
    let name: String = call.name.chars().take(64).collect();
    format!("This call of {name} was not made: {why}")
}

/// Whether two calls ask for the same, however their arguments are written.
fn is_same(one: &ToolCall, other: &ToolCall) -> bool {
    one.name == other.name
        && (one.arguments == other.arguments || {
            let read = |call: &ToolCall| serde_json::from_str::<Value>(&call.arguments);
            match (read(one), read(other)) {
                (Ok(one), Ok(other)) => one == other,
                (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
            }
        })
}

#[cfg(test)]
#[path = "hygiene_tests.rs"]
mod tests;

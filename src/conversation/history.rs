use std::sync::Arc;

use crate::chat::{Answer, Message, PromptMessage, Role, ToolOutcome};

use super::hygiene::is_silent;
use super::prompt::model_view;

/// What came before a job in its conversation.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What stands for the turns before the first of `turns`.
    pub summary: Option<Summary>,
    /// The newest turns, oldest first.
    pub turns: Vec<PastTurn>,
}

/// What stands for the older turns of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The last turn that it stands for.
    pub up_to_turn: u32,
    /// The summary.
    pub content: String,
}

/// An earlier job of the conversation.
#[derive(Clone, Debug)]
pub struct PastTurn {
    /// Its place in the conversation, from 1.
    pub number: u32,
    /// Its own messages.
    pub messages: Vec<Arc<Message>>,
    /// Its rounds, in order.
    pub rounds: Vec<PastRound>,
}

/// An answer of an earlier job, and what its calls came to.
#[derive(Clone, Debug)]
pub struct PastRound {
    /// The answer.
    pub answer: Answer,
    /// The outcomes of its calls, in order; none where a call was never answered.
    pub outcomes: Vec<Option<ToolOutcome>>,
}

impl PastTurn {
    /// What the model reads of this turn: its messages but the system ones, which bound that turn
    /// only, and the rounds whose calls are all answered.
    pub(super) fn prompt(&self, result_bytes: usize) -> Vec<PromptMessage> {
        let given = self
            .messages
            .iter()
            .filter(|message| message.role != Role::System);
        let mut lines: Vec<_> = given.cloned().map(PromptMessage::Given).collect();
        for round in self.answered() {
            let outcomes = round.outcomes.iter().flatten();
            push_round(&round.answer, outcomes, result_bytes, &mut lines);
        }
        lines
    }

    /// The rounds whose calls are all answered. An answer without calls that was not the last was sent
    /// back: it is no part of what was said.
    pub(super) fn answered(&self) -> impl Iterator<Item = &PastRound> {
        let last = self.rounds.len();
        let rounds = (1..).zip(&self.rounds).filter(move |(number, round)| {
            let calls = round.answer.tool_calls.len();
            let answered = round.outcomes.iter().flatten().count();
            answered == calls && (calls > 0 || *number == last)
        });
        rounds.map(|(_, round)| round)
    }
}

/// Writes an answer and the outcomes of all its calls, in the order that providers demand.
pub(super) fn push_round<'a>(
    answer: &Answer,
    outcomes: impl IntoIterator<Item = &'a ToolOutcome>,
    result_bytes: usize,
    lines: &mut Vec<PromptMessage>,
) {
    if is_silent(answer) {
        return;
    }
    lines.push(PromptMessage::Assistant {
        message: Arc::clone(&answer.message),
        tool_calls: Arc::clone(&answer.tool_calls),
        asked: answer.asked.clone(),
    });
    for (call, outcome) in answer.tool_calls.iter().zip(outcomes) {
        lines.push(PromptMessage::Tool {
            call_id: call.call_id.clone(),
            content: model_view(&outcome.text, result_bytes).into(),
            media: Arc::clone(&outcome.media),
        });
    }
}

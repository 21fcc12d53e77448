use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::draft::{Draft, Turn};
use super::history::{History, push_round};
use super::media;
use super::state::{CallState, Conversation, Round};
use crate::chat::{Content, Message, PromptMessage, Role};
use crate::ids::ConversationId;
use crate::wire::Job;

/// What a summary begins with.
const SUMMARY: &str = "Summary of the earlier conversation: ";

/// Everything that a job's model calls begin with: the rules, the earlier turns, the job's messages.
#[derive(Clone, Debug)]
pub struct Opening {
    head: Vec<PromptMessage>,
    turns: Vec<Arc<Turn>>,
    said: Vec<PromptMessage>,
    result_bytes: usize,
}

impl Opening {
    /// The opening of `job`, whose model sees at most `result_bytes` of a tool's result.
    ///
    /// What changes least comes first, so that providers can keep what they have read.
    #[must_use]
    pub fn new(system: &str, history: &History, job: &Job, result_bytes: usize) -> Self {
        let (rules, said): (Vec<_>, Vec<_>) = job
            .messages
            .iter()
            .cloned()
            .partition(|message| message.role == Role::System);
        let mut head = Vec::new();
        if !system.is_empty() {
            head.push(PromptMessage::System(system.into()));
        }
        if let Some(summary) = &history.summary {
            let text = format!("{SUMMARY}{}", summary.content);
            head.push(PromptMessage::System(text.into()));
        }
        head.extend(rules.into_iter().map(PromptMessage::Given));
        let turns = history.turns.iter().map(|turn| turn.prompt(result_bytes));
        let mut turns: Vec<_> = turns.collect();
        media::keep_newest_images(&said, &mut turns);
        Self {
            head,
            turns: turns
                .into_iter()
                .map(|lines| Turn::new(lines).into())
                .collect(),
            said: said.into_iter().map(PromptMessage::Given).collect(),
            result_bytes,
        }
    }

    /// The whole prompt of the next model call, in pieces.
    #[must_use]
    pub fn with(&self, conversation: &Conversation) -> Draft {
        let round = |round| self.round(conversation, round);
        Draft {
            head: self.head.clone(),
            turns: self.turns.clone(),
            said: self.said.clone(),
            rounds: conversation.rounds.iter().map(round).collect(),
        }
    }

    fn round(&self, conversation: &Conversation, round: &Round) -> Vec<PromptMessage> {
        let mut lines = Vec::new();
        let outcomes = round.calls.iter().filter_map(CallState::outcome);
        if round.is_answered() {
            push_round(&round.answer, outcomes, self.result_bytes, &mut lines);
        }
        lines.extend(conversation.told_after(round).map(told));
        lines
    }
}

/// A word of the worker's own to the model. As a user's: servers refuse system messages that do not
/// come first.
fn told(text: String) -> PromptMessage {
    PromptMessage::Given(Arc::new(Message {
        role: Role::User,
        content: Content::Text(text),
    }))
}

/// The configured system prompt with its place holders filled in.
#[must_use]
pub fn system_prompt(
    template: &str,
    user_id: &str,
    conversation_id: ConversationId,
    now: DateTime<Utc>,
) -> String {
    template
        .replace("{user_id}", user_id)
        .replace("{conversation_id}", &conversation_id.to_string())
        .replace("{date}", &now.format("%Y-%m-%d").to_string())
}

/// What the model sees of a tool's result: all of it, or its head and its tail.
#[must_use]
pub fn model_view(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let head = floor(text, most / 3 * 2);
    let tail = ceiling(text, text.len() - most / 3);
    let cut = tail - head;
    Cow::Owned(format!(
        "{}\n[{cut} of {} bytes left out here]\n{}",
        text.get(..head).unwrap_or_default(),
        text.len(),
        text.get(tail..).unwrap_or_default()
    ))
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceiling(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;

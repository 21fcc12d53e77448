use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::history::{PastTurn, push_round};
use super::media;
use super::state::{CallState, Conversation};
use crate::chat::{Content, Message, Part, PromptMessage, Role};
use crate::ids::ConversationId;
use crate::wire::Job;

/// Everything that a job's model calls begin with: the rules, the earlier turns, the job's messages.
#[derive(Clone, Debug)]
pub struct Opening {
    lines: Vec<PromptMessage>,
    result_bytes: usize,
}

impl Opening {
    /// The opening of `job`, whose model sees at most `result_bytes` of a tool's result. With
    /// `context_tokens` the oldest turns are left out, each as a whole, until the rest fits.
    #[must_use]
    pub fn new(
        system: &str,
        history: &[PastTurn],
        job: &Job,
        result_bytes: usize,
        context_tokens: Option<u32>,
    ) -> Self {
        let (rules, said): (Vec<_>, Vec<_>) = job
            .messages
            .iter()
            .cloned()
            .partition(|message| message.role == Role::System);
        let mut lines = Vec::with_capacity(1 + job.messages.len());
        if !system.is_empty() {
            lines.push(PromptMessage::System(system.into()));
        }
        lines.extend(rules.into_iter().map(PromptMessage::Given));
        let said: Vec<_> = said.into_iter().map(PromptMessage::Given).collect();
        let fixed = tokens(&lines) + tokens(&said);
        let room = context_tokens.map(|most| u64::from(most).saturating_sub(fixed));
        lines.extend(newest_that_fit(history, room, result_bytes));
        lines.extend(said);
        Self {
            lines,
            result_bytes,
        }
    }

    /// The whole prompt of the next model call.
    #[must_use]
    pub fn with(&self, conversation: &Conversation) -> Vec<PromptMessage> {
        let mut lines = self.lines.clone();
        for round in &conversation.rounds {
            let outcomes: Vec<_> = round.calls.iter().filter_map(CallState::outcome).collect();
            if outcomes.len() == round.calls.len() {
                push_round(&round.answer, outcomes, self.result_bytes, &mut lines);
            }
            if let Some(text) = conversation.told_after(round) {
                lines.push(told(text));
            }
        }
        media::keep_newest(&mut lines);
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

/// The newest turns that `room` tokens hold, oldest first.
fn newest_that_fit(
    history: &[PastTurn],
    room: Option<u64>,
    result_bytes: usize,
) -> impl Iterator<Item = PromptMessage> {
    let mut left = room;
    let mut kept = Vec::new();
    for turn in history.iter().rev() {
        let lines = turn.prompt(result_bytes);
        if let Some(tokens_left) = left {
            let Some(rest) = tokens_left.checked_sub(tokens(&lines)) else {
                break;
            };
            left = Some(rest);
        }
        kept.push(lines);
    }
    kept.into_iter().rev().flatten()
}

/// An estimate of the tokens of `lines`: four bytes a token, and a few for each message's frame.
fn tokens(lines: &[PromptMessage]) -> u64 {
    let bytes = |line: &PromptMessage| match line {
        PromptMessage::System(text) => text.len(),
        PromptMessage::Given(message) => match &message.content {
            Content::Text(text) => text.len(),
            Content::Parts(parts) => parts.iter().map(part_bytes).sum(),
        },
        PromptMessage::Assistant { message, .. } => message.get().len(),
        PromptMessage::Tool { content, media, .. } => content.len() + IMAGE * media.len(),
    };
    let frame = 16;
    let total: usize = lines.iter().map(|line| bytes(line) + frame).sum();
    total as u64 / 4
}

/// What providers count for an image of middling size, in bytes of text.
const IMAGE: usize = 4 * 800;

fn part_bytes(part: &Part) -> usize {
    match part {
        Part::Text { text } => text.len(),
        Part::ImageUrl { .. } => IMAGE,
    }
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

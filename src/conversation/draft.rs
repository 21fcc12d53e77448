//! A prompt that is not cut to its model's context yet.

use std::sync::{Arc, OnceLock};

use super::media;
use super::prompt::model_view;
use super::weight::{Count, most, weight};
use crate::chat::PromptMessage;

/// How much is left of tools' results in a job that is itself longer than the context, in bytes: of
/// all but the last round, then of the last one too.
const SHORTER: [(Which, usize); 6] = [
    (Which::Older, 4000),
    (Which::Older, 1000),
    (Which::Older, 200),
    (Which::All, 8000),
    (Which::All, 1000),
    (Which::All, 200),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Older,
    All,
}

/// A prompt in the pieces that are kept or left out as a whole.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Always kept: the rules.
    pub(super) head: Vec<PromptMessage>,
    /// The earlier turns, oldest first.
    pub(super) turns: Vec<Arc<Turn>>,
    /// Always kept: what the job says.
    pub(super) said: Vec<PromptMessage>,
    /// Always kept, if need be with less of the tools' results: what the job has come to so far.
    pub(super) rounds: Vec<Vec<PromptMessage>>,
}

/// An earlier turn as the model reads it.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) lines: Vec<PromptMessage>,
    weight: OnceLock<u64>,
}

/// A prompt that was cut to fit.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The prompt.
    pub messages: Vec<PromptMessage>,
    /// What it weighs, in tokens.
    pub weight: u64,
    /// Earlier turns that were left out.
    pub turns_left_out: usize,
    /// Whether less is left of results of tools.
    pub is_trimmed: bool,
}

impl Turn {
    pub(super) fn new(lines: Vec<PromptMessage>) -> Self {
        Self {
            lines,
            weight: OnceLock::new(),
        }
    }

    fn weight(&self, count: Count<'_>) -> u64 {
        *self.weight.get_or_init(|| weight(&self.lines, count))
    }
}

impl Draft {
    /// The most tokens that it can be.
    #[must_use]
    pub fn most(&self) -> u64 {
        let turns = self.turns.iter().map(|turn| most(&turn.lines));
        let rounds = self.rounds.iter().map(|round| most(round));
        most(&self.head) + most(&self.said) + turns.chain(rounds).sum::<u64>()
    }

    /// What it weighs, in tokens.
    #[must_use]
    pub fn weight(&self, count: Count<'_>) -> u64 {
        let turns = self.turns.iter().map(|turn| turn.weight(count));
        self.kept_weight(count) + turns.sum::<u64>()
    }

    /// What it weighed before the job's last round, in tokens.
    #[must_use]
    pub fn weight_before_last(&self, count: Count<'_>) -> u64 {
        let last = self.rounds.last().map_or(0, |round| weight(round, count));
        self.weight(count).saturating_sub(last)
    }

    /// The whole prompt.
    #[must_use]
    pub fn whole(self) -> Vec<PromptMessage> {
        let turns = self.turns.iter().flat_map(|turn| turn.lines.clone());
        let mut lines = self.head;
        lines.extend(turns);
        lines.extend(self.said);
        lines.extend(self.rounds.into_iter().flatten());
        media::keep_newest(&mut lines);
        lines
    }

    /// The prompt in `room` tokens: the oldest turns are left out, each as a whole. If the job alone
    /// is too long, there is less of its tools' results, oldest first. What then is still too long
    /// cannot be cut.
    #[must_use]
    pub fn fit(mut self, room: u64, count: Count<'_>) -> Fitted {
        let mut kept = self.kept_weight(count);
        let mut shorter = SHORTER.iter();
        let mut is_trimmed = false;
        while kept > room
            && let Some(&(which, bytes)) = shorter.next()
        {
            is_trimmed |= self.trim(which, bytes);
            kept = self.kept_weight(count);
        }
        let mut left = room.saturating_sub(kept);
        let fits = |turn: &&Arc<Turn>| {
            let rest = left.checked_sub(turn.weight(count));
            left = rest.unwrap_or_default();
            rest.is_some()
        };
        let turns = self.turns.iter().rev().take_while(fits).count();
        let turns_left_out = self.turns.len() - turns;
        self.turns.drain(..turns_left_out);
        let turns = self.turns.iter().map(|turn| turn.weight(count));
        Fitted {
            weight: kept + turns.sum::<u64>(),
            messages: self.whole(),
            turns_left_out,
            is_trimmed,
        }
    }

    fn kept_weight(&self, count: Count<'_>) -> u64 {
        let rounds = self.rounds.iter().map(|round| weight(round, count));
        weight(&self.head, count) + weight(&self.said, count) + rounds.sum::<u64>()
    }

    /// Leaves at most `most` bytes of each result; whether anything is shorter now.
    fn trim(&mut self, which: Which, most: usize) -> bool {
        let older = self.rounds.len().saturating_sub(1);
        let upto = match which {
            Which::Older => older,
            Which::All => self.rounds.len(),
        };
        let mut is_trimmed = false;
        for line in self.rounds.iter_mut().take(upto).flatten() {
            if let PromptMessage::Tool { content, media, .. } = line
                && (content.len() > most || !media.is_empty())
            {
                *content = model_view(content, most).into();
                *media = Arc::default();
                is_trimmed = true;
            }
        }
        is_trimmed
    }
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;

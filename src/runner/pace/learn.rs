//! What a call is going to take, learnt from what calls took. Pure.

use crate::chat::{Content, Part, Prompt, PromptMessage, Usage};

/// Tokens of an answer before any was seen.
const FIRST_ANSWER: f64 = 300.0;
/// Bytes a token, before any prompt was counted: a little fewer than usual, since too little reserved is
/// worse than too much.
const FIRST_BYTES: f64 = 3.5;
/// How much a new call changes what was known. Little: short answers come back first, and a few of them say
/// nothing about those that are still under way.
const WEIGHT: f64 = 0.03;
/// What an image is taken for, in bytes of text.
const IMAGE: usize = 3200;

/// No tokenizer makes more of a byte, and no model says more: a server that counts so miscounts.
const MOST_A_BYTE: f64 = 4.0;
const LONGEST_ANSWER: f64 = 200_000.0;

/// What is known of a model's calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Learnt {
    tokens_a_byte: f64,
    answer: f64,
    seen: u32,
}

impl Default for Learnt {
    fn default() -> Self {
        Self {
            tokens_a_byte: 1.0 / FIRST_BYTES,
            answer: FIRST_ANSWER,
            seen: 0,
        }
    }
}

impl Learnt {
    /// The tokens of a call with a prompt of so many bytes and an answer of at most so many tokens.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, of sizes far below 2^53"
    )]
    pub(super) fn tokens(&self, bytes: usize, most: Option<u32>) -> u64 {
        let answer = most.map_or(self.answer, |most| self.answer.min(f64::from(most)));
        (bytes as f64 * self.tokens_a_byte + answer).ceil() as u64
    }

    /// A call with a prompt of so many bytes took so many tokens.
    #[expect(
        clippy::cast_precision_loss,
        reason = "an estimate, of sizes far below 2^53"
    )]
    pub(super) fn see(&mut self, bytes: usize, usage: &Usage) {
        if usage.total_tokens == 0 || bytes == 0 {
            return;
        }
        let blend = |old: &mut f64, new: f64, weight: f64| *old += weight * (new - *old);
        self.seen = self.seen.saturating_add(1);
        // The first ones say more: of prompts, which are much alike, and of answers that are longer than was thought.
        let prompt = (1.0 / f64::from(self.seen)).max(WEIGHT);
        let longer = (1.0 / f64::from(self.seen.saturating_add(1))).max(2.0 * WEIGHT);
        let a_byte = (usage.input_tokens as f64 / bytes as f64).min(MOST_A_BYTE);
        blend(&mut self.tokens_a_byte, a_byte, prompt);
        let answer = (usage.output_tokens as f64).min(LONGEST_ANSWER);
        let is_longer = answer > self.answer;
        blend(
            &mut self.answer,
            answer,
            if is_longer { longer } else { WEIGHT },
        );
    }
}

/// The bytes of a prompt that a model reads.
pub(super) fn bytes(prompt: &Prompt) -> usize {
    let messages: usize = prompt.messages.iter().map(message_bytes).sum();
    let tool = |tool: &crate::chat::ToolSpec| {
        tool.name.len() + tool.description.len() + tool.schema.get().len()
    };
    messages + prompt.tools.iter().map(tool).sum::<usize>()
}

fn message_bytes(message: &PromptMessage) -> usize {
    match message {
        PromptMessage::System(text) => text.len(),
        PromptMessage::Given(message) => match &message.content {
            Content::Text(text) => text.len(),
            Content::Parts(parts) => parts.iter().map(part_bytes).sum(),
        },
        PromptMessage::Assistant { message, .. } => message.get().len(),
        PromptMessage::Tool { content, .. } => content.len(),
    }
}

fn part_bytes(part: &Part) -> usize {
    match part {
        Part::Text { text } => text.len(),
        Part::ImageUrl { .. } => IMAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64) -> Usage {
        Usage {
            input_tokens: input,
            output_tokens: output,
            total_tokens: input + output,
            ..Usage::default()
        }
    }

    #[test]
    fn the_first_guess_is_high_and_what_calls_took_is_learnt() {
        let mut learnt = Learnt::default();
        assert_eq!(learnt.tokens(3500, None), 1300);
        assert_eq!(learnt.tokens(3500, Some(100)), 1100);
        learnt.see(3500, &usage(700, 40));
        assert_eq!(learnt.tokens(3500, None), 993);
        for _ in 0..400 {
            learnt.see(3500, &usage(1400, 80));
        }
        let learnt = learnt.tokens(3500, None);
        assert!((1479..=1481).contains(&learnt), "{learnt}");
    }

    #[test]
    fn longer_answers_are_believed_soon_and_shorter_ones_by_and_by() {
        let mut long = Learnt::default();
        let mut short = Learnt::default();
        for _ in 0..5 {
            long.see(4, &usage(1, 1000));
            short.see(4, &usage(1, 20));
        }
        let tokens = |learnt: Learnt| learnt.tokens(0, None);
        assert!(tokens(long) > 800, "{}", tokens(long));
        assert!((250..300).contains(&tokens(short)), "{}", tokens(short));
    }

    #[test]
    fn a_server_that_counts_nothing_teaches_nothing() {
        let mut learnt = Learnt::default();
        learnt.see(3000, &Usage::default());
        learnt.see(0, &usage(10, 10));
        assert_eq!(learnt.tokens(3500, None), 1300);
    }
}

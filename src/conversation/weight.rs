//! What lines of a prompt weigh, in tokens.

use crate::chat::{Content, Part, Prompt, PromptMessage};

/// Counts the tokens of a text.
pub type Count<'a> = &'a dyn Fn(&str) -> u64;

/// Tokens around each message: its role and what parts it from the next.
const FRAME: u64 = 4;
/// Tokens of an image of middling size.
const IMAGE: u64 = 800;
/// Bytes of JSON that make a token at least: names and quotes are dense.
const JSON_BYTES: u64 = 3;
/// Bytes that make a token at most, on the average of any text. What a tokenizer makes less of is not
/// believed: the model's own may be another.
const BYTES: u64 = 4;

/// The most that `lines` can weigh: no token is shorter than a byte.
pub(super) fn most(lines: &[PromptMessage]) -> u64 {
    sum(lines, |text| text.len() as u64)
}

/// What `lines` weigh.
pub(super) fn weight(lines: &[PromptMessage], count: Count<'_>) -> u64 {
    sum(lines, |text| {
        count(text).max((text.len() as u64).div_ceil(BYTES))
    })
}

/// What a prompt weighs before its first message: the tools, and the shape of the reply.
#[must_use]
pub fn overhead(prompt: &Prompt) -> u64 {
    let tools = prompt.tools.iter().map(|tool| {
        let texts = tool.name.len() + tool.description.len() + tool.schema.get().len();
        (texts as u64).div_ceil(JSON_BYTES) + FRAME
    });
    let format = prompt.options.response_format.as_ref();
    let format = format.map_or(0, |format| {
        (format.written().get().len() as u64).div_ceil(JSON_BYTES)
    });
    tools.sum::<u64>() + format
}

fn sum(lines: &[PromptMessage], of_text: impl Fn(&str) -> u64) -> u64 {
    let line = |line: &PromptMessage| match line {
        PromptMessage::System(text) => of_text(text),
        PromptMessage::Given(message) => match &message.content {
            Content::Text(text) => of_text(text),
            Content::Parts(parts) => parts
                .iter()
                .map(|part| match part {
                    Part::Text { text } => of_text(text),
                    Part::ImageUrl { .. } => IMAGE,
                })
                .sum(),
        },
        PromptMessage::Assistant { message, .. } => of_text(message.get()),
        PromptMessage::Tool { content, media, .. } => of_text(content) + IMAGE * media.len() as u64,
    };
    lines.iter().map(|it| line(it) + FRAME).sum()
}

//! What lines of a prompt weigh, in tokens.

use crate::chat::{Answer, Content, Part, Prompt, PromptMessage};

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
#[must_use]
pub fn most(lines: &[PromptMessage]) -> u64 {
    sum(lines, |text| text.len() as u64)
}

/// The tokens of what others than the model say, in words.
#[must_use]
pub fn least(lines: &[PromptMessage], count: Count<'_>) -> u64 {
    let texts = |line: &PromptMessage| match line {
        PromptMessage::System(text) => count(text),
        PromptMessage::Given(message) => match &message.content {
            Content::Text(text) => count(text),
            Content::Parts(parts) => {
                let texts = parts.iter().map(|part| match part {
                    Part::Text { text } => count(text),
                    Part::ImageUrl { .. } => 0,
                });
                texts.sum()
            }
        },
        // What of it is text, and what its provider counts of it, depends.
        PromptMessage::Assistant { .. } => 0,
        PromptMessage::Tool { content, .. } => count(content),
    };
    lines.iter().map(texts).sum()
}

/// What `lines` weigh.
#[must_use]
pub fn weight(lines: &[PromptMessage], count: Count<'_>) -> u64 {
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

/// `answer`, with an estimate of what it used if its server counted nothing: or no budget would ever be
/// spent there.
#[must_use]
pub fn estimated(mut answer: Answer, prompt: &Prompt) -> Answer {
    if answer.usage.total_tokens > 0 {
        return answer;
    }
    let tokens = |text: &str| (text.len() as u64).div_ceil(BYTES);
    let said = answer.content.iter().chain(&answer.refusal);
    let calls = answer.tool_calls.iter();
    let calls = calls.map(|call| tokens(&call.name) + tokens(&call.arguments) + FRAME);
    let input = sum(&prompt.messages, tokens) + overhead(prompt);
    let output = said.map(|text| tokens(text)).chain(calls).sum::<u64>();
    answer.usage.input_tokens = input;
    answer.usage.output_tokens = output;
    answer.usage.total_tokens = input + output;
    answer.is_estimated = true;
    answer
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

//! What a refusal of a prompt that is too long says of how long it may be. Pure.
//!
//! The numbers stand in sentences, each provider's own; what is said is only a hint.

/// The numbers in a refusal, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflow {
    /// What prompt and answer may have together.
    pub limit: Option<u64>,
    /// What the prompt had.
    pub prompt: Option<u64>,
}

/// What stands before a limit.
const BEFORE_LIMIT: [&str; 12] = [
    "context length is ",
    "context size is ",
    "context size (",
    "context window is ",
    "context window of ",
    "context limit is ",
    "model length of ",
    "tokens allowed (",
    "must be <= ",
    "limit ",
    "n_ctx ",
    "tokens > ",
];
/// What stands after a limit.
const AFTER_LIMIT: [&str; 2] = [" maximum context", " token context"];
/// What stands before the length of a prompt.
const BEFORE_PROMPT: [&str; 8] = [
    "prompt is too long: ",
    "resulted in ",
    "input token count (",
    "n_prompt_tokens ",
    "request (",
    "prompt contains ",
    "given: ",
    "input length ",
];
/// What stands after it.
const AFTER_PROMPT: [&str; 5] = [
    " in the messages",
    " of text input",
    " in your prompt",
    " input tokens",
    " `inputs` tokens",
];

impl Overflow {
    /// The numbers in what a provider says.
    pub(super) fn read(said: &str) -> Self {
        let said = said.to_lowercase();
        let find = |before: &[&str], after: &[&str]| {
            let follows = before.iter().find_map(|words| {
                let (_, rest) = said.split_once(words)?;
                number_at_start(rest)
            });
            follows.or_else(|| {
                after.iter().find_map(|words| {
                    let (rest, _) = said.split_once(words)?;
                    number_at_end(rest.trim_end_matches(" tokens"))
                })
            })
        };
        Self {
            limit: find(&BEFORE_LIMIT, &AFTER_LIMIT),
            prompt: find(&BEFORE_PROMPT, &AFTER_PROMPT),
        }
    }
}

fn is_part(char: char) -> bool {
    char.is_ascii_digit() || matches!(char, ',' | '_')
}

fn number_at_start(text: &str) -> Option<u64> {
    let end = text.find(|char| !is_part(char)).unwrap_or(text.len());
    parse(text.get(..end)?)
}

fn number_at_end(text: &str) -> Option<u64> {
    let start = text.trim_end_matches(is_part).len();
    parse(text.get(start..)?)
}

fn parse(digits: &str) -> Option<u64> {
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_found_in_every_providers_words() {
        for (said, limit, prompt) in [
            (
                "This model's maximum context length is 8192 tokens. However, your messages resulted in 10010 tokens. Please reduce the length of the messages.",
                Some(8192),
                Some(10010),
            ),
            (
                "This model's maximum context length is 4097 tokens. However, you requested 4500 tokens (3500 in the messages, 1000 in the completion).",
                Some(4097),
                Some(3500),
            ),
            (
                "This model's maximum context length is 2048 tokens. However, your request has 5000 input tokens.",
                Some(2048),
                Some(5000),
            ),
            (
                "prompt is too long: 210000 tokens > 200000 maximum",
                Some(200_000),
                Some(210_000),
            ),
            (
                "request (4100 tokens) exceeds the available context size (2048 tokens), try increasing it",
                Some(2048),
                Some(4100),
            ),
            (
                "the request exceeds the available context size (n_prompt_tokens 300, n_ctx 256)",
                Some(256),
                Some(300),
            ),
            (
                "The input token count (1,200,000) exceeds the maximum number of tokens allowed (1,048,576).",
                Some(1_048_576),
                Some(1_200_000),
            ),
            (
                "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
                Some(32768),
                Some(40000),
            ),
            (
                "`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens and 100 `max_new_tokens`",
                Some(4097),
                Some(5000),
            ),
            (
                "This endpoint's maximum context length is 32768 tokens. However, you requested about 40000 tokens (39000 of text input, 1000 in the output).",
                Some(32768),
                Some(39000),
            ),
            (
                "Input length 5000 exceeds the maximum model length of 4096.",
                Some(4096),
                Some(5000),
            ),
            (
                "Request too large for gpt-4o on tokens per min (TPM): Limit 6000, Requested 9000.",
                Some(6000),
                None,
            ),
            (
                "Please reduce the length of the messages or completion.",
                None,
                None,
            ),
            ("", None, None),
        ] {
            assert_eq!(Overflow::read(said), Overflow { limit, prompt }, "{said}");
        }
    }
}

//! How many tokens a text has for a model. Pure but for the tables, which are loaded when the first
//! text is counted: that takes tens of milliseconds and megabytes, and many workers never need them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tiktoken_rs::CoreBPE;
use tiktoken_rs::tokenizer::{Tokenizer, get_tokenizer};

/// A text is counted in parts of so many bytes: the tokenizer's patterns take longer than in
/// proportion on texts that are one long run of the same kind.
const PART: usize = 8 * 1024;

/// The tokens of `text` for `model`, as `OpenAI`'s tokenizers count them; those of other makers come
/// out near enough. Slow: a megabyte takes a tenth of a second, and the first call longer.
#[must_use]
pub fn count_tokens(model: &str, text: &str) -> u64 {
    let tokenizer = tokenizer(model);
    let mut rest = text;
    let mut tokens = 0;
    while !rest.is_empty() {
        let (part, more) = rest.split_at(rest.floor_char_boundary(PART.min(rest.len())));
        // A text that the tokenizer cannot stand must not end its job.
        let counted = catch_unwind(AssertUnwindSafe(|| tokenizer.count_ordinary(part)));
        tokens += counted.unwrap_or(part.len()) as u64;
        rest = more;
    }
    tokens
}

fn tokenizer(model: &str) -> &'static CoreBPE {
    match get_tokenizer(model) {
        Some(Tokenizer::Cl100kBase) => tiktoken_rs::cl100k_base_singleton(),
        Some(_) | None => tiktoken_rs::o200k_base_singleton(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_counted_as_openai_counts_them() {
        assert_eq!(count_tokens("gpt-4o", ""), 0);
        assert_eq!(count_tokens("gpt-4o", "hello world"), 2);
        assert_eq!(count_tokens("some-other-model", "hello world"), 2);
        // An older model needs more for the same Spanish.
        let text = "¿Qué pasará mañana por la mañana en Logroño?";
        assert!(count_tokens("gpt-4", text) > count_tokens("gpt-4o", text));
    }

    #[test]
    fn long_and_odd_texts_are_counted_in_no_time() {
        for text in ["a", " ", "\n", "é", "🦀", "x1", "漢"] {
            let long = text.repeat(50_000 / text.len());
            let tokens = count_tokens("gpt-4o", &long);
            assert!(
                (1..=long.len() as u64).contains(&tokens),
                "{text:?}: {tokens}"
            );
        }
    }
}

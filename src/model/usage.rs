//! What a model call used, as either dialect counts it. Pure, and lenient.

use serde_json::value::RawValue;

use super::lenient::{Fields, count};
use crate::chat::Usage;

/// What a call used. What a provider does not count is 0.
pub(super) fn usage(json: &RawValue) -> Usage {
    let mut usage = Usage::default();
    let mut total = None;
    for (key, json) in Fields::read(json).0 {
        match &*key {
            "prompt_tokens" | "input_tokens" => usage.input_tokens = count(Some(json)),
            "completion_tokens" | "output_tokens" => usage.output_tokens = count(Some(json)),
            "total_tokens" => total = Some(count(Some(json))),
            "prompt_tokens_details" | "input_tokens_details" => {
                usage.cached_tokens = detail(json, "cached_tokens");
            }
            "completion_tokens_details" | "output_tokens_details" => {
                usage.reasoning_tokens = detail(json, "reasoning_tokens");
            }
            _ => {}
        }
    }
    // Tokens that only the total counts (reasoning, with some providers) are output: they are paid
    // for like it, and rows hold no total of their own.
    let unlisted = total.unwrap_or_default().saturating_sub(usage.input_tokens);
    usage.output_tokens = usage.output_tokens.max(unlisted);
    usage.total_tokens = usage.input_tokens.saturating_add(usage.output_tokens);
    usage
}

fn detail(json: &RawValue, name: &str) -> u64 {
    count(Fields::read(json).find(name))
}

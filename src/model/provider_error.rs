//! An error as model servers write it, in any of the shapes in use. Pure.

use serde_json::value::RawValue;

use super::classify::Mend;
use super::lenient::{Fields, elements, text};

/// The most characters of a provider's message that are kept.
const MAX_MESSAGE: usize = 500;

/// What a server says about an error; each part may be empty.
#[derive(Debug, Default)]
pub(super) struct ProviderError {
    message: String,
    kind: String,
    code: String,
    /// A second code: Azure's `innererror.code`.
    inner: String,
    /// llama.cpp's numbers of a prompt that is too long.
    numbers: Vec<String>,
    /// `OpenRouter`'s `metadata.reasons`: why its moderation stepped in.
    has_reasons: bool,
}

impl ProviderError {
    /// The error in the body of a response that is no success.
    pub(super) fn in_body(body: &[u8]) -> Self {
        let body = body.trim_ascii();
        match serde_json::from_slice::<&RawValue>(body) {
            Ok(json) => Self::read(json),
            Err(_) => Self::in_plain_text(body),
        }
    }

    /// The error in `json`: `{"error": …}`, an array of it (Gemini), the error itself, or a text.
    pub(super) fn read(json: &RawValue) -> Self {
        if json.get().starts_with('[') {
            return elements(json)
                .first()
                .copied()
                .map(Self::read)
                .unwrap_or_default();
        }
        if let Some(message) = text(json) {
            return Self {
                message,
                ..Self::default()
            };
        }
        let mut read = Self::default();
        let fields = Fields::read(json);
        read.take_fields(&fields);
        // What stands around the error (`detail`, a proxy's `message`) gives way to it.
        match fields.find("error").map(|error| (text(error), error)) {
            Some((Some(message), _)) => read.message = message,
            Some((None, error)) => read.take_fields(&Fields::read(error)),
            None => {}
        }
        read
    }

    fn take_fields(&mut self, fields: &Fields<'_>) {
        for (key, json) in &fields.0 {
            match &**key {
                "message" => self.message = plain(json),
                // FastAPI: a text, or a list of objects.
                "detail" if self.message.is_empty() => self.message = plain(json),
                "type" => self.kind = plain(json),
                "code" => self.code = plain(json),
                "n_prompt_tokens" | "n_ctx" => self.numbers.push(format!("{key} {}", plain(json))),
                "innererror" => {
                    let inner = Fields::read(json).find("code").map(plain);
                    self.inner = inner.unwrap_or_default();
                }
                "metadata" => self.has_reasons = Fields::read(json).find("reasons").is_some(),
                _ => {}
            }
        }
    }

    /// A page of a proxy, or nothing at all.
    fn in_plain_text(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let message = if text.starts_with('<') {
            "a page of HTML"
        } else {
            &text
        };
        Self {
            message: message.to_owned(),
            ..Self::default()
        }
    }

    /// The HTTP status that an error inside a success stands for.
    pub(super) fn implied_status(&self) -> u16 {
        if let Ok(status @ 400..=599) = self.code.parse() {
            return status;
        }
        if self.is_quota() {
            return 402;
        }
        let says = |words: &[&str]| {
            let says = |given: &str| words.iter().any(|word| given.contains(word));
            says(&self.code) || says(&self.kind)
        };
        if says(&["rate_limit"]) {
            429
        } else if self.is_context_overflow() || self.is_content_filter() {
            400
        } else if says(&["api_key", "authentication"]) {
            401
        } else if says(&["not_found"]) {
            404
        } else if says(&[
            "invalid_request",
            "invalid_prompt",
            "invalid_image",
            "unsupported_",
        ]) {
            400
        } else {
            502
        }
    }

    /// The message for people, in one line and cut.
    pub(super) fn into_message(self) -> String {
        let word = [&self.code, &self.kind]
            .into_iter()
            .find(|word| !word.is_empty());
        let said = match (word, self.message.trim()) {
            (Some(word), "") => word.as_str(),
            (_, message) => message,
        };
        let numbers = if self.numbers.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.numbers.join(", "))
        };
        let line = said
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char });
        let mut line: String = line.take(MAX_MESSAGE + 1).collect();
        line.push_str(&numbers);
        if let Some((end, _)) = line.char_indices().nth(MAX_MESSAGE) {
            line.truncate(end);
            line.push('…');
        }
        line
    }

    /// The account has no means left.
    pub(super) fn is_quota(&self) -> bool {
        const WORDS: [&str; 4] = [
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_not_active",
            "insufficient_balance",
        ];
        WORDS
            .iter()
            .any(|word| self.code == *word || self.kind == *word)
    }

    /// A filter stopped the request.
    pub(super) fn is_content_filter(&self) -> bool {
        const WORDS: [&str; 5] = [
            "content_filter",
            "content_policy_violation",
            "image_content_policy_violation",
            "responsibleaipolicyviolation",
            "data_inspection_failed",
        ];
        [&self.code, &self.kind, &self.inner]
            .iter()
            .any(|given| WORDS.iter().any(|word| given.eq_ignore_ascii_case(word)))
    }

    /// A proxy's moderation stopped the request.
    pub(super) fn is_moderation(&self) -> bool {
        self.has_reasons || self.message.to_ascii_lowercase().contains("moderation")
    }

    /// One request is larger than the limit of a minute.
    pub(super) fn is_request_too_large(&self) -> bool {
        self.message.starts_with("Request too large")
    }

    /// The conversation is longer than the model's context.
    pub(super) fn is_context_overflow(&self) -> bool {
        const PHRASES: [&str; 32] = [
            "maximum context length",
            "context length exceeded",
            "context length is",
            "context length of",
            "context_length_exceeded",
            "contextwindowexceeded",
            "context window",
            "available context size",
            "context size is",
            "context size of",
            "context size has been exceeded",
            "context limit",
            "maximum model length",
            "max_model_len",
            "prompt is too long",
            "prompt too long",
            "prompt tokens exceed",
            "input is too long",
            "too many tokens",
            "input token count",
            "maximum prompt length",
            "exceeds the model's maximum context",
            "exceeds the model's maximum input",
            "exceeds the model's maximum prompt",
            "`inputs` must have less than",
            "`inputs` tokens + `max_new_tokens` must be",
            "greater than the context length",
            "longer than the model's context length",
            "exceeded model token limit",
            "prompt token count of",
            "range of input length should be",
            "prompt exceeds max length",
        ];
        const WORDS: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];
        // LiteLLM calls any text that is too long a context overflow; only the phrases count.
        let message = self.message.to_ascii_lowercase();
        let is_of_a_field =
            self.code == "string_above_max_length" || message.contains("string too long");
        WORDS.contains(&self.code.as_str())
            || WORDS.contains(&self.kind.as_str())
            || (!is_of_a_field && PHRASES.iter().any(|phrase| message.contains(phrase)))
            || (message.contains("input length") && message.contains("exceed"))
    }

    /// What would make another request of the refused one.
    pub(super) fn mend(&self) -> Option<Mend> {
        let message = self.message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().all(|word| message.contains(word));
        if says(&["not supported", "/v1/responses"]) || says(&["only supported in v1/responses"]) {
            Some(Mend::SpeakResponses)
        } else if says(&["encrypted content", "not supported"])
            || says(&["reasoning.encrypted_content", "not supported"])
        {
            Some(Mend::AskForNoThoughts)
        } else if self.code == "invalid_encrypted_content"
            || says(&["encrypted content", "could not be"])
            || says(&["item with id 'rs_", "not found"])
            || says(&["of type 'reasoning'", "without its required following item"])
            || says(&["without its required 'reasoning' item"])
        {
            Some(Mend::ForgetThoughts)
        } else if says(&["max_tokens", "not supported", "max_completion_tokens"]) {
            Some(Mend::LimitCompletionTokens)
        } else if says(&["stream_options"]) {
            Some(Mend::StreamWithoutUsage)
        } else {
            None
        }
    }
}

/// A string's text, nothing for null, and any other JSON as it stands.
fn plain(json: &RawValue) -> String {
    match json.get() {
        "null" => String::new(),
        other => text(json).unwrap_or_else(|| other.to_owned()),
    }
}

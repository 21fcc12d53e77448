//! What a failure of the model server means: which code it has, and whether the same call may
//! succeed later. Pure.
//!
//! Compatible servers disagree about the shape of an error (`code` as text or number, the error as
//! an object, a text, or at the top level, `detail` instead of `message`), so it is read leniently.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::value::RawValue;

use super::error::Refusal;
use super::hints::Hints;
use super::provider_error::ProviderError;
use super::throttle::Load;
use crate::fault::Fault;

/// The kinds of failure, one for each code of the contract that the model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Rejected,
    Auth,
    Quota,
    ContextTooLong,
    ContentFiltered,
    Unavailable,
    Protocol,
}

/// What makes another request of one that was refused: the same, in the way that the server wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mend {
    /// Over Responses: `OpenAI`'s newer models take tools in Chat Completions only without reasoning.
    SpeakResponses,
    /// Without asking for sealed thoughts: the model has none.
    AskForNoThoughts,
    /// Without the thoughts of before: the provider cannot read them any more.
    ForgetThoughts,
    /// With `max_completion_tokens` in place of `max_tokens`.
    LimitCompletionTokens,
    /// Without asking a stream for its usage: the server does not know `stream_options`.
    StreamWithoutUsage,
}

/// What a failed attempt means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The kind of failure.
    pub(super) class: Class,
    /// What may be done about it.
    pub(super) fault: Fault,
    /// How often the call may be made in all while it fails so.
    pub(super) most_attempts: u32,
    /// What would make another request of it, if anything.
    pub(super) mend: Option<Mend>,
    /// What is told about it.
    pub(super) refusal: Refusal,
}

/// How often a call is made, the first time included.
pub(super) const MOST_ATTEMPTS: u32 = 3;
/// The same for calls that ran into their timeout: each holds a slot for minutes, and is paid for.
pub(super) const MOST_TIMEOUTS: u32 = 2;

impl Verdict {
    /// The request did not reach the server, or its answer did not reach us.
    pub(super) fn network(what: String) -> Self {
        Self::transient(Class::Unavailable, Refusal::new(what))
    }

    /// The call took longer than `limit`.
    pub(super) fn timeout(limit: Duration) -> Self {
        let what = format!("no answer within {} s", limit.as_secs_f64().ceil());
        Self {
            most_attempts: MOST_TIMEOUTS,
            ..Self::network(what)
        }
    }

    /// A reply that cannot be read. `what` must hold nothing of it.
    pub(super) fn malformed(what: &str) -> Self {
        Self::transient(Class::Protocol, Refusal::new(what.to_owned()))
    }

    /// A reply larger than is read. Another one would be as large.
    pub(super) fn too_large(most: usize) -> Self {
        let what = format!("a reply of more than {} MiB", most >> 20);
        Self {
            fault: Fault::Permanent,
            ..Self::malformed(&what)
        }
    }

    /// An answer that ended before its first token: the prompt left no room for it.
    pub(super) fn no_room() -> Self {
        let what = "the answer ended before its first token: the prompt fills the context";
        Self {
            class: Class::ContextTooLong,
            fault: Fault::Permanent,
            ..Self::malformed(what)
        }
    }

    /// An `error` object in a reply that says to be a success.
    pub(super) fn error_in_reply(error: &RawValue) -> Self {
        let error = ProviderError::read(error);
        let status = error.implied_status();
        judge(status, &Hints::default(), error)
    }

    /// Whether the server said that calls come too fast.
    pub(super) fn is_rate_limit(&self) -> bool {
        self.refusal.status == Some(429) && matches!(self.fault, Fault::Retry { .. })
    }

    /// What it says of the server's load.
    pub(super) fn load(&self) -> Load {
        let is_overload = matches!(self.refusal.status, Some(503 | 529));
        if self.is_rate_limit() || is_overload {
            Load::TooMuch
        } else {
            Load::Unknown
        }
    }

    /// A word for it, in the label of a figure.
    pub(super) fn name(&self) -> &'static str {
        match self.class {
            Class::Unavailable if self.is_rate_limit() => "rate_limited",
            Class::Unavailable => "unavailable",
            Class::Rejected => "rejected",
            Class::Auth => "auth",
            Class::Quota => "quota",
            Class::ContextTooLong => "context_too_long",
            Class::ContentFiltered => "content_filtered",
            Class::Protocol => "protocol",
        }
    }

    fn transient(class: Class, refusal: Refusal) -> Self {
        Self {
            class,
            fault: Fault::Retry { after: None },
            most_attempts: MOST_ATTEMPTS,
            mend: None,
            refusal,
        }
    }
}

/// What a response that is no success means.
pub(super) fn classify(status: u16, hints: &Hints, body: &[u8]) -> Verdict {
    judge(status, hints, ProviderError::in_body(body))
}

fn judge(status: u16, hints: &Hints, error: ProviderError) -> Verdict {
    let class = class(status, hints, &error);
    let retry = matches!(class, Class::Unavailable);
    let fault = if retry {
        Fault::Retry {
            after: hints.retry_after,
        }
    } else {
        Fault::Permanent
    };
    let mend = matches!(class, Class::Rejected)
        .then(|| error.mend())
        .flatten();
    let advice = advice(status, class, mend);
    Verdict {
        class,
        fault,
        most_attempts: if hints.should_retry == Some(false) {
            1
        } else {
            MOST_ATTEMPTS
        },
        mend,
        refusal: Refusal {
            status: Some(status),
            what: error.into_message(),
            advice: advice.map(Cow::Borrowed),
            request_id: hints.request_id.clone(),
        },
    }
}

fn class(status: u16, hints: &Hints, error: &ProviderError) -> Class {
    let filtered = error.is_content_filter() || (status == 403 && error.is_moderation());
    match status {
        402 => Class::Quota,
        400 | 403 | 429 if error.is_quota() => Class::Quota,
        // More tokens in one request than the limit of a minute: waiting does not help.
        429 if error.is_request_too_large() => Class::ContextTooLong,
        400..=499 if filtered => Class::ContentFiltered,
        // llama.cpp says so with a 500, for ever.
        400 | 404 | 422 | 500 if error.is_context_overflow() => Class::ContextTooLong,
        // The body as a whole, or the tokens of one request (Groq): less history is the cure of both.
        413 => Class::ContextTooLong,
        401 | 403 => Class::Auth,
        408 | 409 | 425 | 429 | 500..=599 => Class::Unavailable,
        _ if hints.should_retry == Some(true) => Class::Unavailable,
        _ => Class::Rejected,
    }
}

fn advice(status: u16, class: Class, mend: Option<Mend>) -> Option<&'static str> {
    match (status, class) {
        (300..=399, _) => {
            Some("redirects are not followed: set OPENAI_BASE_URL to the address itself")
        }
        (_, Class::Auth) => Some("check OPENAI_API_KEY and what it may do"),
        (_, Class::Quota) => Some("check the account's credit and limits"),
        (404 | 405, _) if mend.is_none() => Some("check OPENAI_BASE_URL and the name of the model"),
        (_, Class::ContextTooLong) => {
            Some("set CHAT_CONTEXT_TOKENS to what the model takes, or start a new conversation")
        }
        (_, Class::Rejected) => match mend? {
            Mend::SpeakResponses => Some(
                "set CHAT_API, or `api` of this model in CHAT_MODEL_CONFIG, to `responses`; or ask for `reasoning_effort` \"none\": over Chat Completions this model takes no tools otherwise",
            ),
            Mend::LimitCompletionTokens => {
                Some("set `max_tokens_field` of this model in CHAT_MODEL_CONFIG")
            }
            Mend::AskForNoThoughts | Mend::ForgetThoughts | Mend::StreamWithoutUsage => None,
        },
        _ => None,
    }
}

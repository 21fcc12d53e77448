use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::classify::{Class, Verdict};
use super::overflow::Overflow;
use crate::config::ProviderConfig;
use crate::fault::{ErrorCode, Fault};

/// Why a model call gave no answer. No text here holds the key or a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The HTTP client could not be built.
    #[error("the client of the model server cannot be built: {0}")]
    Client(String),
    /// The server refused the request for good.
    #[error("the model server refused the request: {0}")]
    Rejected(Refused),
    /// The server did not accept the credentials.
    #[error("the model server did not accept the credentials: {0}")]
    Auth(Refused),
    /// The account has no means left.
    #[error("the account at the model server has no means left: {0}")]
    Quota(Refused),
    /// The conversation is longer than the model's context.
    #[error("the conversation is longer than the model takes: {0}")]
    ContextTooLong(Refused),
    /// A content filter stopped the request.
    #[error("a content filter stopped the request: {0}")]
    ContentFiltered(Refused),
    /// The server could not be reached, was too slow, too busy or failed.
    #[error("the model server is unavailable: {refused}")]
    Unavailable {
        /// What happened last.
        refused: Refused,
        /// The least time to wait, when the server named one; at most an hour.
        after: Option<Duration>,
    },
    /// The server's replies cannot be read.
    #[error("the model server does not speak the protocol: {refused}")]
    Protocol {
        /// What happened last.
        refused: Refused,
        /// Whether another reply may be better.
        fault: Fault,
    },
    /// Whoever permits attempts did not permit one.
    #[error("the model may not be asked now")]
    NotPermitted,
    /// The deadline passed.
    #[error("the deadline passed while the model was asked ({attempts} attempt(s))")]
    Deadline {
        /// How often the model was asked.
        attempts: u32,
    },
}

impl ModelError {
    /// The error that `verdict` is after `attempts`.
    pub(super) fn new(verdict: Verdict, attempts: u32) -> Self {
        let refused = Refused {
            attempts,
            refusal: verdict.refusal,
        };
        let after = match verdict.fault {
            Fault::Retry { after } => after,
            Fault::Permanent | Fault::Cancelled => None,
        };
        match verdict.class {
            Class::Rejected => Self::Rejected(refused),
            Class::Auth => Self::Auth(refused),
            Class::Quota => Self::Quota(refused),
            Class::ContextTooLong => Self::ContextTooLong(refused),
            Class::ContentFiltered => Self::ContentFiltered(refused),
            Class::Unavailable => Self::Unavailable { refused, after },
            Class::Protocol => Self::Protocol {
                refused,
                fault: verdict.fault,
            },
        }
    }

    /// The code in results and dead letters.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Client(_) | Self::NotPermitted => ErrorCode::Internal,
            Self::Rejected(_) => ErrorCode::ModelRejected,
            Self::Auth(_) => ErrorCode::ModelAuth,
            Self::Quota(_) => ErrorCode::ModelQuota,
            Self::ContextTooLong(_) => ErrorCode::ContextTooLong,
            Self::ContentFiltered(_) => ErrorCode::ContentFiltered,
            Self::Unavailable { .. } => ErrorCode::ModelUnavailable,
            Self::Protocol { .. } => ErrorCode::ModelProtocol,
            Self::Deadline { .. } => ErrorCode::DeadlineExceeded,
        }
    }

    /// Whether another model may answer where this one did not: it is down, its account or its key is
    /// no good, or there is no such model. What is wrong with the request is wrong everywhere.
    #[must_use]
    pub fn lets_others_try(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Protocol { .. } | Self::Auth(_) | Self::Quota(_) => {
                true
            }
            Self::Rejected(refused) => matches!(refused.status(), Some(404 | 410)),
            Self::Client(_)
            | Self::ContextTooLong(_)
            | Self::ContentFiltered(_)
            | Self::NotPermitted
            | Self::Deadline { .. } => false,
        }
    }

    /// How long its model is held back, if that is why it was not even asked.
    #[must_use]
    pub fn held_for(&self) -> Option<Duration> {
        let Self::Unavailable { refused, after } = self else {
            return None;
        };
        after.filter(|_| refused.attempts == 0)
    }

    /// How much too long the prompt was, as far as that was said; none if that was not the trouble.
    #[must_use]
    pub fn overflow(&self) -> Option<Overflow> {
        match self {
            Self::ContextTooLong(refused) => Some(Overflow::read(&refused.refusal.what)),
            Self::Client(_)
            | Self::Rejected(_)
            | Self::Auth(_)
            | Self::Quota(_)
            | Self::ContentFiltered(_)
            | Self::Unavailable { .. }
            | Self::Protocol { .. }
            | Self::NotPermitted
            | Self::Deadline { .. } => None,
        }
    }

    /// What may be done about it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unavailable { after, .. } => Fault::Retry { after: *after },
            Self::Protocol { fault, .. } => *fault,
            Self::NotPermitted => Fault::Retry { after: None },
            Self::Client(_)
            | Self::Rejected(_)
            | Self::Auth(_)
            | Self::Quota(_)
            | Self::ContextTooLong(_)
            | Self::ContentFiltered(_)
            | Self::Deadline { .. } => Fault::Permanent,
        }
    }
}

/// What was refused last, and how often it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How often the model was asked; 0 when a known rate limit kept the call back.
    pub attempts: u32,
    pub(super) refusal: Refusal,
}

impl Refused {
    /// The last HTTP status, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.refusal.status
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal {
            status,
            what,
            advice,
            request_id,
        } = &self.refusal;
        if let Some(status) = status {
            write!(f, "HTTP {status}: ")?;
        }
        f.write_str(match what.trim_end_matches('.') {
            "" => "no reason given",
            what => what,
        })?;
        if let Some(advice) = advice {
            write!(f, "; {advice}")?;
        }
        match (self.attempts, request_id) {
            (..=1, None) => Ok(()),
            (..=1, Some(request)) => write!(f, " (request {request})"),
            (times, None) => write!(f, " ({times} times in a row)"),
            (times, Some(request)) => write!(f, " ({times} times in a row, request {request})"),
        }
    }
}

/// `text` without a secret that is so short that it may be a part of any word.
fn without_word(text: &str, secret: &str) -> String {
    let is_word = |char: char| char.is_alphanumeric();
    let mut pieces = text.split(secret);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_apart = !out.ends_with(is_word) && !piece.starts_with(is_word);
        out.push_str(if is_apart { "[secret]" } else { secret });
        out.push_str(piece);
    }
    out
}

/// So much of a secret's start is no accident in a text.
const MASKED: usize = 8;

/// One failed attempt in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Option<u16>,
    /// What the provider said, or what happened.
    pub(super) what: String,
    /// What to do about it.
    pub(super) advice: Option<Cow<'static, str>>,
    /// The provider's id of the request.
    pub(super) request_id: Option<String>,
}

impl Refusal {
    pub(super) fn new(what: String) -> Self {
        Self {
            what,
            ..Self::default()
        }
    }

    /// The advice, with the settings that count for this server.
    pub(super) fn advising(mut self, server: &ProviderConfig) -> Self {
        let key = "OPENAI_API_KEY";
        if let Some(advice) = &self.advice
            && advice.contains(key)
            && server.key_variable != key
        {
            self.advice = Some(advice.replace(key, &server.key_variable).into());
        }
        self
    }

    /// Takes `secret` out of what a provider may have repeated, whole or with its middle masked.
    pub(super) fn without(mut self, secret: &str) -> Self {
        if !secret.is_empty() {
            for text in [Some(&mut self.what), self.request_id.as_mut()]
                .into_iter()
                .flatten()
            {
                if secret.len() >= MASKED {
                    *text = text.replace(secret, "[secret]");
                } else {
                    *text = without_word(text, secret);
                }
                if let Some(start) = secret.get(..MASKED).filter(|start| text.contains(start)) {
                    let words = text.split(' ').map(|word| match word.find(start) {
                        Some(at) => format!("{}[secret]", word.get(..at).unwrap_or_default()),
                        None => word.to_owned(),
                    });
                    *text = words.collect::<Vec<_>>().join(" ");
                }
            }
        }
        self
    }
}

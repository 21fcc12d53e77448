//! How a failure is to be treated, and what it is called towards users.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What may be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The same call may succeed later; `after` is what the other side asked for.
    Retry {
        /// The least time to wait, when the other side named one.
        after: Option<Duration>,
    },
    /// The same call will fail again.
    Permanent,
    /// The work was called off; nothing failed.
    Cancelled,
}

/// The error codes of results and dead letters. The text of each is part of the public contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The body is no JSON.
    InvalidJson,
    /// The body is JSON, but no job.
    InvalidJob,
    /// The job is of a version that this worker does not know.
    UnsupportedVersion,
    /// The body is larger than this worker takes.
    JobTooLarge,
    /// The job id was used before with other content.
    JobIdConflict,
    /// The conversation belongs to another user.
    ConversationForbidden,
    /// The conversation has an unfinished job and the new one would not wait.
    ConversationBusy,
    /// The sender may not speak for this user.
    Unauthorized,
    /// The model is not allowed here.
    UnknownModel,
    /// The job names a tool server that is not configured here.
    UnknownToolServer,
    /// The model server refused the request for good.
    ModelRejected,
    /// The model server did not accept the credentials.
    ModelAuth,
    /// The account has no means left.
    ModelQuota,
    /// The conversation is longer than the model's context.
    ContextTooLong,
    /// A content filter stopped the request or the answer.
    ContentFiltered,
    /// Timeouts, 429 and 5xx, after all retries.
    ModelUnavailable,
    /// The model server answered with something unreadable, after all retries.
    ModelProtocol,
    /// A tool server that is needed could not be started or reached.
    ToolsUnavailable,
    /// The user has spent what a user may spend today.
    BudgetExceeded,
    /// The job's deadline passed.
    DeadlineExceeded,
    /// The job was cancelled.
    Cancelled,
    /// The job's worker died, or the job failed, too often.
    AttemptsExhausted,
    /// A defect of the worker.
    Internal,
}

impl ErrorCode {
    /// The code that a row names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_value(text.into()).ok()
    }

    /// The code as it stands in messages and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidJob => "invalid_job",
            Self::UnsupportedVersion => "unsupported_version",
            Self::JobTooLarge => "job_too_large",
            Self::JobIdConflict => "job_id_conflict",
            Self::ConversationForbidden => "conversation_forbidden",
            Self::ConversationBusy => "conversation_busy",
            Self::Unauthorized => "unauthorized",
            Self::UnknownModel => "unknown_model",
            Self::UnknownToolServer => "unknown_tool_server",
            Self::ModelRejected => "model_rejected",
            Self::ModelAuth => "model_auth",
            Self::ModelQuota => "model_quota",
            Self::ContextTooLong => "context_too_long",
            Self::ContentFiltered => "content_filtered",
            Self::ModelUnavailable => "model_unavailable",
            Self::ModelProtocol => "model_protocol",
            Self::ToolsUnavailable => "tools_unavailable",
            Self::BudgetExceeded => "budget_exceeded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure as a person reads it: a code of the contract and a text that holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What failed, why, and what to do.
    pub message: String,
}

/// The longest text of a failure, in bytes: it may quote what somebody sent.
const MAX_TEXT: usize = 1024;
const ELLIPSIS: &str = "…";

impl Failure {
    /// A failure with its text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_TEXT {
            message.truncate(message.floor_char_boundary(MAX_TEXT - ELLIPSIS.len()));
            message.push_str(ELLIPSIS);
        }
        Self { code, message }
    }
}

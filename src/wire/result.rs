use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ReplyFormat;
use crate::chat::Usage;
use crate::fault::ErrorCode;
use crate::ids::{ConversationId, JobId};

/// The result of a chat job, version 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "chat result")]
pub struct JobResult {
    /// Always 1.
    #[schemars(extend("const" = 1))]
    pub version: u64,
    /// The job's id.
    pub job_id: JobId,
    /// The conversation's id; absent when the message was no readable job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
    /// Who the job spoke for; absent when the message was no readable job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The job's place in its conversation, from 1; absent when it never got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u32>,
    /// True for `completed` alone.
    pub success: bool,
    /// How the job ended.
    pub status: Status,
    /// Why a completed job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// The reply of a completed job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Reply>,
    /// The reply as a value, of a completed job that asked for JSON in `options.response_format`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parsed: Option<Value>,
    /// What went wrong, of a job that failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ResultError>,
    /// How often the model was asked.
    pub iterations: u32,
    /// How many tool calls it made.
    pub tool_calls: u32,
    /// What the job used.
    pub usage: Usage,
    /// The model that answered, as the provider names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which run of the job made this result, from 1; 0 when it never ran.
    pub attempt: u32,
    /// What went on without something, such as the tools of a server that was down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// When a worker first took the job in.
    pub received_at: DateTime<Utc>,
    /// When the job first ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// The job's own metadata; null when it had none.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// With a reply.
    Completed,
    /// With an error.
    Failed,
    /// It was called off.
    Cancelled,
}

impl Status {
    /// The status as it stands in messages and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a completed job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model answered.
    Answered,
    /// The model still wanted tools after its last iteration.
    IterationLimit,
    /// The job's budget was spent.
    Budget,
    /// The model was cut off.
    Length,
    /// The model refused.
    Refused,
}

impl FinishReason {
    /// Every reason there is.
    pub const ALL: [Self; 5] = [
        Self::Answered,
        Self::IterationLimit,
        Self::Budget,
        Self::Length,
        Self::Refused,
    ];

    /// The reason as it stands in messages and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::IterationLimit => "iteration_limit",
            Self::Budget => "budget",
            Self::Length => "length",
            Self::Refused => "refused",
        }
    }

    /// The reason that a row names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// The reply of a completed job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reply {
    /// Always `assistant`.
    #[schemars(extend("const" = "assistant"))]
    pub role: String,
    /// What is said.
    pub content: String,
    /// The model's refusal, if it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

impl Reply {
    /// The value that the reply is, where `format` says what it has to be and it is that.
    #[must_use]
    pub fn parsed(
        &self,
        format: Option<&ReplyFormat>,
        reason: Option<FinishReason>,
    ) -> Option<Value> {
        match reason? {
            FinishReason::Answered | FinishReason::Length => format?.read(&self.content).ok(),
            FinishReason::IterationLimit | FinishReason::Budget | FinishReason::Refused => None,
        }
    }

    /// A reply of the assistant.
    #[must_use]
    pub fn assistant(content: String, refusal: Option<String>) -> Self {
        Self {
            role: "assistant".to_owned(),
            content,
            refusal,
        }
    }
}

/// What went wrong with a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultError {
    /// What kind of error.
    pub code: ErrorCode,
    /// What failed, why, and what to do.
    pub message: String,
}

use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::result::{JobResult, ResultError};
use crate::chat::{OutcomeStatus, Usage};
use crate::ids::{ConversationId, JobId};

/// An event in the life of a chat job, version 1.
///
/// Progress for who wants to watch: it may get lost, and slows nobody. What is to be relied on is
/// the result. No event but `job.finished` and `model.delta` holds a word of a prompt, an answer,
/// a tool's arguments or a tool's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "chat event")]
pub struct Event {
    /// Always 1.
    #[schemars(extend("const" = 1))]
    pub version: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
    /// The job.
    pub job_id: JobId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Who the job speaks for.
    pub user_id: Arc<str>,
    /// The run of the job that says it, from 1; 0 before the first run.
    pub attempt: u32,
    /// From 1, one more with each event of an attempt: a gap tells of events that got lost.
    pub sequence: u64,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// The job's own metadata; null when it had none.
    #[serde(default)]
    pub metadata: Option<Arc<Map<String, Value>>>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event")]
pub enum Happening {
    /// A worker runs the job.
    #[serde(rename = "job.started")]
    JobStarted {
        /// The model that is asked.
        model: Arc<str>,
        /// The job's place in its conversation, from 1.
        turn: u32,
        /// Answers of the model that earlier runs have stored.
        iterations: u32,
    },
    /// The job waits, and holds no slot meanwhile.
    #[serde(rename = "job.waiting")]
    JobWaiting {
        /// For what.
        reason: WaitReason,
        /// Until when, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due_at: Option<DateTime<Utc>>,
        /// The calls that wait for approval, of a job that does.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<EventCall>,
        /// What went wrong, of a job that is tried again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ResultError>,
    },
    /// The model is asked.
    #[serde(rename = "model.started")]
    ModelStarted {
        /// The round, from 1.
        iteration: u32,
        /// The model that is asked.
        model: Arc<str>,
    },
    /// The model said this much more. Only of jobs with `"stream": true`.
    #[serde(rename = "model.delta")]
    ModelDelta {
        /// The round, from 1.
        iteration: u32,
        /// What is to be put behind what the round has said so far.
        text: String,
    },
    /// The model is asked again: what the round has said so far is void.
    #[serde(rename = "model.restarted")]
    ModelRestarted {
        /// The round, from 1.
        iteration: u32,
        /// Why.
        error: ResultError,
    },
    /// The model has answered.
    #[serde(rename = "model.finished")]
    ModelFinished {
        /// The round, from 1.
        iteration: u32,
        /// The model that answered, as the provider names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// Why it stopped, in the provider's word.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        finish_reason: Option<String>,
        /// How many tool calls it asks for.
        tool_calls: u32,
        /// What the answer used.
        usage: Usage,
        /// How long it took, tries in between included.
        duration_ms: u64,
    },
    /// Tool servers are down, and the job goes on without their tools.
    #[serde(rename = "tools.missing")]
    ToolsMissing {
        /// Their names.
        servers: Vec<String>,
    },
    /// A tool is called.
    #[serde(rename = "tool.started")]
    ToolStarted {
        /// Which call.
        #[serde(flatten)]
        call: EventCall,
    },
    /// A tool says how far it is.
    #[serde(rename = "tool.progress")]
    ToolProgress {
        /// Which call.
        #[serde(flatten)]
        call: EventCall,
        /// How far; it grows.
        progress: f64,
        /// How far it has to come, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<f64>,
        /// What the tool says of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A tool call has ended.
    #[serde(rename = "tool.finished")]
    ToolFinished {
        /// Which call.
        #[serde(flatten)]
        call: EventCall,
        /// How: `succeeded`, `failed`, `refused` (it was not made) or `interrupted` (by the end of
        /// an earlier run; what it did is unknown).
        status: OutcomeStatus,
        /// The result's size before any cut.
        bytes: u64,
        /// How long it took.
        duration_ms: u64,
    },
    /// The job has ended.
    #[serde(rename = "job.finished")]
    JobFinished {
        /// The whole result.
        result: Box<JobResult>,
    },
}

/// A tool call, as an event names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventCall {
    /// The round that asked for it, from 1.
    pub iteration: u32,
    /// Its place in the round, from 1.
    pub position: u32,
    /// The model's id of the call.
    pub call_id: String,
    /// The tool, as the model names it.
    pub tool: String,
    /// The tool's server; absent when no server has the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// What a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WaitReason {
    /// Its turn in the conversation.
    Turn,
    /// Another try.
    Retry,
    /// Its time.
    Schedule,
    /// A human's word on a tool call.
    Approval,
    /// A worker that takes it out of the database.
    Enqueued,
}

impl WaitReason {
    /// The reason as it stands in messages and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Retry => "retry",
            Self::Schedule => "schedule",
            Self::Approval => "approval",
            Self::Enqueued => "enqueued",
        }
    }
}

impl Happening {
    /// The event's name, which ends its routing key.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::JobStarted { .. } => "job.started",
            Self::JobWaiting { .. } => "job.waiting",
            Self::ModelStarted { .. } => "model.started",
            Self::ModelDelta { .. } => "model.delta",
            Self::ModelRestarted { .. } => "model.restarted",
            Self::ModelFinished { .. } => "model.finished",
            Self::ToolsMissing { .. } => "tools.missing",
            Self::ToolStarted { .. } => "tool.started",
            Self::ToolProgress { .. } => "tool.progress",
            Self::ToolFinished { .. } => "tool.finished",
            Self::JobFinished { .. } => "job.finished",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: Happening) -> Event {
        let metadata = Map::from_iter([("ticket".to_owned(), 991.into())]);
        Event {
            version: 1,
            what,
            job_id: JobId(uuid::Uuid::from_u128(1)),
            conversation_id: ConversationId(uuid::Uuid::from_u128(2)),
            user_id: Arc::from("u"),
            attempt: 1,
            sequence: 7,
            at: DateTime::from_timestamp(1_767_225_600, 0).unwrap(),
            metadata: Some(Arc::new(metadata)),
        }
    }

    #[test]
    fn what_happened_stands_beside_whom_it_happened_to() {
        let call = EventCall {
            iteration: 1,
            position: 2,
            call_id: "c".to_owned(),
            tool: "calc__add".to_owned(),
            server: None,
        };
        let sent = event(Happening::ToolFinished {
            call,
            status: OutcomeStatus::Succeeded,
            bytes: 2,
            duration_ms: 3,
        });
        let json = serde_json::to_value(&sent).unwrap();
        let expected = serde_json::json!({
            "version": 1, "event": "tool.finished", "job_id": "00000000-0000-0000-0000-000000000001",
            "conversation_id": "00000000-0000-0000-0000-000000000002", "user_id": "u", "attempt": 1,
            "sequence": 7, "at": "2026-01-01T00:00:00Z", "metadata": {"ticket": 991},
            "iteration": 1, "position": 2, "call_id": "c", "tool": "calc__add", "status": "succeeded", "bytes": 2,
            "duration_ms": 3,
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), sent);
    }

    #[test]
    fn an_event_is_called_the_same_in_its_body_and_in_its_key() {
        let call = || EventCall {
            iteration: 1,
            position: 1,
            call_id: String::new(),
            tool: String::new(),
            server: Some(String::new()),
        };
        let error = || ResultError {
            code: crate::fault::ErrorCode::Internal,
            message: String::new(),
        };
        let model = || Arc::from("m");
        let iteration = 1;
        let usage = Usage::default();
        for what in [
            Happening::JobStarted {
                model: model(),
                turn: 1,
                iterations: 0,
            },
            Happening::JobWaiting {
                reason: WaitReason::Turn,
                due_at: None,
                calls: Vec::new(),
                error: None,
            },
            Happening::ModelStarted {
                iteration,
                model: model(),
            },
            Happening::ModelDelta {
                iteration,
                text: String::new(),
            },
            Happening::ModelRestarted {
                iteration,
                error: error(),
            },
            Happening::ModelFinished {
                iteration,
                model: None,
                finish_reason: None,
                tool_calls: 0,
                usage,
                duration_ms: 0,
            },
            Happening::ToolsMissing {
                servers: Vec::new(),
            },
            Happening::ToolStarted { call: call() },
            Happening::ToolProgress {
                call: call(),
                progress: 0.5,
                total: None,
                message: None,
            },
            Happening::ToolFinished {
                call: call(),
                status: OutcomeStatus::Failed,
                bytes: 0,
                duration_ms: 0,
            },
        ] {
            let name = what.name();
            let json = serde_json::to_value(event(what)).unwrap();
            assert_eq!(json["event"], name);
        }
    }

    #[test]
    fn reasons_are_called_the_same_in_rows() {
        for reason in [
            WaitReason::Turn,
            WaitReason::Retry,
            WaitReason::Schedule,
            WaitReason::Approval,
            WaitReason::Enqueued,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}

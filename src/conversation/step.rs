use std::sync::Arc;

use crate::chat::{ToolCall, ToolChoice};
use crate::fault::Failure;
use crate::wire::FinishReason;

/// What a conversation wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask the model.
    AskModel(Ask),
    /// Make these calls, together.
    CallTools(Vec<PendingCall>),
    /// Wait for a person's word on these calls, all that are left of a round.
    AwaitApproval(Vec<PendingCall>),
    /// The job has ended.
    Finish(Outcome),
}

/// How the model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which iteration this is, from 1.
    pub iteration: u32,
    /// Whether it may or must use tools this time.
    pub tool_choice: ToolChoice,
}

/// A call that has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCall {
    /// Its place among the calls of its iteration, from 1.
    pub position: u32,
    /// The call.
    pub call: ToolCall,
    /// An earlier run had begun it and died: what it did is unknown.
    pub interrupted: Option<Interrupted>,
    /// Why it is not made, if it is not: the model is told so instead.
    pub barred: Option<Barred>,
    /// Whether a person has a say in it.
    pub approval: Approval,
}

/// Why a call is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// The turns right before asked for the same.
    Repeated,
    /// The job is one without tools.
    WithoutTools,
}

/// A call whose run died over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The server that it went to, if that was stored.
    pub server: Option<Arc<str>>,
}

/// Whether a person has a say in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Nobody was asked.
    NotAsked,
    /// It is not made before somebody says so.
    Awaited,
    /// Somebody said so.
    Given,
}

/// How a job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a reply.
    Completed {
        /// Why.
        reason: FinishReason,
        /// What is said; none for the configured text of an unfinished reply.
        content: Option<String>,
        /// The model's refusal.
        refusal: Option<String>,
    },
    /// With an error.
    Failed(Failure),
    /// Because somebody called it off.
    Cancelled(Failure),
}

impl Outcome {
    /// A job that a limit stopped before the model had answered.
    #[must_use]
    pub fn unfinished(reason: FinishReason) -> Self {
        Self::Completed {
            reason,
            content: None,
            refusal: None,
        }
    }
}

//! One call from beginning to end, whatever happens to it: what comes out is always something that
//! the model can read.

use std::time::Instant;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::catalogue::RetryClass;
use super::content;
use super::error::StartError;
use super::pool::{Lease, LeaseError};
use super::server::Server;
use super::session::{Answer, CallError, Request};
use crate::chat::{OutcomeStatus, ToolOutcome};
use crate::clock::Deadline;
use crate::crash::{self, Act};

/// A call that is fit to be made.
pub(super) struct Call {
    pub(super) server: Server,
    pub(super) tool: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) meta: Map<String, Value>,
    pub(super) retry: RetryClass,
    pub(super) deadline: Deadline,
}

impl Call {
    /// Makes the call, twice if its process ended under it and making it again does no harm.
    pub(super) async fn run(self, cancelled: CancellationToken) -> ToolOutcome {
        let begun = Instant::now();
        let outcome = self.make(&cancelled).await;
        let word = if cancelled.is_cancelled() {
            "cancelled"
        } else {
            outcome.status.as_str()
        };
        let meter = self.server.core().meter();
        meter.called(word, begun.elapsed());
        outcome
    }

    async fn make(&self, cancelled: &CancellationToken) -> ToolOutcome {
        let mut outcome = self.attempt(cancelled).await;
        let safe = self.retry == RetryClass::Safe;
        if safe && outcome == Err(Trouble::Call(CallError::Gone)) {
            tracing::info!("the process ended during the call; it is made again");
            outcome = self.attempt(cancelled).await;
        }
        match outcome {
            Ok(outcome) => outcome,
            Err(trouble) => self.failed(&trouble),
        }
    }

    async fn attempt(&self, cancelled: &CancellationToken) -> Result<ToolOutcome, Trouble> {
        let lease = self.lease(cancelled).await?;
        let config = self.server.core().config();
        let request = Request {
            tool: self.tool.clone(),
            arguments: self.arguments.clone(),
            meta: self.meta.clone(),
            timeout: config.timeout.min(self.deadline.left()),
        };
        crash::before(Act::Tool);
        let answer = lease.call(request, cancelled).await;
        crash::after(Act::Tool);
        if let Some(
            CallError::TimedOut(_) | CallError::Gone | CallError::TooLong(_) | CallError::Abandoned,
        ) = answer.as_ref().err()
        {
            // Its tool may still be running: nobody else is to meet it.
            lease.give_up();
        }
        Ok(match answer.map_err(Trouble::Call)? {
            Answer::Result(result) => content::read_result(&result, config.max_result_bytes),
            Answer::Text { text, whole } => {
                content::read_line(text, whole, config.max_result_bytes)
            }
        })
    }

    /// A process, within the call's deadline.
    async fn lease(&self, cancelled: &CancellationToken) -> Result<Lease, Trouble> {
        let left = self.deadline.left();
        let lease = tokio::select! {
            lease = tokio::time::timeout(left, Box::pin(self.server.lease())) => lease,
            () = cancelled.cancelled() => return Err(Trouble::Call(CallError::Settled)),
        };
        match lease.map_err(|_elapsed| Trouble::Busy)? {
            Ok(lease) => Ok(lease),
            Err(LeaseError::Start(error)) => Err(Trouble::Start(error)),
            Err(LeaseError::Closed) => Err(Trouble::Closed),
        }
    }

    fn failed(&self, trouble: &Trouble) -> ToolOutcome {
        let config = self.server.core().config();
        let server = &config.name;
        let text = match trouble {
            Trouble::Busy => {
                format!("The call was not made: no process of the tool server {server:?} came free in time.")
            }
            Trouble::Start(error) => {
                format!("The call was not made: the tool server {server:?} is not available: {error}")
            }
            Trouble::Closed => "The call was not made: the worker is stopping.".to_owned(),
            Trouble::Call(CallError::Refused(message)) => message.clone(),
            Trouble::Call(CallError::TimedOut(after)) => format!(
                "The tool did not answer within {:.1} s and was stopped. It is unknown what it did until then.",
                after.as_secs_f64()
            ),
            Trouble::Call(CallError::Gone) => {
                "The tool server stopped during the call. It is unknown what the call did until then.".to_owned()
            }
            Trouble::Call(CallError::TooLong(most)) => format!(
                "The tool answered with more than {most} bytes, which is more than can be read. Ask for less."
            ),
            Trouble::Call(CallError::Settled | CallError::Abandoned) => {
                "The call was cancelled. It is unknown what it did until then.".to_owned()
            }
        };
        tracing::info!(reason = trouble.name(), "a tool call failed");
        content::outcome(OutcomeStatus::Failed, text, config.max_result_bytes)
    }
}

/// What a call can fail of.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    /// No process came free in time.
    Busy,
    /// No process could be started.
    Start(StartError),
    /// There are no processes any more.
    Closed,
    /// The call itself.
    Call(CallError),
}

impl Trouble {
    /// For logs, which hold nothing of what a tool says.
    fn name(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Start(_) => "not started",
            Self::Closed => "closed",
            Self::Call(CallError::Refused(_)) => "refused",
            Self::Call(CallError::TimedOut(_)) => "timeout",
            Self::Call(CallError::Gone) => "process ended",
            Self::Call(CallError::TooLong(_)) => "answer too long",
            Self::Call(CallError::Settled) => "cancelled",
            Self::Call(CallError::Abandoned) => "cancelled, process given up",
        }
    }
}

//! One call from beginning to end, whatever happens to it: what comes out is always something that
//! the model can read.

use std::time::Instant;

use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::catalogue::RetryClass;
use super::content::{self, Caps};
use super::error::StartError;
use super::pool::{Key, Lease, LeaseError};
use super::progress::ToolProgress;
use super::server::Server;
use super::session::{Answer, CallError, Request};
use super::wait::Patience;
use crate::chat::{OutcomeStatus, ToolOutcome};
use crate::clock::Deadline;
use crate::config::ServerConfig;
use crate::crash::{self, Act};

/// A call that is fit to be made.
pub(super) struct Call {
    pub(super) server: Server,
    pub(super) tool: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) meta: Map<String, Value>,
    pub(super) retry: RetryClass,
    pub(super) deadline: Deadline,
    pub(super) listener: Option<mpsc::Sender<ToolProgress>>,
    /// For whom the process is.
    pub(super) key: Key,
}

impl Call {
    /// Makes the call, twice if its process ended under it and making it again does no harm, or if
    /// it had ended before.
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
        let begun = Instant::now();
        let mut outcome = self.attempt(cancelled, begun).await;
        if outcome
            .as_ref()
            .is_err_and(|trouble| self.may_repeat(trouble))
        {
            tracing::info!("the process ended; the call is made again");
            outcome = self.attempt(cancelled, begun).await;
        }
        match outcome {
            Ok(outcome) => outcome,
            Err(trouble) => self.failed(&trouble),
        }
    }

    fn may_repeat(&self, trouble: &Trouble) -> bool {
        match trouble {
            Trouble::Call(CallError::NotSent) => true,
            Trouble::Call(CallError::Gone) => self.retry == RetryClass::Safe,
            Trouble::Busy
            | Trouble::Start(_)
            | Trouble::Closed
            | Trouble::Call(
                CallError::Refused(_)
                | CallError::TimedOut(_)
                | CallError::Silent(_)
                | CallError::TooLong(_)
                | CallError::Settled
                | CallError::Abandoned,
            ) => false,
        }
    }

    /// Makes the call once; `begun` is when it was to be made first.
    async fn attempt(
        &self,
        cancelled: &CancellationToken,
        begun: Instant,
    ) -> Result<ToolOutcome, Trouble> {
        let asked = Instant::now();
        let lease = self.lease(cancelled).await?;
        let waited = asked.elapsed();
        self.server.core().meter().waited(waited);
        let config = self.server.core().config();
        let patience = Patience {
            idle: config.timeout,
            total: config.max_timeout.saturating_sub(begun.elapsed()),
            waited,
        };
        let request = Request {
            tool: self.tool.clone(),
            arguments: self.arguments.clone(),
            meta: self.meta.clone(),
            patience: patience.within(self.deadline.left()),
            listener: self.listener.clone(),
        };
        crash::before(Act::Tool);
        let answer = lease.call(request, cancelled).await;
        crash::after(Act::Tool);
        if answer.as_ref().is_err_and(|error| !lease.survives(error)) {
            // Its tool may still be running: nobody else is to meet it.
            lease.retire();
        }
        Ok(match answer.map_err(Trouble::Call)? {
            Answer::Result(result) => content::read_result(&result, caps(config)),
            Answer::Text { text, whole } => {
                content::read_line(text, whole, config.max_result_bytes)
            }
        })
    }

    /// A process, within the call's time.
    async fn lease(&self, cancelled: &CancellationToken) -> Result<Lease, Trouble> {
        let left = self
            .deadline
            .left()
            .min(self.server.core().config().timeout);
        let lease = tokio::select! {
            lease = tokio::time::timeout(left, Box::pin(self.server.lease(&self.key))) => lease,
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
            Trouble::Call(CallError::Refused(message)) => {
                tracing::info!(reason = trouble.name(), "a tool call failed");
                return content::error(message, config.max_result_bytes);
            }
            Trouble::Call(CallError::TimedOut(after)) => format!(
                "The tool did not answer within {:.1} s and was stopped. It is unknown what it did until then.",
                after.as_secs_f64()
            ),
            Trouble::Call(CallError::Silent(after)) => format!(
                "The tool said how far it was, and then nothing for {:.1} s; it was stopped. It is unknown what it did until then.",
                after.as_secs_f64()
            ),
            Trouble::Call(CallError::NotSent) => {
                "The call was not made: the tool server stopped before it could be asked.".to_owned()
            }
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

fn caps(config: &ServerConfig) -> Caps {
    Caps {
        text: config.max_result_bytes,
        media: config.max_media_bytes,
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
            Self::Call(CallError::NotSent) => "process had ended",
            Self::Call(CallError::TimedOut(_)) => "timeout",
            Self::Call(CallError::Silent(_)) => "no more progress",
            Self::Call(CallError::Gone) => "process ended",
            Self::Call(CallError::TooLong(_)) => "answer too long",
            Self::Call(CallError::Settled) => "cancelled",
            Self::Call(CallError::Abandoned) => "cancelled, process given up",
        }
    }
}

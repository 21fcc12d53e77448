//! One conversation with one process, in whichever dialect the server speaks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::era::Era;
use super::error::StartError;
use super::line::LineSession;
use super::mcp::McpSession;
use super::progress::ToolProgress;
use super::wait::Patience;

/// How long an answer may still be in the pipe of a process that has ended.
pub(super) const LAST_BYTES: Duration = Duration::from_millis(100);

/// One call as a session makes it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The tool's own name.
    pub(super) tool: String,
    /// Arguments that fit the tool's schema as far as it could be checked.
    pub(super) arguments: Map<String, Value>,
    /// What goes along in `_meta`.
    pub(super) meta: Map<String, Value>,
    /// How long the answer may take, from now on.
    pub(super) patience: Patience,
    /// Who is told how far the tool is.
    pub(super) listener: Option<mpsc::Sender<ToolProgress>>,
}

/// What calls a call off.
pub(super) struct Halt<'a> {
    /// Nobody waits for the answer any more.
    pub(super) cancelled: &'a CancellationToken,
    /// The process has ended.
    pub(super) ended: &'a CancellationToken,
}

/// What a server answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// The result of `tools/call`.
    Result(Value),
    /// Plain text, and its size before any cut.
    Text {
        /// The text, or its head.
        text: String,
        /// All of it, in bytes.
        whole: usize,
    },
}

/// What a server says of its tools, and of itself.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// The members of `tools`.
    pub(super) tools: Vec<Value>,
    /// Whether there are more than are read.
    pub(super) cut: bool,
    /// How long the list holds, if the server says so.
    pub(super) fresh_for: Option<Duration>,
    /// The server.
    pub(super) about: About,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What is spoken with it: a revision of MCP, `2025-11-25`, or `line`.
    pub protocol: String,
    /// Its name and its version, if it says them.
    pub server: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// The server answered with an error; its process is as good as before.
    #[error("{0}")]
    Refused(String),
    /// The process was gone before it was sent anything.
    #[error("the process had ended")]
    NotSent,
    /// The time ran out; the tool may still be running.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// It said how far it was, and then nothing any more; the tool may still be running.
    #[error("no progress for {0:?}")]
    Silent(Duration),
    /// The process ended or closed its pipes.
    #[error("the process ended")]
    Gone,
    /// The answer was longer than is read.
    #[error("the answer was longer than {0} bytes")]
    TooLong(usize),
    /// The caller went away, and the server said that it is done with the call.
    #[error("cancelled")]
    Settled,
    /// The caller went away, and the tool may still be running.
    #[error("cancelled, not settled")]
    Abandoned,
}

/// A conversation with a process.
#[derive(Debug)]
pub(super) enum Session {
    /// The Model Context Protocol.
    Mcp(McpSession),
    /// Lines of JSON.
    Line(LineSession),
}

impl Session {
    /// All tools, as the server describes them.
    pub(super) async fn list(&self) -> Result<Listed, StartError> {
        match self {
            Self::Mcp(session) => session.list().await,
            Self::Line(session) => session.list().await,
        }
    }

    /// Makes one call.
    pub(super) async fn call(&self, request: Request, halt: Halt<'_>) -> Result<Answer, CallError> {
        match self {
            Self::Mcp(session) => session.call(request, halt).await.map(Answer::Result),
            Self::Line(session) => session.call(request, halt).await,
        }
    }

    /// The handshake that the server wants, if there is one.
    pub(super) fn era(&self) -> Option<Era> {
        match self {
            Self::Mcp(session) => Some(session.era()),
            Self::Line(_) => None,
        }
    }

    /// Hears of changed tools, where that has to be asked for.
    pub(super) fn news(&self, changed: Arc<Notify>) -> Option<impl Future<Output = ()> + use<>> {
        match self {
            Self::Mcp(session) => session.news(changed),
            Self::Line(_) => None,
        }
    }

    /// Whether the other end can still be talked to.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Mcp(session) => session.is_open(),
            Self::Line(session) => session.is_open(),
        }
    }
}

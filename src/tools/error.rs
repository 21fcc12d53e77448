use crate::fault::{ErrorCode, Fault};

/// Why a job cannot be given its tools.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolsError {
    /// The job names a server that is not configured.
    #[error("there is no tool server {server:?}; configured: {}", list(.known))]
    UnknownServer {
        /// The name that the job says.
        server: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A server that the job cannot do without is down.
    #[error("the tool server {server:?} is not available: {reason}")]
    Unavailable {
        /// Which server.
        server: String,
        /// Why it is down.
        reason: String,
    },
    /// A pattern of the job's `tools.allow` or `tools.deny` cannot be read.
    #[error("{glob:?} is no glob over tool names: {reason}")]
    BadGlob {
        /// The pattern.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ToolsError {
    /// What may be done about it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::UnknownServer { .. } | Self::BadGlob { .. } => Fault::Permanent,
            Self::Unavailable { .. } => Fault::Retry { after: None },
        }
    }

    /// What it is called in results.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownServer { .. } => ErrorCode::UnknownToolServer,
            Self::Unavailable { .. } => ErrorCode::ToolsUnavailable,
            Self::BadGlob { .. } => ErrorCode::InvalidJob,
        }
    }
}

/// Why a process of a tool server did not come up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StartError {
    /// The system did not start it.
    #[error("{command:?} cannot be started: {reason}")]
    Spawn { command: String, reason: String },
    /// It closed its pipes or refused the handshake: it may want another kind of handshake.
    #[error("it refused the handshake: {0}")]
    Refused(String),
    /// It answered, but not as agreed.
    #[error("{0}")]
    Protocol(String),
    /// It took too long.
    #[error("it was not ready within {0} s")]
    Slow(u64),
    /// Starts failed too often; the next try is later.
    #[error("it failed to start {failures} times, the next try is in {left} s; last: {last}")]
    Resting {
        failures: u32,
        left: u64,
        last: String,
    },
}

/// A process that did not come up.
#[derive(Clone, Debug)]
pub(super) struct Stillborn {
    /// Why; fit for users and models.
    pub(super) error: StartError,
    /// The end of what it said on its standard error: for operators, since it may hold anything.
    pub(super) last_words: String,
}

impl Stillborn {
    /// One that said nothing.
    pub(super) fn silent(error: StartError) -> Self {
        Self {
            error,
            last_words: String::new(),
        }
    }

    /// Whether another kind of handshake may mend it.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.error, StartError::Refused(_))
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

use http::StatusCode;
use rmcp::transport::DynamicTransportError;
use rmcp::transport::streamable_http_client::StreamableHttpError;

use super::super::session::CallError;

/// Why a request to a tool server came to nothing.
///
/// The texts hold nothing of what was sent and nothing of what a server wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum HttpError {
    /// There was no connection: nothing was sent.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke after the request had begun.
    #[error("the connection to it broke: {0}")]
    Broken(String),
    /// The server does not know the session: it was restarted, or has forgotten it.
    #[error("it does not know the session any more")]
    NoSession,
    /// There is no token to send.
    #[error("there is no token for it: {0}")]
    NoToken(String),
    /// The server refuses whoever asks.
    #[error("{0}")]
    Denied(String),
    /// Another status than a success, and no error of the protocol.
    #[error("it answered HTTP {0}{hint}", hint = hint(*.0))]
    Status(StatusCode),
    /// The answer is no message of the protocol.
    #[error("its answer is no message of the protocol")]
    Malformed,
    /// The answer is longer than is read.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
}

fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..400 => ": it is at another address; configure that one",
        404 | 405 => ": is this the address of its Streamable HTTP endpoint, with its path?",
        _ => "",
    }
}

impl HttpError {
    /// What did not get there, or came back broken.
    pub(super) fn network(error: reqwest::Error) -> Self {
        let before = error.is_connect() || error.is_builder();
        let line = chain(&error.without_url());
        if before {
            Self::Unreachable(line)
        } else {
            Self::Broken(line)
        }
    }

    /// Whether another question may get an answer.
    pub(in super::super) fn is_of_what_was_asked(&self) -> bool {
        match self {
            Self::Status(status) => status.is_client_error(),
            Self::Malformed | Self::NoSession => true,
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::NoToken(_)
            | Self::Denied(_)
            | Self::TooLong(_) => false,
        }
    }

    /// What a call is told.
    fn of_call(&self) -> CallError {
        match self {
            // Nobody has seen it.
            Self::Unreachable(_) | Self::NoSession | Self::NoToken(_) => CallError::NotSent,
            Self::Broken(_) => CallError::Gone,
            Self::TooLong(most) => CallError::TooLong(*most),
            Self::Denied(_) | Self::Status(_) | Self::Malformed => {
                CallError::Refused(format!("The tool server did not do the call: {self}."))
            }
        }
    }
}

/// The error of ours in an error of the protocol library, if there is one.
pub(in super::super) fn find(error: &DynamicTransportError) -> Option<&HttpError> {
    match error.error.downcast_ref::<StreamableHttpError<HttpError>>() {
        Some(StreamableHttpError::Client(error)) => Some(error),
        Some(_) | None => None,
    }
}

/// What a call is told whose request failed; nothing where it went over pipes.
pub(in super::super) fn failure(error: &DynamicTransportError) -> Option<CallError> {
    let over_http = error
        .error
        .is::<StreamableHttpError<HttpError>>()
        .then_some(CallError::Gone);
    find(error).map(HttpError::of_call).or(over_http)
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

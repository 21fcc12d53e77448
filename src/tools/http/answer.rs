//! What a server's answer to a message means.

use bytes::BytesMut;
use http::StatusCode;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ErrorData, RequestId, ServerJsonRpcMessage,
};
use rmcp::transport::common::http_header::{EVENT_STREAM_MIME_TYPE, JSON_MIME_TYPE};

use super::error::HttpError;

/// The most bytes of an error that are read.
const MAX_ERROR: usize = 64 * 1024;

/// What a server answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// It has taken the message; its answer, if there is one, comes elsewhere.
    Accepted,
    /// One message.
    Message(Box<ServerJsonRpcMessage>),
    /// Messages as they come.
    Events(reqwest::Response),
}

/// Reads the answer to `message`, at most `most` bytes of it.
///
/// # Errors
/// Anything that is neither an answer nor an error of the protocol.
pub(super) async fn read(
    response: reqwest::Response,
    message: &ClientJsonRpcMessage,
    in_session: bool,
    most: usize,
) -> Result<Answer, HttpError> {
    let status = response.status();
    let asked = match message {
        ClientJsonRpcMessage::Request(request) => Some(&request.id),
        ClientJsonRpcMessage::Notification(_)
        | ClientJsonRpcMessage::Response(_)
        | ClientJsonRpcMessage::Error(_) => None,
    };
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(denied(&response));
    }
    if !status.is_success() {
        let body = body(response, MAX_ERROR).await.unwrap_or_default();
        return refusal(status, &body, message, in_session).map(|error| boxed(error, asked));
    }
    let Some(asked) = asked else {
        // Nothing is expected; what some servers write all the same is not read.
        return Ok(Answer::Accepted);
    };
    if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
        return Ok(Answer::Accepted);
    }
    if is(&response, EVENT_STREAM_MIME_TYPE) {
        return Ok(Answer::Events(response));
    }
    if !is(&response, JSON_MIME_TYPE) {
        return Err(HttpError::Malformed);
    }
    let body = body(response, most).await?;
    let message = serde_json::from_slice(&body).map_err(|_error| HttpError::Malformed)?;
    Ok(boxed(message, Some(asked)))
}

/// Whether the answer is of this media type.
pub(super) fn is(response: &reqwest::Response, media_type: &str) -> bool {
    let found = response.headers().get(CONTENT_TYPE);
    let found = found.and_then(|found| found.to_str().ok());
    found.is_some_and(|found| {
        found
            .get(..media_type.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(media_type))
    })
}

/// An error that does not say to which request it belongs belongs to this one: without the id nobody
/// would hear of it.
fn boxed(message: ServerJsonRpcMessage, asked: Option<&RequestId>) -> Answer {
    let message = match message {
        ServerJsonRpcMessage::Error(error) => {
            ServerJsonRpcMessage::error(error.error, asked.cloned().or(error.id))
        }
        other @ (ServerJsonRpcMessage::Request(_)
        | ServerJsonRpcMessage::Response(_)
        | ServerJsonRpcMessage::Notification(_)) => other,
    };
    Answer::Message(Box::new(message))
}

/// What a refused message is answered with: the error of the protocol, if there is one.
fn refusal(
    status: StatusCode,
    body: &[u8],
    message: &ClientJsonRpcMessage,
    in_session: bool,
) -> Result<ServerJsonRpcMessage, HttpError> {
    if in_session && forgets(status, body) {
        return Err(HttpError::NoSession);
    }
    if let Ok(error @ ServerJsonRpcMessage::Error(_)) = serde_json::from_slice(body) {
        return Ok(error);
    }
    let discovers = matches!(message, ClientJsonRpcMessage::Request(request)
        if matches!(request.request, ClientRequest::DiscoverRequest(_)));
    if discovers
        && !in_session
        && status.is_client_error()
        && status != StatusCode::TOO_MANY_REQUESTS
    {
        // Servers of the earlier era know neither the method nor life without a session; the
        // library goes on with `initialize` when it is told so in the protocol's own words.
        let error = ErrorData::invalid_request(format!("HTTP {status}"), None);
        return Ok(ServerJsonRpcMessage::error(error, None));
    }
    Err(HttpError::Status(status))
}

/// How servers say so. An argument that happens to be called after a session is none of it: a call that was
/// seen must not be made again.
const FORGOTTEN: [&str; 12] = [
    "valid session",
    "invalid session",
    "unknown session",
    "no session",
    "session id",
    "session not found",
    "session expired",
    "session has",
    "session terminated",
    "session does not exist",
    "mcp-session-id",
    "not initialized",
];

/// Whether a server says that it does not know the session. The specification wants a 404; many
/// servers after their restart say a 400 with words.
fn forgets(status: StatusCode, body: &[u8]) -> bool {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => true,
        StatusCode::BAD_REQUEST => {
            let text = String::from_utf8_lossy(body).to_ascii_lowercase();
            FORGOTTEN.iter().any(|words| text.contains(words))
        }
        _ => false,
    }
}

fn denied(response: &reqwest::Response) -> HttpError {
    let status = response.status();
    let scope = challenge(response).and_then(|said| super::challenge::parameter(said, "scope"));
    HttpError::Denied(match (status, scope) {
        (StatusCode::FORBIDDEN, Some(scope)) => format!(
            "it refuses what it was sent as authorization (HTTP 403) and wants the scope {scope:?}; set \"oauth\" \"scope\""
        ),
        (StatusCode::FORBIDDEN, None) => {
            "it refuses what it was sent as authorization (HTTP 403)".to_owned()
        }
        _ => "it wants authorization (HTTP 401): give it a token in \"headers\", or a client of its authorization server in \"oauth\" (client credentials); nobody can sign in here with a browser".to_owned(),
    })
}

/// What a refusal says about who is let in.
pub(super) fn challenge(response: &reqwest::Response) -> Option<&str> {
    let challenge = response.headers().get(WWW_AUTHENTICATE)?;
    challenge.to_str().ok()
}

/// The body, if it has at most `most` bytes.
pub(super) async fn body(
    mut response: reqwest::Response,
    most: usize,
) -> Result<BytesMut, HttpError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(HttpError::network)? {
        if body.len().saturating_add(chunk.len()) > most {
            return Err(HttpError::TooLong(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

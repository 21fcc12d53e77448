//! How the messages of a session travel: our own backend below the protocol library's transport.
//!
//! It bounds what is read, tells what was never seen by the server from what may have been, and
//! knows a lost session however a server says that it is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::common::http_header::{
    EVENT_STREAM_MIME_TYPE, HEADER_LAST_EVENT_ID, HEADER_SESSION_ID, JSON_MIME_TYPE,
};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::Sse;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer};
use super::error::HttpError;
use super::oauth::Tokens;
use super::sse;
use crate::config::Secret;

type Outcome<T> = Result<T, StreamableHttpError<HttpError>>;

/// What carries the messages of one session.
#[derive(Clone, Debug)]
pub(super) struct Courier {
    pub(super) http: reqwest::Client,
    pub(super) url: Arc<str>,
    /// What goes along with every request.
    pub(super) headers: HeaderMap,
    /// Where the token comes from that goes along, too.
    pub(super) tokens: Option<Arc<Tokens>>,
    /// The most that is read of one answer.
    pub(super) most: usize,
    /// Set when an answer was longer than that.
    pub(super) overrun: Arc<AtomicBool>,
    /// Whether the session had a stream of its own once: not every server offers one.
    pub(super) streamed: Arc<AtomicBool>,
    /// Cancelled when the server is heard not to know the session.
    pub(super) lost: CancellationToken,
}

impl Courier {
    /// Sends a request, without a look at its answer but for one that refuses the token.
    async fn send(&self, errand: &Errand<'_>) -> Result<reqwest::Response, HttpError> {
        let Some(tokens) = &self.tokens else {
            return self.carry(errand, None).await;
        };
        let token = tokens.get(&self.http).await?;
        let response = self.carry(errand, token.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenge = answer::challenge(&response).map(str::to_owned);
        let renewed = tokens.renew(&self.http, token.as_ref(), challenge.as_deref());
        self.carry(errand, Some(&renewed.await?)).await
    }

    async fn carry(
        &self,
        errand: &Errand<'_>,
        token: Option<&Secret>,
    ) -> Result<reqwest::Response, HttpError> {
        let mut request = self
            .http
            .request(errand.method.clone(), &*self.url)
            .headers(self.headers.clone());
        for (name, value) in errand.headers {
            request = request.header(name, value);
        }
        if let Some(session) = errand.session {
            request = request.header(HEADER_SESSION_ID, session);
        }
        if let Some(event) = errand.last_event {
            request = request.header(HEADER_LAST_EVENT_ID, event);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token.expose());
        }
        request = match errand.body {
            Some(body) => request
                .header(ACCEPT, BOTH)
                .header(CONTENT_TYPE, JSON_MIME_TYPE)
                .body(body.to_owned()),
            None => request.header(ACCEPT, EVENT_STREAM_MIME_TYPE),
        };
        request.send().await.map_err(HttpError::network)
    }

    async fn post(
        &self,
        message: &ClientJsonRpcMessage,
        session: Option<&str>,
        headers: &HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, HttpError> {
        let body = serde_json::to_vec(message).map_err(|_error| HttpError::Malformed)?;
        let errand = Errand {
            method: Method::POST,
            session,
            last_event: None,
            headers,
            body: Some(&body),
        };
        let response = self.send(&errand).await?;
        let fresh = session_of(&response);
        match answer::read(response, message, session.is_some(), self.most).await? {
            Answer::Accepted => Ok(StreamableHttpPostResponse::Accepted),
            Answer::Message(message) => Ok(StreamableHttpPostResponse::Json(*message, fresh)),
            Answer::Events(response) => {
                let events = sse::events(response, self.most, Arc::clone(&self.overrun));
                Ok(StreamableHttpPostResponse::Sse(events, fresh))
            }
        }
    }
}

const BOTH: &str = "application/json, text/event-stream";

/// One request.
struct Errand<'a> {
    method: Method,
    session: Option<&'a str>,
    last_event: Option<&'a str>,
    headers: &'a HashMap<HeaderName, HeaderValue>,
    body: Option<&'a [u8]>,
}

fn session_of(response: &reqwest::Response) -> Option<String> {
    let id = response.headers().get(HEADER_SESSION_ID)?;
    id.to_str().ok().map(str::to_owned)
}

impl StreamableHttpClient for Courier {
    type Error = HttpError;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Outcome<StreamableHttpPostResponse> {
        let posted = self.post(&message, session_id.as_deref(), &custom_headers);
        posted.await.map_err(StreamableHttpError::Client)
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session_id: Arc<str>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Outcome<()> {
        let errand = Errand {
            method: Method::DELETE,
            session: Some(&session_id),
            last_event: None,
            headers: &custom_headers,
            body: None,
        };
        // Whatever it answers, the session is of no more use: some do not know it any more, some
        // do not let clients end theirs.
        let sent = self.send(&errand).await;
        sent.map(drop).map_err(StreamableHttpError::Client)
    }

    async fn get_stream(
        &self,
        _uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Outcome<BoxStream<'static, Result<Sse, SseError>>> {
        // The library asks again and again for what could never be read.
        if last_event_id.is_some() && self.overrun.load(Ordering::Relaxed) {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        let errand = Errand {
            method: Method::GET,
            session: session_id.as_deref(),
            last_event: last_event_id.as_deref(),
            headers: &custom_headers,
            body: None,
        };
        let response = self
            .send(&errand)
            .await
            .map_err(StreamableHttpError::Client)?;
        let status = response.status();
        if status.is_success() && answer::is(&response, EVENT_STREAM_MIME_TYPE) {
            self.streamed.store(true, Ordering::Relaxed);
            return Ok(sse::events(response, self.most, Arc::clone(&self.overrun)));
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(StreamableHttpError::Client(HttpError::Status(status)));
        }
        // A server need not have such a stream. One that has had it has forgotten the session.
        let forgot = matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND);
        let had = last_event_id.is_some() || self.streamed.load(Ordering::Relaxed);
        if forgot && had && session_id.is_some() {
            self.lost.cancel();
        }
        Err(StreamableHttpError::ServerDoesNotSupportSse)
    }
}

//! How requests travel: our own service below async-openai's client.
//!
//! It replaces the crate's retries, its unbounded reading of bodies, and its handling of errors,
//! which loses the status and the headers and writes whole bodies into the log. Whatever leaves
//! here as a success is JSON, so that the crate's own path of errors is never taken.

use std::borrow::Cow;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;

use crate::escape::disarm_well_formed;

use super::classify::{Verdict, classify};
use super::error::ModelError;
use super::hints::Hints;
use super::server::Dialect;
use super::stream::{self, Ear};
use crate::clock::{Clock, SystemClock};

/// The most bytes of a reply that are read.
///
/// Its text goes into a result, in which an escaped character may take twice the room; the largest
/// message that `RabbitMQ` 4 takes has 16 MiB.
const MAX_REPLY: usize = 7 << 20;
/// The most bytes of an error that are read; the rest is not looked at.
const MAX_ERROR: usize = 64 << 10;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are kept for this long, to save handshakes in a burst.
const KEEP_IDLE: Duration = Duration::from_mins(1);
/// Idle connections kept: as many as calls can be under way at once.
const MAX_IDLE: usize = 2048;

/// The HTTP client: no redirects (they would post a prompt to another address), HTTP/1.1.
///
/// # Errors
/// When the TLS verifier finds no root certificates of this machine.
pub(super) fn http_client() -> Result<reqwest::Client, ModelError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may be quicker; either way there is a provider.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
        .pool_idle_timeout(KEEP_IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .user_agent(concat!("chat-worker/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ModelError::Client(chain(&error)))
}

/// Sends one request, once.
#[derive(Clone)]
pub(super) struct Transport {
    http: reqwest::Client,
    /// What every request carries. Without a key there is no `Authorization`; the crate would send an
    /// empty one.
    headers: Arc<HeaderMap>,
    /// Answers come piece by piece.
    stream: Option<Stream>,
}

/// How an answer is read that comes piece by piece.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) dialect: Dialect,
    /// How long it may be silent.
    pub(super) idle: Duration,
    pub(super) ear: Option<Ear>,
}

impl Stream {
    /// One that nobody asked for: nobody listens, and only the call's own time bounds it.
    fn unasked(dialect: Dialect) -> Self {
        Self {
            dialect,
            idle: Duration::from_hours(1),
            ear: None,
        }
    }
}

impl Transport {
    pub(super) fn new(http: reqwest::Client, headers: HeaderMap) -> Self {
        Self {
            http,
            headers: Arc::new(headers),
            stream: None,
        }
    }

    /// The same, for answers that come so.
    pub(super) fn streaming(&self, stream: Stream) -> Self {
        Self {
            stream: Some(stream),
            ..self.clone()
        }
    }

    /// The same, for nobody in particular.
    pub(super) fn anonymous(&self) -> Self {
        Self {
            headers: Arc::default(),
            ..self.clone()
        }
    }

    /// The JSON at `url`.
    pub(super) async fn get(&self, url: &str) -> Result<Bytes, Verdict> {
        let request = self.http.get(url).build().map_err(network)?;
        Ok(self.exchange(request).await?.1)
    }

    /// What comes of the JSON `body` at `url`.
    pub(super) async fn post(&self, url: &str, body: String) -> Result<Bytes, Verdict> {
        let request = self.http.post(url).body(body);
        let request = request.header(CONTENT_TYPE, "application/json").build();
        Ok(self.exchange(request.map_err(network)?).await?.1)
    }

    /// Sends `request` and reads a success whole.
    async fn exchange(
        &self,
        mut request: reqwest::Request,
    ) -> Result<(StatusCode, Bytes), Verdict> {
        let headers = request.headers_mut();
        headers.remove(AUTHORIZATION);
        for (name, value) in &*self.headers {
            headers.insert(name.clone(), value.clone());
        }
        disarm_body(&mut request);
        let dialect = Dialect::of(request.url().path());
        let mut response = self.http.execute(request).await.map_err(network)?;
        let status = response.status();
        let hints = Hints::read(response.headers(), SystemClock.now());
        let span = tracing::Span::current();
        span.record("http.status", status.as_u16());
        if let Some(id) = &hints.request_id {
            span.record("http.request_id", id);
        }
        if !status.is_success() {
            // What is there of the body helps to classify; that the rest is missing does not matter.
            let body = read(&mut response, MAX_ERROR).await;
            let body = body.unwrap_or_else(Unread::so_far);
            return Err(classify(status.as_u16(), &hints, &body));
        }
        // Some servers stream whatever they are asked for.
        let unasked = || Stream::unasked(dialect);
        let streams = is_event_stream(response.headers());
        let body = match self.stream.clone().or_else(|| streams.then(unasked)) {
            Some(Stream { dialect, idle, ear }) => {
                let most = MAX_REPLY;
                let patience = stream::Patience { idle, most };
                stream::read(&mut response, dialect, patience, ear.as_ref()).await?
            }
            None => read(&mut response, MAX_REPLY)
                .await
                .map_err(Unread::verdict)?
                .freeze(),
        };
        if serde_json::from_slice::<&RawValue>(&body).is_err() {
            return Err(Verdict::malformed("a reply that is no JSON"));
        }
        Ok((status, body))
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kinds = headers.get_all(CONTENT_TYPE).iter();
    let mut kinds = kinds.filter_map(|kind| kind.to_str().ok());
    kinds.any(|kind| kind.trim_start().starts_with("text/event-stream"))
}

/// What was escaped when it came in goes out as it was; half a surrogate pair, which strict servers
/// refuse, as U+FFFD.
fn disarm_body(request: &mut reqwest::Request) {
    let text = request
        .body()
        .and_then(reqwest::Body::as_bytes)
        .and_then(|bytes| std::str::from_utf8(bytes).ok());
    if let Some(Cow::Owned(body)) = text.map(disarm_well_formed) {
        request.headers_mut().remove(CONTENT_LENGTH);
        *request.body_mut() = Some(body.into());
    }
}

/// An attempt that failed, on its way through async-openai.
#[derive(Debug)]
pub(super) struct Failed(pub(super) Box<Verdict>);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.refusal.what)
    }
}

impl Error for Failed {}

impl From<Verdict> for Failed {
    fn from(verdict: Verdict) -> Self {
        Self(Box::new(verdict))
    }
}

impl From<Failed> for OpenAIError {
    fn from(failed: Failed) -> Self {
        Self::Boxed(Box::new(failed))
    }
}

/// The verdict that `error` carries.
pub(super) fn verdict(error: OpenAIError) -> Verdict {
    match error {
        OpenAIError::Boxed(error) => match error.downcast::<Failed>() {
            Ok(failed) => *failed.0,
            Err(error) => Verdict::network(error.to_string()),
        },
        OpenAIError::Reqwest(error) => network(error),
        // Their texts may hold bodies.
        OpenAIError::JSONDeserialize(..) => Verdict::malformed("a reply that is no JSON"),
        OpenAIError::ApiError(_)
        | OpenAIError::StreamError(_)
        | OpenAIError::FileSaveError(_)
        | OpenAIError::FileReadError(_)
        | OpenAIError::InvalidArgument(_) => Verdict::malformed("a request that cannot be written"),
    }
}

impl tower::Service<HttpRequestFactory> for Transport {
    type Response = reqwest::Response;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        let transport = self.clone();
        Box::pin(async move {
            let request = factory.build().await.map_err(verdict)?;
            // The factory keeps the body: not needed while the model thinks.
            drop(factory);
            let (status, body) = transport.exchange(request).await?;
            let mut response = http::Response::new(body);
            *response.status_mut() = status;
            Ok(response.into())
        })
    }
}

enum Unread {
    TooLarge(BytesMut),
    Broken(BytesMut, reqwest::Error),
}

impl Unread {
    fn so_far(self) -> BytesMut {
        match self {
            Self::TooLarge(body) | Self::Broken(body, _) => body,
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::TooLarge(_) => Verdict::too_large(MAX_REPLY),
            Self::Broken(_, error) => network(error),
        }
    }
}

/// The body, up to `most` bytes.
async fn read(response: &mut reqwest::Response, most: usize) -> Result<BytesMut, Unread> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) > most => {
                return Err(Unread::TooLarge(body));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => return Err(Unread::Broken(body, error)),
        }
    }
}

/// The request did not get there, or the reply not here.
fn network(error: reqwest::Error) -> Verdict {
    Verdict::network(if error.is_connect() && error.is_timeout() {
        format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())
    } else {
        chain(&error.without_url())
    })
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

//! Sessions with tool servers elsewhere, over Streamable HTTP.
//!
//! A session is no process: it serves many calls at once, and nothing of it is left here when it is
//! closed. Its server may forget it at any moment; that is an end like a process's, after which
//! another one is opened.

mod answer;
mod backoff;
mod challenge;
mod client;
mod courier;
mod error;
mod oauth;
mod sse;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::child::Vitals;
use super::core::Core;
use super::era::Era;
use super::error::StartError;
use super::handshake::{Running, shake_hands};
use super::mcp::McpSession;
use super::session::{Listed, Session};
use crate::config::HttpConfig;
use backoff::Backoff;
use courier::Courier;

pub(super) use client::Endpoint;
pub(super) use error::{failure, find};

/// How long a server may take to hear that a session is over.
const FAREWELL: Duration = Duration::from_millis(1500);
/// Requests under way at once in a session; what is more waits.
const MAX_REQUESTS: usize = 1024;

/// A session that is watched. Dropping it closes the session.
#[derive(Debug)]
pub(super) struct Remote {
    ended: CancellationToken,
    lost: CancellationToken,
    _condemn: DropGuard,
}

impl Remote {
    /// Cancelled when no request can be made any more. (A lost session is no such end: each request
    /// finds out for itself whether the server took it.)
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Whether another session is to be opened for later calls.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }
}

/// Opens a session and lists the tools.
pub(super) async fn open(
    core: &Core,
    config: &HttpConfig,
    era: Era,
) -> Result<(Session, Remote, Listed), StartError> {
    let most = core.config().max_answer_bytes();
    let courier = Courier {
        http: core
            .endpoint()
            .http_client()
            .map_err(|error| StartError::Protocol(error.to_string()))?,
        url: config.url.expose().into(),
        headers: client::headers(config),
        tokens: core.endpoint().tokens(config),
        most,
        overrun: Arc::default(),
        streamed: Arc::default(),
        lost: CancellationToken::new(),
    };
    let (overrun, lost) = (Arc::clone(&courier.overrun), courier.lost.clone());
    let transport = StreamableHttpClientTransport::with_client(courier, settings(config));
    let service = shake_hands(transport, core.terms(era)).await?;
    let session = Session::Mcp(McpSession::watched(&service, overrun, most));
    let remote = watch(core, service, lost);
    let tools = session.list().await?;
    Ok((session, remote, tools))
}

fn settings(config: &HttpConfig) -> StreamableHttpClientTransportConfig {
    // The address that may be shown: the courier knows the other one.
    let mut settings = StreamableHttpClientTransportConfig::with_uri(config.shown.as_str())
        .max_concurrent_requests(MAX_REQUESTS)
        // What follows a lost session is decided here: the tools may have changed with it.
        .reinit_on_expired_session(false);
    settings.control_request_timeout = FAREWELL;
    settings.retry_config = Arc::new(Backoff);
    settings
}

/// Sees to it that the session is closed when nobody has it any more, and told when it is over.
fn watch(core: &Core, service: Running, lost: CancellationToken) -> Remote {
    let (condemned, ended) = (core.nursery().condemned(), CancellationToken::new());
    let vitals = Arc::clone(core.vitals());
    vitals.starts.fetch_add(1, Ordering::Relaxed);
    vitals.alive.fetch_add(1, Ordering::Relaxed);
    let watch = Watch {
        server: core.config().name.clone(),
        condemned: condemned.clone(),
        lost: lost.clone(),
        open: Open {
            ended: ended.clone(),
            vitals,
        },
    };
    core.nursery().watch(watch.run(service));
    Remote {
        ended,
        lost,
        _condemn: condemned.drop_guard(),
    }
}

/// Owns a session from its handshake to its end.
struct Watch {
    server: String,
    condemned: CancellationToken,
    lost: CancellationToken,
    open: Open,
}

impl Watch {
    async fn run(self, service: Running) {
        let close = service.cancellation_token();
        let mut over = Box::pin(service.waiting());
        tokio::select! {
            _ = &mut over => return self.died("it ended"),
            () = self.lost.cancelled() => {
                self.died("its server does not know it any more");
                // Calls that are under way have their answers still.
                tokio::select! { _ = &mut over => return, () = self.condemned.cancelled() => {} }
            }
            () = self.condemned.cancelled() => {}
        }
        close.cancel();
        if tokio::time::timeout(FAREWELL, over).await.is_err() {
            let server = self.server;
            tracing::info!(tool.server = server, "nobody took the end of a session");
        }
    }

    fn died(&self, reason: &str) {
        let server = &self.server;
        tracing::warn!(tool.server = server, reason, "a session is gone");
        self.open.vitals.lost.notify_one();
    }
}

/// Counts a session for as long as it is not over.
struct Open {
    ended: CancellationToken,
    vitals: Arc<Vitals>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ended.cancel();
        self.vitals.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

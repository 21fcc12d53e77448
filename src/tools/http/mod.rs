//! Sessions with tool servers elsewhere, over Streamable HTTP.
//!
//! A session is no process: it serves many calls at once, and nothing of it is left here when it is
//! closed. Its server may forget it at any moment; that is an end like a process's, after which
//! another one is opened.

mod client;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::child::Vitals;
use super::core::Core;
use super::error::StartError;
use super::mcp::{Era, McpSession, Running, shake_hands};
use super::session::Session;
use crate::config::HttpConfig;

pub(super) use client::Endpoint;

/// How long a server may take to hear that a session is over.
const FAREWELL: Duration = Duration::from_millis(1500);
/// Requests under way at once in a session; what is more waits.
const MAX_REQUESTS: usize = 1024;

/// A session that is watched. Dropping it closes the session.
#[derive(Debug)]
pub(super) struct Remote {
    ended: CancellationToken,
    _condemn: DropGuard,
}

impl Remote {
    /// Cancelled when the session is over.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

/// Opens a session and lists the tools.
pub(super) async fn open(
    core: &Core,
    config: &HttpConfig,
    era: Era,
) -> Result<(Session, Remote, Vec<Value>), StartError> {
    let longest = core.config().max_answer_bytes();
    let mut transport = StreamableHttpClientTransportConfig::with_uri(config.url.expose())
        .custom_headers(client::headers(config))
        .max_concurrent_requests(MAX_REQUESTS)
        .max_sse_event_size(longest)
        // What follows a lost session is decided here: the tools may have changed with it.
        .reinit_on_expired_session(false);
    transport.control_request_timeout = FAREWELL;
    let transport =
        StreamableHttpClientTransport::with_client(core.endpoint().http_client()?, transport);
    let service = shake_hands(transport, era, core.changed()).await?;
    let session = Session::Mcp(McpSession::watched(&service, longest));
    let remote = watch(core, service);
    let tools = session.list().await?;
    Ok((session, remote, tools))
}

/// Sees to it that the session is closed when nobody has it any more, and told when it is over.
fn watch(core: &Core, service: Running) -> Remote {
    let (condemned, ended) = (core.nursery().condemned(), CancellationToken::new());
    let vitals = Arc::clone(core.vitals());
    vitals.starts.fetch_add(1, Ordering::Relaxed);
    vitals.alive.fetch_add(1, Ordering::Relaxed);
    let watch = run(
        service,
        core.config().name.clone(),
        condemned.clone(),
        Open {
            ended: ended.clone(),
            vitals,
        },
    );
    core.nursery().watch(watch);
    Remote {
        ended,
        _condemn: condemned.drop_guard(),
    }
}

async fn run(service: Running, server: String, condemned: CancellationToken, open: Open) {
    let close = service.cancellation_token();
    let mut over = Box::pin(service.waiting());
    tokio::select! {
        _ = &mut over => {
            tracing::warn!(tool.server = server, "a session with a tool server ended");
            open.vitals.died.notify_one();
        }
        () = condemned.cancelled() => {
            open.ended.cancel();
            close.cancel();
            if tokio::time::timeout(FAREWELL, over).await.is_err() {
                tracing::info!(tool.server = server, "a tool server did not hear that its session is over");
            }
        }
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

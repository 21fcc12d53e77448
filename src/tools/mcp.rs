//! The Model Context Protocol over a process's pipes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientNotification,
    ClientRequest, CustomNotification, Implementation, ListToolsRequest, MetaObject,
    PaginatedRequestParams, ProtocolVersion, RequestId, RequestMetaObject,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, NotificationContext, PeerRequestOptions,
    RoleClient, RunningService, ServiceError, serve_client_with_lifecycle,
};
use rmcp::transport::async_rw::AsyncRwTransport;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::bounded::Bounded;
use super::child::{Stdin, Stdout};
use super::error::StartError;
use super::session::{CallError, Halt, LAST_BYTES, Request};

const MAX_PAGES: usize = 100;
const MAX_TOOLS: usize = 2000;
/// How much later than the protocol library's own the outer timeout ends a call: the library's
/// does not fire while the process reads nothing.
const OUTER: Duration = Duration::from_secs(1);
/// How long a server may take to say that it is done with a cancelled call.
const SETTLE: Duration = Duration::from_secs(1);

/// Which handshake a server wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// `initialize`, up to the revision of 2025-11-25.
    Handshake,
    /// `server/discover`, since the revision of 2026-07-28.
    Discovery,
}

/// The pipes of a process, and what to do about them.
pub(super) struct Pipes {
    /// What the process reads.
    pub(super) stdin: Stdin,
    /// What it says.
    pub(super) stdout: Stdout,
    /// The longest line that is read of it.
    pub(super) max_line: usize,
}

/// A session that is past its handshake.
#[derive(Debug)]
pub(super) struct McpSession {
    service: RunningService<RoleClient, Client>,
    overrun: Arc<AtomicBool>,
    max_line: usize,
}

/// This side of the conversation: no roots, no sampling, no elicitation.
#[derive(Debug)]
struct Client {
    changed: Arc<Notify>,
}

impl ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        // The library's own default is a version that has no `initialize`.
        ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
        )
        .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}

impl McpSession {
    /// Shakes hands; `changed` is told whenever the server says that its tools changed.
    pub(super) async fn open(
        pipes: Pipes,
        era: Era,
        changed: Arc<Notify>,
    ) -> Result<Self, StartError> {
        let (stdout, overrun) = Bounded::new(pipes.stdout, pipes.max_line);
        let transport = AsyncRwTransport::<RoleClient, _, _>::new(stdout, pipes.stdin)
            .with_max_line_length(usize::MAX);
        let mode = match era {
            Era::Handshake => ClientLifecycleMode::Initialize,
            Era::Discovery => ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::LATEST],
            },
        };
        let client = Client { changed };
        let service = serve_client_with_lifecycle(client, transport, mode)
            .await
            .map_err(|error| refusal(&error))?;
        let version = service
            .peer_info()
            .map(|info| info.protocol_version.clone());
        // The library accepts any version.
        match version {
            Some(known) if ProtocolVersion::KNOWN_VERSIONS.contains(&known) => {}
            Some(other) => {
                return Err(StartError::Protocol(format!(
                    "it speaks the unknown protocol version {other:.40}"
                )));
            }
            None => {
                return Err(StartError::Protocol(
                    "it did not introduce itself".to_owned(),
                ));
            }
        }
        Ok(Self {
            service,
            overrun,
            max_line: pipes.max_line,
        })
    }

    /// All tools; the library's own paging has no end with a server that repeats itself.
    pub(super) async fn list(&self) -> Result<Vec<Value>, StartError> {
        let mut tools = Vec::new();
        let mut cursors = HashSet::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor.take());
            let request = ClientRequest::ListToolsRequest(ListToolsRequest::with_param(params));
            let result = self.service.peer().send_request(request).await;
            let page = result
                .map_err(|error| unlisted(&error))
                .and_then(|result| {
                    serde_json::to_value(result).map_err(|error| unlisted(&error))
                })?;
            let Some(Value::Array(members)) = page.get("tools") else {
                return Err(StartError::Protocol(
                    "its list of tools has no `tools`".to_owned(),
                ));
            };
            tools.extend(members.iter().cloned());
            cursor = page
                .get("nextCursor")
                .and_then(Value::as_str)
                .map(str::to_owned);
            let goes_on = cursor
                .as_ref()
                .is_some_and(|cursor| !cursor.is_empty() && cursors.insert(cursor.clone()));
            if !goes_on || tools.len() >= MAX_TOOLS {
                break;
            }
        }
        tools.truncate(MAX_TOOLS);
        Ok(tools)
    }

    /// Makes one call; `_meta` goes along.
    pub(super) async fn call(&self, request: Request, halt: Halt<'_>) -> Result<Value, CallError> {
        let timeout = request.timeout;
        let options = PeerRequestOptions::with_timeout(timeout)
            .with_meta(RequestMetaObject(MetaObject(request.meta)));
        let params = CallToolRequestParams::new(request.tool).with_arguments(request.arguments);
        let call = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let handle = self
            .service
            .peer()
            .send_cancellable_request(call, options)
            .await
            .map_err(|error| self.failure(error))?;
        let id = handle.id.clone();
        let mut answer = Box::pin(tokio::time::timeout(
            timeout + OUTER,
            handle.await_response(),
        ));
        let result = tokio::select! {
            biased;
            result = &mut answer => result,
            () = halt.ended.cancelled() => {
                match tokio::time::timeout(LAST_BYTES, &mut answer).await {
                    Ok(result) => result,
                    Err(_elapsed) => return Err(CallError::Gone),
                }
            }
            () = halt.cancelled.cancelled() => {
                return Err(self.abandon(id, answer).await);
            }
        };
        match result {
            Ok(Ok(result)) => serde_json::to_value(result)
                .map_err(|error| CallError::Refused(format!("The answer cannot be read: {error}"))),
            Ok(Err(error)) => Err(self.failure(error)),
            Err(_elapsed) => Err(CallError::TimedOut(timeout)),
        }
    }

    /// Whether the process can still be talked to.
    pub(super) fn is_open(&self) -> bool {
        !self.service.peer().is_transport_closed()
    }

    /// Tells the server that nobody waits, and gives it a moment to say that it is done.
    async fn abandon<T>(&self, id: RequestId, answer: impl Future<Output = T>) -> CallError {
        // As a custom notification: at its own the library forgets the request, and nobody would
        // see whether the server still answers it.
        let params = json!({"requestId": id, "reason": "cancelled by the caller"});
        let notice = CustomNotification::new("notifications/cancelled", Some(params));
        let notice = ClientNotification::CustomNotification(notice);
        let settled = tokio::time::timeout(SETTLE, async {
            let sent = self.service.peer().send_notification(notice).await;
            answer.await;
            sent
        });
        match settled.await {
            Ok(Ok(())) => CallError::Settled,
            Ok(Err(_)) | Err(_) => CallError::Abandoned,
        }
    }

    fn failure(&self, error: ServiceError) -> CallError {
        if let ServiceError::McpError(error) = error {
            CallError::Refused(error.message.into_owned())
        } else if let ServiceError::Timeout { timeout } = error {
            CallError::TimedOut(timeout)
        } else if self.overrun.load(Ordering::Relaxed) {
            CallError::TooLong(self.max_line)
        } else {
            CallError::Gone
        }
    }
}

/// Whether the handshake failed in a way that another kind of handshake may mend.
fn refusal(error: &ClientInitializeError) -> StartError {
    if let ClientInitializeError::JsonRpcError(_) | ClientInitializeError::ConnectionClosed(_) =
        error
    {
        StartError::Refused(format!("{:.500}", error.to_string()))
    } else {
        StartError::Protocol(format!("the handshake failed: {:.500}", error.to_string()))
    }
}

fn unlisted(error: &impl ToString) -> StartError {
    StartError::Protocol(format!(
        "its tools cannot be listed: {:.500}",
        error.to_string()
    ))
}

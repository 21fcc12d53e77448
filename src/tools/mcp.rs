//! The Model Context Protocol over a process's pipes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientNotification,
    ClientRequest, CustomNotification, Implementation, ListToolsRequest, MetaObject,
    PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, RequestId,
    RequestMetaObject,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, NotificationContext, Peer, PeerRequestOptions,
    RoleClient, RunningService, ServiceError, serve_client_with_lifecycle,
};
use rmcp::transport::IntoTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::bounded::Bounded;
use super::child::{Stdin, Stdout};
use super::error::StartError;
use super::progress::Board;
use super::session::{CallError, Halt, Request};
use super::wait::Waited;

const MAX_PAGES: usize = 100;
const MAX_TOOLS: usize = 2000;
/// How long a server may take to put things in order when its call took too long, before its
/// process is ended.
const CALL_OFF: Duration = Duration::from_millis(500);
/// How long a server may take to say that it is done with a cancelled call.
const SETTLE: Duration = Duration::from_secs(1);

/// Which handshake a server wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// `initialize`, up to the revision of 2025-11-25.
    Handshake,
    /// `server/discover`, since the revision of 2026-07-28.
    Discovery,
    /// Whichever it speaks: over HTTP the first answer tells.
    Either,
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
    service: Service,
    board: Arc<Board>,
    overrun: Arc<AtomicBool>,
    max_line: usize,
}

/// A conversation that runs.
pub(super) type Running = RunningService<RoleClient, Client>;

/// A conversation that is ended with this, or by the one who watches its HTTP session.
#[derive(Debug)]
enum Service {
    Own(Running),
    Watched(Peer<RoleClient>),
}

impl Service {
    fn peer(&self) -> &Peer<RoleClient> {
        match self {
            Self::Own(service) => service.peer(),
            Self::Watched(peer) => peer,
        }
    }
}

/// This side of the conversation: no roots, no sampling, no elicitation.
#[derive(Debug)]
pub(super) struct Client {
    changed: Arc<Notify>,
    board: Arc<Board>,
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

    async fn on_progress(
        &self,
        said: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.board.note(said);
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
        let service = shake_hands(transport, era, changed).await?;
        Ok(Self {
            board: Arc::clone(&service.service().board),
            service: Service::Own(service),
            overrun,
            max_line: pipes.max_line,
        })
    }

    /// A conversation that is past its handshake and is ended by somebody else.
    pub(super) fn watched(service: &Running, max_line: usize) -> Self {
        Self {
            board: Arc::clone(&service.service().board),
            service: Service::Watched(service.peer().clone()),
            overrun: Arc::default(),
            max_line,
        }
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
    ///
    /// The library's own timeouts are not used: they do not fire while the process reads nothing.
    pub(super) async fn call(&self, request: Request, halt: Halt<'_>) -> Result<Value, CallError> {
        let Request {
            patience, listener, ..
        } = request;
        let options =
            PeerRequestOptions::no_options().with_meta(RequestMetaObject(MetaObject(request.meta)));
        let params = CallToolRequestParams::new(request.tool).with_arguments(request.arguments);
        let call = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let sent = self.service.peer().send_cancellable_request(call, options);
        let handle = tokio::time::timeout(patience.first(), sent)
            .await
            .map_err(|_elapsed| CallError::TimedOut(patience.idle))?
            .map_err(|_closed| CallError::NotSent)?;
        let id = handle.id.clone();
        let mut following = self.board.follow(&handle.progress_token);
        let mut answer = Box::pin(handle.await_response());
        let waited = patience
            .wait(answer.as_mut(), &mut following, listener.as_ref(), &halt)
            .await;
        match waited {
            Waited::Answered(Ok(result)) => serde_json::to_value(result)
                .map_err(|error| CallError::Refused(format!("The answer cannot be read: {error}"))),
            Waited::Answered(Err(error)) => Err(self.failure(error)),
            Waited::Ended => Err(CallError::Gone),
            Waited::Cancelled => {
                let reason = "cancelled by the caller";
                let settled = self.settle(id, reason, SETTLE, answer).await;
                Err(if settled {
                    CallError::Settled
                } else {
                    CallError::Abandoned
                })
            }
            Waited::TimedOut(after) => {
                self.settle(id, "it took too long", CALL_OFF, answer).await;
                Err(CallError::TimedOut(after))
            }
            Waited::Silent(after) => {
                let reason = "it made no progress for too long";
                self.settle(id, reason, CALL_OFF, answer).await;
                Err(CallError::Silent(after))
            }
        }
    }

    /// Whether the process can still be talked to.
    pub(super) fn is_open(&self) -> bool {
        !self.service.peer().is_transport_closed()
    }

    /// Tells the server that nobody waits, and gives it `grace` to say that it is done; whether it
    /// said so.
    async fn settle(
        &self,
        id: RequestId,
        reason: &str,
        grace: Duration,
        answer: impl Future,
    ) -> bool {
        // As a custom notification: at its own the library forgets the request, and nobody would
        // see whether the server still answers it.
        let params = json!({"requestId": id, "reason": reason});
        let notice = CustomNotification::new("notifications/cancelled", Some(params));
        let notice = ClientNotification::CustomNotification(notice);
        let settled = tokio::time::timeout(grace, async {
            let sent = self.service.peer().send_notification(notice).await;
            answer.await;
            sent.is_ok()
        });
        settled.await.unwrap_or(false)
    }

    fn failure(&self, error: ServiceError) -> CallError {
        if let ServiceError::McpError(error) = error {
            CallError::Refused(error.message.into_owned())
        } else if let ServiceError::TransportSend(_) = error {
            // A line that was not written to its end is none.
            CallError::NotSent
        } else if self.overrun.load(Ordering::Relaxed) {
            CallError::TooLong(self.max_line)
        } else {
            CallError::Gone
        }
    }
}

/// Shakes hands over `transport`; `changed` is told whenever the server says that its tools changed.
pub(super) async fn shake_hands<T, E, A>(
    transport: T,
    era: Era,
    changed: Arc<Notify>,
) -> Result<Running, StartError>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let preferred_versions = vec![ProtocolVersion::LATEST];
    let mode = match era {
        Era::Handshake => ClientLifecycleMode::Initialize,
        Era::Discovery => ClientLifecycleMode::Discover { preferred_versions },
        Era::Either => ClientLifecycleMode::Auto {
            preferred_versions,
            legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
        },
    };
    let client = Client {
        changed,
        board: Arc::default(),
    };
    let service = Box::pin(serve_client_with_lifecycle(client, transport, mode))
        .await
        .map_err(|error| refusal(&error))?;
    let version = service
        .peer_info()
        .map(|info| info.protocol_version.clone());
    // The library accepts any version.
    match version {
        Some(known) if ProtocolVersion::KNOWN_VERSIONS.contains(&known) => Ok(service),
        Some(other) => Err(StartError::Protocol(format!(
            "it speaks the unknown protocol version {other:.40}"
        ))),
        None => Err(StartError::Protocol(
            "it did not introduce itself".to_owned(),
        )),
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

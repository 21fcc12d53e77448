//! The Model Context Protocol, past its handshake.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CancelledNotificationParam, ClientNotification,
    ClientRequest, CustomNotification, ListToolsRequest, MetaObject, PaginatedRequestParams,
    ProtocolVersion, RequestId, RequestMetaObject,
};
use rmcp::service::{Peer, PeerRequestOptions, RoleClient, ServiceError};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::child::{Stdin, Stdout};
use super::era::Era;
use super::error::StartError;
use super::handshake::{self, Running, Terms};
use super::http;
use super::news;
use super::progress::Board;
use super::rounds::{self, Round};
use super::session::{About, CallError, Halt, Listed, Request};
use super::wait::{Patience, Waited};
use super::wire::Wire;
use crate::config::Elicitation;

/// The first pause before a server that is not ready is asked again.
const PAUSE: Duration = Duration::from_millis(50);
const MAX_PAGES: usize = 100;
const MAX_TOOLS: usize = 2000;
/// How long a server may take to put things in order when its call took too long, before its
/// process is ended.
const CALL_OFF: Duration = Duration::from_millis(500);
/// How long a server may take to say that it is done with a cancelled call.
const SETTLE: Duration = Duration::from_secs(1);

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
    elicitation: Elicitation,
    overrun: Arc<AtomicBool>,
    max_line: usize,
}

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

impl McpSession {
    /// Shakes hands over the pipes of a process.
    pub(super) async fn open(pipes: Pipes, terms: Terms) -> Result<Self, StartError> {
        let (wire, overrun) = Wire::new(pipes.stdout, pipes.stdin, pipes.max_line);
        let service = handshake::shake_hands(wire, terms).await?;
        Ok(Self {
            board: Arc::clone(service.service().board()),
            elicitation: service.service().elicitation(),
            service: Service::Own(service),
            overrun,
            max_line: pipes.max_line,
        })
    }

    /// A conversation that is past its handshake and is ended by somebody else.
    pub(super) fn watched(service: &Running, overrun: Arc<AtomicBool>, max_line: usize) -> Self {
        Self {
            board: Arc::clone(service.service().board()),
            elicitation: service.service().elicitation(),
            service: Service::Watched(service.peer().clone()),
            overrun,
            max_line,
        }
    }

    /// All tools; the library's own paging has no end with a server that repeats itself.
    pub(super) async fn list(&self) -> Result<Listed, StartError> {
        let mut listed = Listed {
            tools: Vec::new(),
            cut: false,
            fresh_for: None,
            about: self.about(),
        };
        let (mut cursors, mut cursor) = (HashSet::new(), None);
        for _ in 0..MAX_PAGES {
            let page = self.page(cursor.take()).await?;
            let Some(Value::Array(members)) = page.get("tools") else {
                return Err(StartError::Protocol(
                    "its list of tools has no `tools`".to_owned(),
                ));
            };
            listed.tools.extend(members.iter().cloned());
            let holds = page.get("ttlMs").and_then(Value::as_u64).unwrap_or(0);
            let holds = (holds > 0).then_some(Duration::from_millis(holds));
            // The page that holds shortest counts.
            listed.fresh_for = listed.fresh_for.into_iter().chain(holds).min();
            let next = page.get("nextCursor").and_then(Value::as_str);
            match next.filter(|next| !next.is_empty()) {
                // Who says the same cursor again has no more.
                Some(next) if cursors.insert(next.to_owned()) => cursor = Some(next.to_owned()),
                Some(_) | None => return Ok(listed),
            }
            if listed.tools.len() >= MAX_TOOLS {
                break;
            }
        }
        listed.cut = true;
        listed.tools.truncate(MAX_TOOLS);
        Ok(listed)
    }

    async fn page(&self, cursor: Option<String>) -> Result<Value, StartError> {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let request = ClientRequest::ListToolsRequest(ListToolsRequest::with_param(params));
        let page = self.service.peer().send_request(request).await;
        let page = page.map_err(|error| unlisted(&error))?;
        // Whatever cannot be read of it is missing from the list.
        Ok(serde_json::to_value(page).unwrap_or_default())
    }

    fn about(&self) -> About {
        let info = self.service.peer().peer_info();
        let short = |text: &str| text.chars().take(100).collect::<String>();
        let server = info.as_ref().and_then(|info| info.server_info.as_ref());
        About {
            protocol: info
                .as_ref()
                .map(|info| short(info.protocol_version.as_str()))
                .unwrap_or_default(),
            server: server.map(|server| short(&format!("{} {}", server.name, server.version))),
        }
    }

    /// Makes one call; `_meta` goes along.
    pub(super) async fn call(&self, request: Request, halt: Halt<'_>) -> Result<Value, CallError> {
        let begun = Instant::now();
        let mut params = CallToolRequestParams::new(request.tool.clone())
            .with_arguments(request.arguments.clone());
        for round in 0..rounds::MAX_ROUNDS {
            let mut patience = request.patience.after(begun.elapsed());
            if round > 0 {
                // What was waited for a process was of the first silence.
                patience.waited = Duration::ZERO;
            }
            let result = self.ask(params.clone(), &request, patience, &halt).await?;
            match rounds::read(&result, self.elicitation) {
                Round::Done => return Ok(result),
                Round::Unfit(text) => return Err(CallError::Refused(text)),
                Round::Again { answers, state } => {
                    if answers.is_none() {
                        // The server is not ready yet, and does not say when it will be.
                        let pause = PAUSE * 2_u32.saturating_pow(u32::try_from(round).unwrap_or(0));
                        let left = request.patience.after(begun.elapsed()).total;
                        tokio::select! {
                            () = tokio::time::sleep(pause.min(left)) => {}
                            () = halt.cancelled.cancelled() => return Err(CallError::Settled),
                            () = halt.ended.cancelled() => return Err(CallError::Gone),
                        }
                    }
                    (params.input_responses, params.request_state) = (answers, state);
                }
            }
        }
        Err(CallError::Refused(
            "The tool server wants something again and again, and never gives a result.".to_owned(),
        ))
    }

    /// Makes one round of a call.
    ///
    /// The library's own timeouts are not used: they do not fire while the process reads nothing.
    async fn ask(
        &self,
        params: CallToolRequestParams,
        request: &Request,
        patience: Patience,
        halt: &Halt<'_>,
    ) -> Result<Value, CallError> {
        let meta = RequestMetaObject(MetaObject(request.meta.clone()));
        let options = PeerRequestOptions::no_options().with_meta(meta);
        let call = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let sent = self.service.peer().send_cancellable_request(call, options);
        let handle = tokio::time::timeout(patience.first(), sent)
            .await
            .map_err(|_elapsed| CallError::TimedOut(patience.idle.min(patience.total)))?
            .map_err(|_closed| CallError::NotSent)?;
        let id = handle.id.clone();
        let mut following = self.board.follow(&handle.progress_token);
        let mut answer = Box::pin(handle.await_response());
        let listener = request.listener.as_ref();
        let waited = patience.wait(answer.as_mut(), &mut following, listener, halt);
        match waited.await {
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

    /// The handshake that this server wants.
    pub(super) fn era(&self) -> Era {
        let info = self.service.peer().peer_info();
        let version = info.map(|info| info.protocol_version.clone());
        if version.is_some_and(|version| version > ProtocolVersion::LATEST_WITH_INITIALIZE) {
            Era::Discovery
        } else {
            Era::Handshake
        }
    }

    /// Hears of changed tools, if the server tells of them and has to be asked to.
    pub(super) fn news(&self, changed: Arc<Notify>) -> Option<impl Future<Output = ()> + use<>> {
        let peer = self.service.peer();
        let tools = peer
            .peer_info()
            .and_then(|info| info.capabilities.tools.clone());
        let tells = tools.is_some_and(|tools| tools.list_changed == Some(true));
        (tells && self.era() == Era::Discovery).then(|| news::hear(peer.clone(), changed))
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
        if let Service::Watched(peer) = &self.service {
            // A server elsewhere goes on with other calls whatever became of this one, and nothing
            // of it is to stay: the library closes its stream.
            let notice = CancelledNotificationParam::new(Some(id), Some(reason.to_owned()));
            tokio::time::timeout(grace, peer.notify_cancelled(notice))
                .await
                .ok();
            return false;
        }
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
        } else if let ServiceError::TransportSend(error) = error {
            // A line that was not written to its end is none.
            http::failure(&error).unwrap_or(CallError::NotSent)
        } else if self.overrun.load(Ordering::Relaxed) {
            CallError::TooLong(self.max_line)
        } else {
            CallError::Gone
        }
    }
}

fn unlisted(error: &ServiceError) -> StartError {
    let found = if let ServiceError::TransportSend(error) = error {
        http::find(error).map(ToString::to_string)
    } else {
        None
    };
    let error = found.unwrap_or_else(|| error.to_string());
    StartError::Protocol(format!("its tools cannot be listed: {error:.500}"))
}

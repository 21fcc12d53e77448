//! The beginning of every conversation: who speaks, in which revision of the protocol, and what is
//! offered to the server.

use std::sync::Arc;

use rmcp::ClientHandler;
use rmcp::model::{
    ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction,
    ElicitationCapability, ErrorData, FormElicitationCapability, Implementation,
    ProgressNotificationParam, ProtocolVersion,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, NotificationContext, RequestContext, RoleClient,
    RunningService, serve_client_with_lifecycle,
};
use rmcp::transport::IntoTransport;
use tokio::sync::Notify;

use super::elicitation;
use super::era::Era;
use super::error::StartError;
use super::http;
use super::progress::Board;
use crate::config::Elicitation;

/// A conversation that runs.
pub(super) type Running = RunningService<RoleClient, Client>;

/// On which terms a conversation is begun.
#[derive(Debug)]
pub(super) struct Terms {
    /// The kind of handshake.
    pub(super) era: Era,
    /// What is answered where the server wants to ask a person.
    pub(super) elicitation: Elicitation,
    /// Told whenever the server says that its tools changed.
    pub(super) changed: Arc<Notify>,
}

/// This side of the conversation: no roots, no sampling, and nobody to be asked.
#[derive(Debug)]
pub(super) struct Client {
    changed: Arc<Notify>,
    elicitation: Elicitation,
    board: Arc<Board>,
}

impl Client {
    /// Where progress is noted.
    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// What is answered where the server wants to ask a person.
    pub(super) fn elicitation(&self) -> Elicitation {
        self.elicitation
    }
}

impl ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = match self.elicitation {
            Elicitation::Decline => None,
            Elicitation::Defaults => {
                Some(ElicitationCapability::new().with_form(FormElicitationCapability::new()))
            }
        };
        // The library's own default is a version that has no `initialize`.
        ClientConfig::new(
            capabilities,
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
        self.board.note(&said);
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let params = serde_json::to_value(request).unwrap_or_default();
        let answer = elicitation::answer(self.elicitation, &params);
        let answer = serde_json::from_value(answer);
        Ok(answer.unwrap_or_else(|_unreadable| ElicitResult::new(ElicitationAction::Decline)))
    }
}

/// Shakes hands over `transport`.
pub(super) async fn shake_hands<T, E, A>(transport: T, terms: Terms) -> Result<Running, StartError>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let preferred_versions = vec![ProtocolVersion::LATEST];
    let mode = match terms.era {
        Era::Handshake => ClientLifecycleMode::Initialize,
        Era::Discovery => ClientLifecycleMode::Discover { preferred_versions },
        Era::Either => ClientLifecycleMode::Auto {
            preferred_versions,
            legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
        },
    };
    let client = Client {
        changed: terms.changed,
        elicitation: terms.elicitation,
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
    if let ClientInitializeError::TransportError { error, .. } = error
        && let Some(error) = http::find(error)
    {
        return if error.is_of_what_was_asked() {
            StartError::Refused(error.to_string())
        } else {
            StartError::Protocol(error.to_string())
        };
    }
    if let ClientInitializeError::LegacyFallbackFailed { fallback, .. } = error {
        return refusal(fallback);
    }
    if let ClientInitializeError::JsonRpcError(_)
    | ClientInitializeError::ConnectionClosed(_)
    | ClientInitializeError::ExpectedInitResult(_)
    | ClientInitializeError::ExpectedInitResponse(_) = error
    {
        StartError::Refused(format!("{:.500}", error.to_string()))
    } else {
        StartError::Protocol(format!("the handshake failed: {:.500}", error.to_string()))
    }
}

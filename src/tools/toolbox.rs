use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::call::Call;
use super::catalogue::{Catalogue, Offer, Selection};
use super::child::Nursery;
use super::content;
use super::core::ServerState;
use super::error::ToolsError;
use super::invocation::{Invocation, Listener, unknown_tool};
use super::jobs::Jobs;
use super::server::Server;
use super::session::About;
use crate::chat::{OutcomeStatus, ToolOutcome};
use crate::config::{OnInterrupt, ServerConfig, ToolsConfig, Transport};
use crate::ids::JobId;
use crate::meter;

/// All tool servers of a worker. A clone is the same toolbox.
#[derive(Clone, Debug)]
pub struct Toolbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    servers: Vec<Server>,
    nursery: Nursery,
    tasks: TaskTracker,
    jobs: Arc<Jobs>,
    version: Arc<AtomicU64>,
    known: Mutex<Option<Known>>,
    /// Ends every process when the last clone is dropped without a shutdown.
    _stop: DropGuard,
}

/// What was made of one version of what the servers list.
#[derive(Clone, Debug)]
struct Known {
    version: u64,
    catalogue: Arc<Catalogue>,
    /// The offer to jobs that choose nothing.
    offer: Option<Arc<Offer>>,
}

/// How a tool server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHealth {
    /// Its name.
    pub name: String,
    /// Whether its tools can be used.
    pub state: ServerState,
    /// Processes that have not ended.
    pub processes: usize,
    /// Processes started so far.
    pub starts: u64,
    /// Whether jobs fail without it.
    pub required: bool,
    /// What it is reached by: `stdio` or `http`.
    pub transport: &'static str,
    /// Tools that it lists.
    pub tools: usize,
    /// What it says of itself, once it has been started.
    pub about: Option<About>,
    /// What of its tools is left out, and why.
    pub warnings: Vec<String>,
}

impl Toolbox {
    /// Starts every server's first process in the background, on `tasks`.
    #[must_use]
    pub fn start(config: &ToolsConfig, tasks: &TaskTracker) -> Self {
        let stop = CancellationToken::new();
        let nursery = Nursery::new(tasks, stop.clone(), &config.host);
        let version = Arc::new(AtomicU64::new(0));
        let jobs = Arc::default();
        let mut servers = Vec::new();
        for config in &config.servers {
            warn_of_clear_secrets(config);
            servers.push(Server::new(config, &nursery, &version, &jobs));
        }
        for server in &servers {
            let (server, stop) = (server.clone(), stop.clone());
            tasks.spawn(async move { stop.run_until_cancelled(server.keep()).await });
        }
        Self(Arc::new(Inner {
            servers,
            nursery,
            tasks: tasks.clone(),
            jobs,
            version,
            known: Mutex::default(),
            _stop: stop.drop_guard(),
        }))
    }

    /// What is configured for the calls of `server` that a dead run leaves behind; none if there is no such
    /// server here.
    #[must_use]
    pub fn on_interrupt(&self, server: &str) -> Option<OnInterrupt> {
        let configs = self.0.servers.iter().map(|server| server.core().config());
        let mut configs = configs.filter(|config| config.name == server);
        configs.next().map(|config| config.on_interrupt)
    }

    /// The tools that a job may use. Waits for the first start of each server that it wants.
    ///
    /// A server that is down is left out and named in [`Offer::missing`].
    ///
    /// # Errors
    /// A server that the selection names is unknown, or it is down, or one that is `required` is;
    /// or a glob cannot be read.
    pub async fn offer(&self, selection: &Selection<'_>) -> Result<Arc<Offer>, ToolsError> {
        let wanted = self.wanted(selection)?;
        join_all(wanted.iter().map(|server| server.core().first_start())).await;
        let known = self.known();
        let missing = missing(&wanted, selection)?;
        let plain =
            selection.servers.is_none() && selection.allow.is_empty() && selection.deny.is_empty();
        if let Some(offer) = known
            .offer
            .filter(|offer| plain && *offer.missing() == *missing)
        {
            return Ok(offer);
        }
        let offer = Arc::new(known.catalogue.offer(selection, missing)?);
        if plain {
            let mut cached = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(cached) = cached
                .as_mut()
                .filter(|cached| cached.version == known.version)
            {
                cached.offer = Some(Arc::clone(&offer));
            }
        }
        Ok(offer)
    }

    /// A run of a job begins. It has ended when what this returns is dropped, and so do the
    /// processes that served it alone; calls that it left behind have a second to settle.
    #[must_use]
    pub fn begin(&self, job: JobId) -> Session {
        self.0.jobs.begin(job);
        Session {
            toolbox: self.clone(),
            job,
        }
    }

    /// Makes one call.
    ///
    /// It never fails: what goes wrong is a [`ToolOutcome`] that the model can read. Dropping the
    /// future cancels the call: the server is told, and a process that does not say within a
    /// second that it is done is ended.
    pub async fn call(&self, offer: &Offer, invocation: &Invocation<'_>) -> ToolOutcome {
        let refused = |text: String| content::outcome(OutcomeStatus::Refused, text, usize::MAX);
        let Some(route) = offer.find(invocation.tool) else {
            meter::unknown_tool(1);
            return refused(unknown_tool(offer, invocation.tool));
        };
        let mut servers = self.0.servers.iter();
        let Some(server) = servers.find(|server| server.core().config().name == *route.server)
        else {
            return refused(unknown_tool(offer, invocation.tool));
        };
        let arguments = match route.tool.schema.read(invocation.arguments) {
            Ok(arguments) => arguments,
            Err(text) => {
                let (meter, nothing) = (server.core().meter(), Duration::ZERO);
                meter.called(OutcomeStatus::Refused.as_str(), nothing);
                return refused(text);
            }
        };
        let span = tracing::info_span!(
            "tool.call",
            tool.name = invocation.tool,
            tool.server = &*route.server
        );
        let (listener, mut progress) = mpsc::channel(1);
        let call = Call {
            server: server.clone(),
            tool: route.tool.name.clone(),
            arguments,
            meta: invocation.meta.to_json(),
            retry: route.retry(),
            deadline: invocation.deadline,
            listener: invocation.listener.is_some().then_some(listener),
            key: server.key(invocation.meta.job_id, invocation.meta.user_id),
        };
        // A task of its own, since a call that nobody waits for has to be cancelled in good order.
        let cancelled = CancellationToken::new();
        let running = self
            .0
            .tasks
            .spawn(call.run(cancelled.clone()).instrument(span));
        let _cancel = cancelled.drop_guard();
        // Ends with the call, which holds the other end.
        while let (Some(said), Some(Listener(tell))) = (progress.recv().await, invocation.listener)
        {
            tell(said);
        }
        running.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a tool call broke off");
            content::outcome(
                OutcomeStatus::Failed,
                "The call broke off.".to_owned(),
                usize::MAX,
            )
        })
    }

    /// How the servers do, in the order of their names.
    #[must_use]
    pub fn health(&self) -> Vec<ServerHealth> {
        self.0.servers.iter().map(Server::health).collect()
    }

    /// Ends every process, and all that they started; takes a few seconds at most.
    pub async fn shutdown(&self) {
        for server in &self.0.servers {
            server.close();
        }
        self.0.nursery.shutdown().await;
    }

    fn wanted(&self, selection: &Selection<'_>) -> Result<Vec<&Server>, ToolsError> {
        let name = |server: &Server| server.core().config().name.clone();
        let Some(named) = selection.servers else {
            return Ok(self.0.servers.iter().collect());
        };
        let known: HashSet<String> = self.0.servers.iter().map(name).collect();
        if let Some(unknown) = named.iter().find(|name| !known.contains(*name)) {
            return Err(ToolsError::UnknownServer {
                server: unknown.clone(),
                known: self.0.servers.iter().map(name).collect(),
            });
        }
        Ok(self
            .0
            .servers
            .iter()
            .filter(|server| named.contains(&name(server)))
            .collect())
    }

    /// The catalogue of right now, made anew when a server has changed.
    fn known(&self) -> Known {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Read first: what changes meanwhile makes the catalogue old, never lost.
        let version = self.0.version.load(Ordering::Acquire);
        if let Some(known) = known.as_ref().filter(|known| known.version == version) {
            return known.clone();
        }
        let listings: Vec<_> = self
            .0
            .servers
            .iter()
            .filter(|server| server.core().state() == ServerState::Ready)
            .filter_map(|server| Some((server.core().config(), server.core().listing()?)))
            .collect();
        let fresh = Known {
            version,
            catalogue: Arc::new(Catalogue::new(&listings)),
            offer: None,
        };
        *known = Some(fresh.clone());
        fresh
    }
}

fn warn_of_clear_secrets(config: &ServerConfig) {
    if let Transport::Http(http) = &config.transport
        && http.tells_secrets_in_clear()
    {
        tracing::warn!(
            tool.server = config.name,
            url = http.shown,
            "secrets go to this tool server unencrypted; give it an https address"
        );
    }
}

/// A run of a job, for servers whose processes serve one job each.
#[derive(Debug)]
pub struct Session {
    toolbox: Toolbox,
    job: JobId,
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.toolbox.0.jobs.end(self.job) {
            for server in &self.toolbox.0.servers {
                server.end(self.job);
            }
        }
    }
}

/// The servers that are wanted and down.
fn missing(wanted: &[&Server], selection: &Selection<'_>) -> Result<Vec<String>, ToolsError> {
    let mut missing = Vec::new();
    for server in wanted {
        let config = server.core().config();
        let reason = match server.core().state() {
            ServerState::Ready => continue,
            ServerState::Starting => "it has not started in time".to_owned(),
            ServerState::Down { reason, .. } => reason,
        };
        if config.required || selection.servers.is_some() {
            return Err(ToolsError::Unavailable {
                server: config.name.clone(),
                reason,
            });
        }
        missing.push(config.name.clone());
    }
    Ok(missing)
}

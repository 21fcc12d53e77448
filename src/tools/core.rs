//! What is known of one tool server, and how its processes are started: one after the other as long
//! as they fail, later and later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{MutexGuard, Notify, watch};

use super::breaker::{Breaker, Turn};
use super::child::{Nursery, Vitals};
use super::era::{self, Era};
use super::error::{StartError, Stillborn};
use super::handshake::Terms;
use super::http::Endpoint;
use super::listing::Listing;
use super::process::Process;
use super::session::{About, Listed};
use crate::config::{Protocol, ServerConfig};
use crate::meter::ServerMeter;

/// Whether a server's tools can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Its first process is being started.
    Starting,
    /// A process has started; whether one runs right now is another matter.
    Ready,
    /// It has no process, and the last start failed.
    Down {
        /// Why; fit for users.
        reason: String,
        /// The end of what its last process said on its standard error; for operators only.
        last_words: String,
    },
}

/// How long a list of tools holds at least and at most, whatever its server says.
const LEAST_FRESH: Duration = Duration::from_secs(5);
const MOST_FRESH: Duration = Duration::from_hours(24);
/// How long after a failed look at it the next one follows.
const REFRESH_PAUSE: Duration = Duration::from_mins(1);

/// What is known of a server besides its tools.
#[derive(Debug, Default)]
struct Facts {
    about: Option<About>,
    /// When the list of tools is to be read again.
    fresh_until: Option<Instant>,
}

/// What the pool and the keeper share.
#[derive(Debug)]
pub(super) struct Core {
    config: ServerConfig,
    nursery: Nursery,
    endpoint: Endpoint,
    vitals: Arc<Vitals>,
    changed: Arc<Notify>,
    state: watch::Sender<ServerState>,
    listing: Mutex<Option<Arc<Listing>>>,
    facts: Mutex<Facts>,
    /// Grows whenever what jobs may be offered changes; one number for all servers.
    version: Arc<AtomicU64>,
    breaker: Mutex<Breaker>,
    /// Held by the one that starts a process of a server that failed to start.
    trying: tokio::sync::Mutex<()>,
    /// The handshake that worked last.
    era: Mutex<Option<Era>>,
    meter: ServerMeter,
}

impl Core {
    /// What is known before the first start: nothing.
    pub(super) fn new(config: &ServerConfig, nursery: &Nursery, version: &Arc<AtomicU64>) -> Self {
        Self {
            config: config.clone(),
            nursery: nursery.clone(),
            endpoint: Endpoint::default(),
            vitals: Arc::default(),
            changed: Arc::default(),
            state: watch::Sender::new(ServerState::Starting),
            listing: Mutex::default(),
            facts: Mutex::default(),
            version: Arc::clone(version),
            breaker: Mutex::default(),
            trying: tokio::sync::Mutex::default(),
            era: Mutex::default(),
            meter: ServerMeter::new(&config.name),
        }
    }

    pub(super) fn state(&self) -> ServerState {
        self.state.borrow().clone()
    }

    /// Waits until the first start has succeeded or failed, at most as long as a start may take.
    pub(super) async fn first_start(&self) {
        if *self.state.borrow() != ServerState::Starting {
            return;
        }
        let mut state = self.state.subscribe();
        let started = state.wait_for(|state| *state != ServerState::Starting);
        // Who asks later finds the state.
        tokio::time::timeout(self.config.start_timeout, started)
            .await
            .ok();
    }

    /// How long until the next try to start a process.
    pub(super) fn rest(&self) -> Duration {
        self.lock_breaker().left(Instant::now())
    }

    pub(super) fn config(&self) -> &ServerConfig {
        &self.config
    }

    pub(super) fn meter(&self) -> &ServerMeter {
        &self.meter
    }

    pub(super) fn nursery(&self) -> &Nursery {
        &self.nursery
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Starts a process when the breaker lets it, and keeps the books about it.
    pub(super) async fn start_process(&self, who: Who) -> Result<Process, StartError> {
        let _turn = self.turn(who).await?;
        match Box::pin(self.start_in_some_era()).await {
            Ok((process, tools)) => {
                self.lock_breaker().succeeded();
                self.learn(tools, Learnt::AtStart);
                Ok(process)
            }
            Err(Stillborn { error, last_words }) => {
                self.note_failure(&error, last_words);
                Err(error)
            }
        }
    }

    /// Waits for the turn to start a process. As long as starts fail they are made one by one, and
    /// in the end by the keeper alone.
    async fn turn(&self, who: Who) -> Result<Option<MutexGuard<'_, ()>>, StartError> {
        let mut turn = None;
        loop {
            let told = self.lock_breaker().ask(Instant::now());
            match (told, who) {
                (Turn::Go, _) => return Ok(turn),
                (Turn::Rest(_, error), Who::Caller) => return Err(error),
                (Turn::Wait(left), _) => tokio::time::sleep(left).await,
                (Turn::Rest(left, _), Who::Keeper) if !left.is_zero() => {
                    tokio::time::sleep(left).await;
                }
                (Turn::Try, _) | (Turn::Rest(..), Who::Keeper) => match turn {
                    Some(_) => return Ok(turn),
                    None => turn = Some(self.trying.lock().await),
                },
            }
        }
    }

    /// Whether a process can be called once more.
    pub(super) fn is_fit(&self, process: &Process) -> bool {
        process.is_usable() && !process.is_worn(&self.config.pool)
    }

    /// Whether there is no process that can be called.
    pub(super) fn has_none(&self) -> bool {
        self.vitals.ready.load(Ordering::Relaxed) == 0
    }

    /// Whether calls do not wait for starts: too many have failed.
    pub(super) fn is_resting(&self) -> bool {
        self.lock_breaker().is_open()
    }

    /// What a call is told at once that finds nothing to wait for but a start.
    pub(super) fn refusal(&self) -> Option<StartError> {
        match self.lock_breaker().ask(Instant::now()) {
            Turn::Rest(_, error) => Some(error),
            Turn::Go | Turn::Try | Turn::Wait(_) => None,
        }
    }

    /// Servers of either era refuse the other's handshake, some by ending; what worked is remembered.
    async fn start_in_some_era(&self) -> Result<(Process, Listed), Stillborn> {
        let known = *self.era.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first: Option<Stillborn> = None;
        for era in era::tries(self.config.era, &self.config.transport, known) {
            match Process::start(self, *era).await {
                Ok((process, tools)) => {
                    let mut known = self.era.lock().unwrap_or_else(PoisonError::into_inner);
                    *known = process.era();
                    return Ok((process, tools));
                }
                Err(refused) if refused.is_refusal() && self.config.protocol == Protocol::Mcp => {
                    first.get_or_insert(refused);
                }
                Err(stillborn) => return Err(first.unwrap_or(stillborn)),
            }
        }
        // Where none works, the first refusal tells most.
        Err(first.unwrap_or_else(|| Stillborn::silent(StartError::Refused("every one".to_owned()))))
    }

    /// The terms of the conversations with this server.
    pub(super) fn terms(&self, era: Era) -> Terms {
        Terms {
            era,
            elicitation: self.config.elicitation,
            changed: self.changed(),
        }
    }

    fn note_failure(&self, error: &StartError, last_words: String) {
        let (server, reason) = (&self.config.name, error.to_string());
        tracing::warn!(
            tool.server = server,
            reason,
            last_words,
            "a tool server did not start"
        );
        self.lock_breaker()
            .failed(Instant::now(), &reason, fastrand::f64());
        // Only the keeper tries again when calls do not wait any more.
        self.vitals.lost.notify_one();
        if self.has_none() {
            let down = ServerState::Down { reason, last_words };
            self.state.send_replace(down);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes a list of tools in.
    pub(super) fn learn(&self, listed: Listed, when: Learnt) {
        let Listed {
            tools: source,
            cut,
            fresh_for,
            about,
        } = listed;
        let fresh_for = fresh_for.map(|time| time.clamp(LEAST_FRESH, MOST_FRESH));
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Facts {
            about: Some(about),
            fresh_until: fresh_for.map(|time| Instant::now() + time),
        };
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = listing
            .as_ref()
            .is_some_and(|listing| listing.is_of(&source));
        let ready = *self.state.borrow() == ServerState::Ready;
        if known && ready {
            return;
        }
        if !known && ready && when == Learnt::AtStart && listing.is_some() {
            // Some servers list more once they have been running for a moment: look again then.
            self.changed.notify_one();
            return;
        }
        if !known {
            *listing = Some(Arc::new(Listing::read(&self.config.name, source, cut)));
        }
        drop(listing);
        self.state.send_replace(ServerState::Ready);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// What the server says of itself; none before its first start.
    pub(super) fn about(&self) -> Option<About> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.about.clone()
    }

    /// Waits until the list of tools is to be read again; for ever where the server does not say.
    pub(super) async fn stale(&self) {
        let fresh_until = {
            let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            facts.fresh_until
        };
        match fresh_until {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    /// The list is about to be read again; if that fails, it is tried again only later.
    pub(super) fn begin_refresh(&self) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let later = Instant::now() + REFRESH_PAUSE;
        facts.fresh_until = facts.fresh_until.map(|at| at.max(later));
    }

    pub(super) fn listing(&self) -> Option<Arc<Listing>> {
        let listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        listing.as_ref().map(Arc::clone)
    }

    fn lock_breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who wants a process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// A call, which is told at once when starts have failed too often.
    Caller,
    /// The one who keeps the server ready and has time.
    Keeper,
}

/// When a list of tools was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Learnt {
    /// Before the process was first called.
    AtStart,
    /// When its server said that its tools changed.
    Later,
}

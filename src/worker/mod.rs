//! One worker process: takes deliveries, claims their jobs, has them run, publishes results, says
//! that it is alive.
//!
//! The order is permit, take, claim, commit, ack: a delivery is acknowledged after its job is
//! stored, never before, and from then on nothing that the broker does concerns the job. May
//! import everything above it.

mod control;
mod counting;
mod delivery;
mod events;
mod health;
mod http;
mod in_hand;
mod intake;
mod loops;
mod marks;
mod outgoing;
mod presence;
mod publish;
mod reading;
mod refusal;
mod running;
mod scrape;
mod sweep;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Announcer, Broker, Publisher};
use crate::clock::Clock;
use crate::config::{Config, ModelConfig};
use crate::ids::WorkerId;
use crate::runner::{Events, Pulse, Runner};
use crate::store::{Registration, Store, StoreError};

use in_hand::InHand;
use loops::Loops;
use marks::Marks;
use presence::{Judgement, Presence};
use scrape::Asked;
use sweep::Sweep;

pub use presence::host_name;

/// What a worker is made of.
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// The broker.
    pub broker: Broker,
    /// Where events are sent.
    pub announcer: Announcer,
    /// The record.
    pub store: Store,
    /// What runs jobs.
    pub runner: Runner,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Shows all figures. A worker moves figures and serves them; how they are kept is nothing to it.
    pub figures: Render,
}

/// Writes all figures down, in Prometheus' text format.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// One worker process. A clone is the same worker.
#[derive(Clone)]
pub struct Worker(Arc<Inner>);

struct Inner {
    id: WorkerId,
    registration: Registration,
    config: Config,
    servers: Vec<String>,
    broker: Broker,
    publisher: Publisher,
    store: Store,
    runner: Runner,
    events: Events,
    clock: Arc<dyn Clock>,
    in_hand: InHand,
    marks: Marks,
    pulse: Pulse,
    judgement: Judgement,
    loops: Loops,
    figures: Render,
    asked: Asked,
    /// Has the sweep look at once.
    sweep_now: Notify,
    /// Whether so many results wait to be published that no more jobs are taken in.
    is_clogged: AtomicBool,
    errands: TaskTracker,
    /// Whether it was ever seen to consume.
    has_consumed: AtomicBool,
}

impl Worker {
    /// Signs the worker on.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn sign_on(
        parts: Parts,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, StoreError> {
        let id = WorkerId(uuid::Uuid::now_v7());
        let registration = Registration {
            id,
            host: host_name(),
            concurrency: parts.config.worker.concurrency,
        };
        parts.store.register(&registration).await?;
        let loops = Loops::default();
        let (events, said) = Events::channel(Arc::clone(&parts.clock));
        tasks.spawn(events::announce(said, parts.announcer, stop.clone()));
        Ok(Self(Arc::new(Inner {
            id,
            registration,
            servers: parts
                .config
                .tools
                .servers
                .iter()
                .map(|server| server.name.clone())
                .collect(),
            publisher: parts.broker.publisher(),
            broker: parts.broker,
            in_hand: InHand::default(),
            marks: Marks::start(
                parts.store.clone(),
                loops.marks.clone(),
                tasks,
                stop.clone(),
            ),
            store: parts.store,
            clock: parts.clock,
            pulse: parts.runner.pulse.clone(),
            runner: parts.runner,
            events,
            judgement: Judgement::default(),
            loops,
            figures: parts.figures,
            asked: Asked::default(),
            sweep_now: Notify::new(),
            is_clogged: AtomicBool::new(false),
            config: parts.config,
            errands: TaskTracker::new(),
            has_consumed: AtomicBool::new(false),
        })))
    }

    /// Starts the loops beside the intake on `tasks`, until `stop`: the heartbeat, which claims lost
    /// runs on `runs` and drops them with `abandon`, the sweep, and the control messages.
    pub fn start(
        &self,
        (runs, abandon): (&TaskTracker, &CancellationToken),
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let presence = Presence::of(self.clone(), runs.clone(), abandon.clone());
        tasks.spawn(presence.keep(stop.clone()));
        tasks.spawn(Sweep::of(self.clone()).keep(stop.clone()));
        tasks.spawn(self.clone().obey(stop.clone()));
    }

    /// This process's id.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.0.id
    }

    fn model(&self) -> &ModelConfig {
        &self.0.config.model
    }
}

//! Composition: builds the rooms from the configuration and runs them. May import every room.

mod start;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::model::Model;
use crate::runner::{Pacer, Pulse, Runner, Standby};
use crate::telemetry::Figures;
use crate::tools::Toolbox;
use crate::worker::{Parts, Worker};

use stop::Signals;

/// How long after `CHAT_DRAIN_SECS` the worker's work is cut short.
const WIND_UP: Duration = Duration::from_millis(700);
/// How long what follows may take then: a tool server has a second to end.
const LAST: Duration = Duration::from_millis(1_150);
/// How long a consumer may take to stop: a broker that does not answer must not use up the time of
/// the running jobs.
const LEAVE: Duration = Duration::from_secs(1);
/// One that does answer gets so long in any case.
const LEAVE_AT_LEAST: Duration = Duration::from_millis(200);

/// Runs a worker until SIGTERM or SIGINT, and drains it then: no new jobs, `CHAT_DRAIN_SECS` for
/// the running ones, every child ended, at most two seconds later. A second signal ends it at once.
///
/// # Errors
/// What kept it from starting, for people.
pub async fn run(config: Config, migrate: bool) -> anyhow::Result<()> {
    open_files();
    let drain = config.worker.drain;
    let signals = Signals::listen()?;
    // Before anything is there to be counted.
    let figures = Figures::keep()?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let abandon = CancellationToken::new();
    let tools = Toolbox::start(&config.tools, &tasks);
    let served = tokio::select! {
        served = serve(config, migrate, (tools.clone(), figures), (&tasks, &stop, &abandon), &signals) => served,
        () = signals.second() => {
            tracing::warn!("told to stop twice; running jobs are left to other workers");
            Ok(())
        }
        () = signals.over(drain + WIND_UP) => {
            tracing::warn!("the time for stopping is over; what is not done is left to other workers");
            Ok(())
        }
    };
    // Before the tool servers end: a call that fails only because they do is no outcome.
    abandon.cancel();
    stop.cancel();
    tasks.close();
    // Each of these ends by itself; but a supervisor counts the seconds, and a service that does not
    // answer must not be waited for.
    let begun = Instant::now();
    let ending = async {
        tools.shutdown().await;
        tokio::select! { () = tasks.wait() => {}, () = signals.second() => {} }
    };
    let late = async {
        signals.over(drain + WIND_UP).await;
        tokio::time::sleep_until(begun + LAST).await;
    };
    tokio::select! {
        () = ending => {}
        () = late => tracing::warn!("some of the worker's tasks did not end in time"),
    }
    served
}

/// Lets the process open as many files as it may: every job in hand has a connection to the model
/// server, and the usual limit of 1,024 is one that old programs need.
fn open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(
    config: Config,
    migrate: bool,
    (tools, figures): (Toolbox, Figures),
    (tasks, stop, abandon): (&TaskTracker, &CancellationToken, &CancellationToken),
    signals: &Signals,
) -> anyhow::Result<()> {
    let address = config.worker.http_addr;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("CHAT_HTTP_ADDR: cannot listen on {address}"))?;
    // With port 0 the system chose one.
    let address = listener.local_addr()?;
    let started = tokio::select! {
        started = start::services(&config, migrate, tasks, stop) => started?,
        () = signals.first() => return Ok(()),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let runner = Runner {
        store: started.store.clone(),
        model: Model::connect(&config.model)?,
        models: Arc::new(config.model.clone()),
        pacer: Pacer::start(&config.model, &started.store, tasks, stop),
        standby: Standby::default(),
        tools,
        clock: Arc::clone(&clock),
        jobs: Arc::new(config.jobs.clone()),
        model_result_bytes: config.tools.model_result_bytes,
        pulse: Pulse::default(),
    };
    let drain = config.worker.drain;
    let shown = figures.clone();
    tasks.spawn(figures.look_after(stop.clone()));
    let parts = Parts {
        config,
        broker: started.broker,
        announcer: started.announcer,
        store: started.store,
        runner,
        clock,
        figures: Arc::new(move || shown.render()),
    };
    let worker = Worker::sign_on(parts, tasks, stop).await?;
    tracing::info!(worker.id = %worker.id(), http = %address, "the worker takes jobs");
    tasks.spawn(worker.clone().serve_health(listener, stop.clone()));
    let runs = TaskTracker::new();
    worker.start((&runs, abandon), tasks, stop);
    tokio::select! {
        () = worker.take_in(&runs, signals.token(), abandon) => {}
        () = signals.over((drain / 3).clamp(LEAVE_AT_LEAST, LEAVE)) => tracing::warn!("the broker does not let go"),
    }
    tracing::info!(jobs = runs.len(), "stopping: running jobs may end");
    let end = signals.since().unwrap_or_else(Instant::now) + drain;
    worker.drain(&runs, end, abandon).await;
    Ok(())
}

//! Chaos: jobs through the worker's real binary while replicas are killed, frozen and told to stop, connections are cut,
//! the broker and the database go away, and the model fails; then the laws that hold all the same.
//!
//! Run it with `cargo xtask chaos`, which starts servers that may be broken. What goes wrong and
//! which jobs there are depends on the seed alone; how far they get in the time does not.

mod arguments;
mod consumers;
mod effects;
mod fleet;
mod ground;
mod jobs;
mod laws;
mod ledger;
mod model;
mod plan;
mod producers;
mod records;
mod report;
mod settle;
mod summary;
mod victims;
mod wish;

#[expect(dead_code, reason = "tests include this too, and use the rest of it")]
#[path = "../stub_model/server.rs"]
mod stub_model;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use arguments::Arguments;
use consumers::Consumers;
use effects::Effects;
use fleet::Fleet;
use ground::Ground;
use laws::{Law, Seen};
use ledger::Ledger;
use model::Asked;
use plan::{Plan, Trouble};
use producers::Producers;
use records::Records;
use report::{Clock, Table};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match Box::pin(unless_stopped(chaos(&arguments))).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            writeln!(std::io::stderr().lock(), "error: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

/// Runs `play` unless a signal comes; what it held is dropped then, and its programs are ended.
async fn unless_stopped<T>(play: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        played = play => played,
        _ = interrupt.recv() => bail!("stopped by SIGINT"),
        _ = terminate.recv() => bail!("stopped by SIGTERM"),
    }
}

/// Whether all laws held.
async fn chaos(arguments: &Arguments) -> anyhow::Result<bool> {
    arguments.victims.check()?;
    let clock = Clock::start();
    let mut ground = Arc::new(Ground::open(arguments).await?);
    let (ledger, asked) = (Ledger::default(), Asked::default());
    let model = model::start(arguments.seed, &asked);
    let mut fleet = Fleet::start(&ground, &model.base_url(), arguments.replicas())?;
    let consumers = Consumers::start(&ground, &ledger);
    let producers = Producers::start(&ground, &ledger, arguments.seed, arguments.rate);
    let done = make_trouble(arguments, &mut fleet, &clock).await?;
    clock.say(&"no more trouble: what has begun is to end");
    fleet.thaw_all();
    fleet.look_after()?;
    producers.finish().await;
    let settled = settle::wait(&ground, &ledger, &mut fleet, &clock).await;
    fleet.stop().await?;
    consumers.finish(&ground, &ledger).await?;
    let left = fleet::left_behind(&ground.prefix, &ground.effects()).await;

    let records = Records::load(&ground.pool).await.context("the rows")?;
    let (entries, asked) = (ledger.entries(), asked.book());
    let effects = Effects::read(&ground.effects());
    let seen = Seen {
        records: &records,
        entries: &entries,
        asked: &asked,
        effects: &effects,
    };
    let mut table = Table::default();
    table.tally("done:", done.iter().map(|trouble| trouble.kind()));
    summary::fill(&mut table, &seen, &fleet);
    table.print();
    let mut laws = laws::check(&seen);
    let law = |text, broken| Law { text, broken };
    laws.push(law(
        "all of it ended in time",
        settled.err().into_iter().collect(),
    ));
    laws.push(law(
        "every replica ended when it was told to, and not before",
        fleet.complaints.clone(),
    ));
    laws.push(law("no process was left behind", left));
    let held = report::laws(&laws);
    if !held && let Some(ground) = Arc::get_mut(&mut ground) {
        let kept = ground.keep_files();
        report::print(&format!("the workers' logs: {}", kept.display()));
    }
    Ok(held)
}

/// Does what the plan says until the time is over; returns what was done.
async fn make_trouble(
    arguments: &Arguments,
    fleet: &mut Fleet,
    clock: &Clock,
) -> anyhow::Result<Vec<Trouble>> {
    let mut plan = Plan::new(arguments.seed, arguments.replicas());
    let end = Instant::now() + arguments.time();
    let mut done = Vec::new();
    loop {
        let (pause, trouble) = plan.next();
        let next = Instant::now() + pause;
        if next > end {
            sleep_until(end).await;
            return Ok(done);
        }
        sleep_until(next).await;
        fleet.look_after()?;
        clock.say(&trouble);
        inflict(trouble, arguments, fleet).await?;
        done.push(trouble);
    }
}

async fn inflict(trouble: Trouble, arguments: &Arguments, fleet: &mut Fleet) -> anyhow::Result<()> {
    let victims = &arguments.victims;
    match trouble {
        Trouble::Kill { replica } => fleet.kill(replica).await,
        Trouble::Freeze { replica, time } => {
            fleet.freeze(replica, time);
            Ok(())
        }
        Trouble::Drain { replica } => fleet.drain(replica),
        Trouble::CloseConnections => victims.close_connections().await,
        Trouble::RestartBroker { away } => victims.restart_broker(away).await,
        Trouble::TerminateBackends => victims.terminate_backends().await,
        Trouble::RestartDatabase { stop, away } => victims.restart_database(stop, away).await,
    }
}

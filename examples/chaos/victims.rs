//! The servers that are stopped and started, and how.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::plan::Stop;

/// The slowest of it: a broker that starts on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A broker and a database that may be broken.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Victims {
    /// `PostgreSQL`, where a database of its own is created
    #[arg(
        long = "victim-database-url",
        env = "VICTIM_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        default_value = ""
    )]
    pub(crate) database_url: String,
    /// `RabbitMQ`, where queues of its own are declared
    #[arg(
        long = "victim-amqp-url",
        env = "VICTIM_AMQP_URL",
        value_name = "URL",
        hide_env_values = true,
        default_value = ""
    )]
    pub(crate) amqp_url: String,
    /// A program that is `pg_ctl` of that `PostgreSQL`
    #[arg(long = "victim-pg-ctl", env = "VICTIM_PG_CTL", value_name = "FILE")]
    pg_ctl: Option<PathBuf>,
    /// A program that is `rabbitmqctl` of that `RabbitMQ`
    #[arg(
        long = "victim-rabbitmqctl",
        env = "VICTIM_RABBITMQCTL",
        value_name = "FILE"
    )]
    rabbitmqctl: Option<PathBuf>,
}

impl Victims {
    /// That they are named.
    ///
    /// # Errors
    /// They are not; the text says what to do.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let is_complete = !self.database_url.is_empty()
            && !self.amqp_url.is_empty()
            && self.pg_ctl.is_some()
            && self.rabbitmqctl.is_some();
        if !is_complete {
            bail!("needs servers that may be stopped: run `cargo xtask chaos`");
        }
        Ok(())
    }

    /// Closes every connection to the broker.
    pub(crate) async fn close_connections(&self) -> anyhow::Result<()> {
        run(
            self.rabbitmqctl.as_ref(),
            &["close_all_connections", "chaos"],
        )
        .await
    }

    /// Stops the broker, and starts it after this time.
    pub(crate) async fn restart_broker(&self, away: Duration) -> anyhow::Result<()> {
        run(self.rabbitmqctl.as_ref(), &["stop_app"]).await?;
        sleep(away).await;
        run(self.rabbitmqctl.as_ref(), &["start_app"]).await
    }

    /// Closes every connection to the database but the one that does it.
    pub(crate) async fn terminate_backends(&self) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.database_url).await?;
        let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        connection.execute(all).await?;
        Ok(connection.close().await?)
    }

    /// Stops the database, and starts it after this time.
    pub(crate) async fn restart_database(&self, stop: Stop, away: Duration) -> anyhow::Result<()> {
        let mode = match stop {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        run(self.pg_ctl.as_ref(), &["stop", "-m", mode]).await?;
        sleep(away).await;
        run(self.pg_ctl.as_ref(), &["start"]).await
    }
}

async fn run(program: Option<&PathBuf>, arguments: &[&str]) -> anyhow::Result<()> {
    let program = program.context("no program for it")?;
    let shown = || format!("{} {}", program.display(), arguments.join(" "));
    let mut command = Command::new(program);
    let running = command.args(arguments).kill_on_drop(true).output();
    let output = timeout(PATIENCE, running)
        .await
        .with_context(|| format!("{} does not end", shown()))?
        .with_context(shown)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", shown(), output.status, said.trim());
    }
    Ok(())
}

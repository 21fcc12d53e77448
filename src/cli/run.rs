use std::process::ExitCode;

use super::guard::guarded;
use crate::config::{Settings, environment};
use crate::{app, telemetry};

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Do not bring the database's schema up to date first
    #[arg(long)]
    no_migrate: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the worker.
pub(super) async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut config = args.settings.parse(&environment)?;
    config.tools = guarded(config.tools);
    telemetry::init(&config.telemetry)?;
    #[cfg(feature = "failpoints")]
    crate::crash::arm(environment("CHAT_FAILPOINT").as_deref()).map_err(anyhow::Error::msg)?;
    Box::pin(app::run(config, !args.no_migrate)).await?;
    Ok(ExitCode::SUCCESS)
}

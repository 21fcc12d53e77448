//! The commands. Parses arguments, calls the rooms, and prints: what a command is for on standard
//! output, everything else on standard error. Holds no rules of its own. May import every room.

mod age;
mod cancel;
mod check;
mod dead;
mod enqueue;
mod failure;
mod guard;
mod migrate;
mod output;
mod progress;
mod prune;
mod rule;
mod run;
mod schema;
mod sender;
mod show;
mod text;
mod timeline;
mod tools;

use std::process::ExitCode;

pub use guard::guard;

use clap::{Parser, Subcommand};

use crate::config::{LogFormat, Problems, TelemetryConfig, environment};
use crate::telemetry;

#[derive(Debug, Parser)]
#[command(
    name = "chat-worker",
    version,
    about = env!("CARGO_PKG_DESCRIPTION"),
    after_help = "Settings are read from flags, from the environment and from a file .env, in this order.\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the worker until it is told to stop (SIGTERM, Ctrl-C)
    Run(Box<run::RunArgs>),
    /// Bring the database's schema up to date
    Migrate(migrate::MigrateArgs),
    /// Check configuration, broker, database, model and tools: a line each
    ///
    /// Declares queues that are missing, as `run` does, and changes nothing else.
    Check(Box<check::CheckArgs>),
    /// Start every configured tool server and list what the model will see
    Tools(tools::ToolsArgs),
    /// Send one job, or a file of jobs
    Enqueue(Box<enqueue::EnqueueArgs>),
    /// Show a job as a timeline: model calls, tool calls, times, tokens
    Show(show::ShowArgs),
    /// Call a job off
    ///
    /// A waiting job ends at once, a running one within a second; its result has the status
    /// `cancelled`. A job that nobody knows yet is called off if it comes within 24 h.
    Cancel(cancel::CancelArgs),
    /// Let a tool call be made that waits for a person's approval
    ///
    /// The tools that need one are named by `approval` in `MCP_CONFIG`. The job goes on when all calls
    /// that it waits for are decided.
    Approve(rule::RuleArgs),
    /// Have a tool call not be made that waits for a person's approval
    ///
    /// The job goes on without it; the model is told, with the reason.
    Deny(rule::RuleArgs),
    /// List, show, replay and drop dead letters
    ///
    /// A dead letter is a message that was no job, or a job that failed for good. The table
    /// `chat.dead_letters` is the record; the queue `chat.jobs.dead` holds copies, which these
    /// commands neither read nor remove.
    Dead(Box<dead::DeadArgs>),
    /// Delete what is old: ended jobs with all their rows, conversations, dead letters, workers
    ///
    /// Deletes jobs that ended so long ago, and conversations of which nothing is left then. Jobs that
    /// have not ended, or whose result is not out, are kept. What is deleted is forgotten: a repeat of
    /// such a job runs again, later turns do not see it, usage and statistics do not count it.
    Prune(prune::PruneArgs),
    /// Print the JSON Schema of a message
    Schema(schema::SchemaArgs),
}

/// Does what the arguments of this process say.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
pub async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            error.print().unwrap_or_default();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let done = Box::pin(cli.command.run()).await;
    done.unwrap_or_else(|error| failure::report(&error))
}

impl Command {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => run::run(&args).await,
            Self::Migrate(args) => migrate::run(&args).await,
            Self::Check(args) => check::run(&args).await,
            Self::Tools(args) => tools::run(&args).await,
            Self::Enqueue(args) => enqueue::run(*args).await,
            Self::Show(args) => show::run(&args).await,
            Self::Cancel(args) => cancel::run(&args).await,
            Self::Approve(args) => rule::run(&args, true).await,
            Self::Deny(args) => rule::run(&args, false).await,
            Self::Dead(args) => dead::run(&args).await,
            Self::Prune(args) => prune::run(&args).await,
            Self::Schema(args) => schema::run(&args),
        }
    }
}

/// What `parse` makes of settings, or all of their problems.
fn checked<T>(parse: impl FnOnce(&mut Problems) -> Option<T>) -> Result<T, Problems> {
    let mut problems = Problems::default();
    let parsed = parse(&mut problems);
    problems.none_or(|| parsed)
}

/// Returns when somebody wants this process to end, for commands that have children to end first.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        tokio::signal::ctrl_c().await.unwrap_or_default();
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Logs of a command that is no worker: it says itself what went wrong, so there are none unless
/// they are asked for.
fn init_quiet_logs() -> anyhow::Result<()> {
    let filter = environment("RUST_LOG").unwrap_or_else(|| "off".to_owned());
    let format = LogFormat::Text;
    telemetry::init(&TelemetryConfig { format, filter })
        .map_err(|error| failure::Usage(error.to_string()).into())
}

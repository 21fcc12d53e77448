//! `dead`: what is done about dead letters. The table is the record; of the broker only the jobs
//! queue is written to, for a replay.

mod body;
mod clear;
mod list;
mod new_job;
mod replay;
mod show;

use std::process::ExitCode;

/// The arguments of `dead`.
#[derive(Debug, clap::Args)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DeadCommand {
    /// List dead letters, newest first, a line each
    List(list::ListArgs),
    /// Show a dead letter: what was wrong, its properties, its body
    Show(show::ShowArgs),
    /// Send dead letters to the jobs queue again, each as a new job
    ///
    /// A new job has a new id, and the old one in `metadata.replay_of`. It keeps its conversation,
    /// correlation id, priority and trace, and its `reply_to` where `CHAT_REPLY_TO_ALLOW` allows it.
    /// For each the ids of the dead letter and of the new job are printed. What cannot be replayed
    /// is named, and does not keep the others back.
    Replay(Box<replay::ReplayArgs>),
    /// Delete dead letters from the table
    ///
    /// Nothing is asked. The copies in the queue `chat.jobs.dead` are left as they are.
    Drop(clear::DropArgs),
}

/// Does what the arguments say.
pub(super) async fn run(args: &DeadArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        DeadCommand::List(args) => list::run(args).await,
        DeadCommand::Show(args) => show::run(args).await,
        DeadCommand::Replay(args) => replay::run(args).await,
        DeadCommand::Drop(args) => clear::run(args).await,
    }
}

/// As many, in words.
fn letters(many: u64) -> String {
    match many {
        1 => "1 dead letter".to_owned(),
        many => format!("{many} dead letters"),
    }
}

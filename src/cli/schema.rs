use std::process::ExitCode;

use super::output;
use crate::wire;

/// The arguments of `schema`.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {
    /// Which message
    #[arg(value_enum)]
    message: Message,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Message {
    /// The job that goes in
    Job,
    /// The result that comes out
    Result,
    /// What is said of a job while it goes on
    Event,
}

/// Prints the JSON Schema of a message.
pub(super) fn run(args: &SchemaArgs) -> anyhow::Result<ExitCode> {
    let schema = match args.message {
        Message::Job => wire::job_schema(),
        Message::Result => wire::result_schema(),
        Message::Event => wire::event_schema(),
    };
    output::line(&serde_json::to_string_pretty(&schema)?)?;
    Ok(ExitCode::SUCCESS)
}

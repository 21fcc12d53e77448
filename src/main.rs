//! The program: see the crate's documentation.
use clap::Parser;
#[derive(clap::Parser)]
enum Cli {
    /// Runs the worker
    Run(Box<chat_worker::config::Settings>),
}
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli::Run(settings) = Cli::parse();
    let config = settings.parse(&|name| chat_worker::config::environment(name))?;
    tracing_subscriber::fmt().with_env_filter("info,rmcp=warn,lapin=off").with_writer(std::io::stderr).init();
    chat_worker::app::run(config, true).await
}

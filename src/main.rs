//! temp
use clap::Parser;
#[derive(clap::Parser)]
struct Cli { #[command(flatten)] s: chat_worker::config::Settings }
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter("info,rmcp=warn").init();
    let cli = Cli::parse();
    let c = cli.s.parse(&|n| chat_worker::config::environment(n))?;
    chat_worker::app::run(c, true).await
}

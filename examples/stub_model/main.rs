//! A scripted model server for demonstrations and benchmarks: it speaks the Chat Completions API,
//! refuses what `OpenAI` would refuse, and adds two numbers with a tool when it is asked to.
//!
//! Prints `listening on http://127.0.0.1:PORT/v1` and ends when its standard input does.

use std::io::Write;
use std::time::Duration;

use clap::Parser;

#[expect(dead_code, reason = "tests include this too, and use the rest of it")]
#[path = "server.rs"]
mod server;

use server::{Script, StubModel};

/// A scripted model server.
#[derive(Parser)]
struct Arguments {
    /// The port; 0: any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// How long each answer takes
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Threads that serve
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut runtime = match arguments.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime
        .worker_threads(arguments.threads.max(1))
        .enable_all()
        .build()?;
    runtime.block_on(serve(&arguments))?;
    // The reader of standard input may still wait in a thread of its own.
    runtime.shutdown_background();
    Ok(())
}

async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let latency = Duration::from_millis(arguments.latency_ms);
    let stub = StubModel::open(Script::arithmetic(), arguments.port, latency)?.forgetful();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on {}", stub.base_url())?;
    stdout.flush()?;
    // Whoever started this holds the other end, so that nobody has to end it.
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    Ok(())
}

//! The benchmark: jobs with one tool call each, through the worker's real binary and real services, with a
//! scripted model.
//!
//! Run it with `cargo xtask bench`, which builds everything for release and starts services that
//! write to disk. What is measured and how is said in `docs/BENCHMARKS.md`. It fails if a job is
//! lost, answered twice or answered wrongly; a figure that misses its target is only printed.

mod figures;
mod hand;
mod limits;
mod load;
mod machine;
mod progress;
mod round;
mod table;
mod tally;
mod usage;

#[expect(
    dead_code,
    reason = "the demo includes this too, and uses the rest of it"
)]
#[path = "../demo/stage/mod.rs"]
mod stage;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;

use figures::Figures;
use load::Load;
use stage::{Ground, Place, Signals};

/// Jobs with one tool call each, through the worker's real binary and real services.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Jobs in each measured run
    #[arg(long, value_name = "N", default_value_t = 3000)]
    jobs: usize,
    /// Measured runs with each latency; the median counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Jobs that a replica has in hand at once (`CHAT_CONCURRENCY`)
    #[arg(long, value_name = "N", default_value_t = 64)]
    concurrency: usize,
    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 1)]
    replicas: usize,
    /// How long the model takes for an answer, in milliseconds, comma-separated
    #[arg(long, value_name = "MS", value_delimiter = ',', default_values_t = [0, 50])]
    latency_ms: Vec<u64>,
    /// Jobs a second while latencies are taken
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    rate: f64,
    /// Seconds for which latencies are taken
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    rate_secs: f64,
    /// Jobs in hand at once when memory is measured; 0: not measured
    #[arg(long, value_name = "N", default_value_t = 1000)]
    in_hand: usize,
    /// How long the model takes then, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    in_hand_latency_ms: u64,
    /// A sixth of the jobs, one run, the first latency only, 5 s at the low rate
    #[arg(long)]
    quick: bool,
    /// Prints tables in Markdown
    #[arg(long)]
    markdown: bool,
    /// Writes every figure to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The postmaster, whose tree's CPU time is counted
    #[arg(long, env = "BENCH_POSTGRES_PID", value_name = "PID")]
    postgres_pid: Option<u32>,
    /// `RabbitMQ`, whose tree's CPU time is counted
    #[arg(long, env = "BENCH_RABBITMQ_PID", value_name = "PID")]
    rabbitmq_pid: Option<u32>,
}

impl Arguments {
    fn shortened(mut self) -> Self {
        if self.quick {
            self.jobs = (self.jobs / 6).max(1);
            self.runs = 1;
            self.latency_ms.truncate(1);
            self.rate_secs = self.rate_secs.min(5.0);
        }
        self
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse().shortened();
    match Box::pin(bench(&arguments)).await {
        Ok(figures) => {
            let text = figures.tables(arguments.markdown);
            drop(std::io::stdout().lock().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            drop(writeln!(std::io::stderr().lock(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Makes the ground, measures on it, and leaves nothing behind however that ended.
async fn bench(arguments: &Arguments) -> anyhow::Result<Figures> {
    arguments.place.check("bench")?;
    machine::raise_open_files()?;
    let mut signals = Signals::listen()?;
    let ground = Ground::open(&arguments.place, "bench").await?;
    let measured = signals.guard(Box::pin(measure(arguments, &ground))).await;
    let closed = ground.close().await;
    let figures = measured?;
    closed?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&figures)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(figures)
}

async fn measure(arguments: &Arguments, ground: &Ground) -> anyhow::Result<Figures> {
    let servers =
        json!({"calc": {"command": arguments.place.example("calc_server")?, "required": true}});
    let mcp_config = ground.write_mcp_config(&servers)?;
    let machine = machine::Machine::describe(ground).await?;
    let limits = limits::measure(arguments, ground).await?;
    // The worker declares its queues; the load needs them before.
    let load = Load::open(&arguments.place, ground).await?;
    let mut rounds = Vec::new();
    for latency in &arguments.latency_ms {
        rounds.push(round::measure(arguments, ground, &load, &mcp_config, *latency).await?);
    }
    let in_hand = match arguments.in_hand {
        0 => None,
        _ => Some(hand::measure(arguments, ground, &load, &mcp_config).await?),
    };
    Ok(Figures {
        machine,
        settings: figures::Settings::of(arguments),
        rounds,
        in_hand,
        limits,
    })
}

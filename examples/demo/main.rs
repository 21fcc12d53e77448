//! One job, end to end, through the real worker: `RabbitMQ`, a model, an MCP tool, `PostgreSQL` and back.
//!
//! Run it with `cargo xtask demo`, which brings the services. It prints a line a step, checks every
//! claim it makes, and fails naming what is not so. Without `OPENAI_API_KEY` a scripted model
//! answers.

mod claims;
mod job;
mod record;
mod report;
#[expect(
    dead_code,
    reason = "the benchmark includes this too, and uses the rest of it"
)]
mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;

use claims::Claims;
use stage::{Ground, Model, Place, Signals, Worker};

/// One job, end to end, through the real worker.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// `OpenAI`'s key: the demo then asks the real model
    #[arg(
        long,
        env = "OPENAI_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        default_value = ""
    )]
    openai_api_key: String,
    /// The model of `OpenAI` that is asked
    #[arg(
        long,
        env = "CHAT_MODEL",
        value_name = "MODEL",
        default_value = "gpt-4o-mini"
    )]
    model: String,
    /// What the job asks
    #[arg(long, value_name = "TEXT", default_value = "What is 20 plus 22?")]
    question: String,
    /// What the answer has to contain
    #[arg(long, value_name = "TEXT", default_value = "42")]
    expect: String,
    /// Says in the end how to go on with services that stay up
    #[arg(long)]
    keep: bool,
}

impl Arguments {
    fn asks_openai(&self) -> bool {
        !self.openai_api_key.trim().is_empty()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begin = Instant::now();
    let ended = demo(&arguments).await;
    match ended {
        Ok(claims) if claims.broken().is_empty() => {
            let time = begin.elapsed().as_secs_f64();
            report::line("so", &format!("{claims}, whole path in {time:.1} s"));
            if arguments.keep {
                how_to_go_on();
            }
            ExitCode::SUCCESS
        }
        Ok(claims) => {
            for claim in claims.broken() {
                report::failed(claim);
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            report::failed(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Makes the ground, plays on it, and leaves nothing behind however the play ended.
async fn demo(arguments: &Arguments) -> anyhow::Result<Claims> {
    arguments.place.check("demo")?;
    let mut signals = Signals::listen()?;
    let ground = Ground::open(&arguments.place, "demo").await?;
    let database = format!(
        "{} on {}, dropped at the end",
        ground.database,
        ground.host()
    );
    report::line("database", &database);
    let played = signals.guard(play(arguments, &ground)).await;
    let closed = ground.close().await;
    let claims = played?;
    closed.map(|()| claims)
}

async fn play(arguments: &Arguments, ground: &Ground) -> anyhow::Result<Claims> {
    let place = &arguments.place;
    let mut settings = vec![(
        "MCP_CONFIG",
        ground.write_mcp_config(&json!({
            "calc": {"command": place.example("calc_server")?, "required": true},
            "words": {"command": place.example("line_server")?, "protocol": "line", "required": true},
        }))?,
    )];
    let model = if arguments.asks_openai() {
        report::line(
            "model",
            &format!("{} at OpenAI (OPENAI_API_KEY is set)", arguments.model),
        );
        settings.push(("OPENAI_API_KEY", arguments.openai_api_key.clone()));
        settings.push(("CHAT_MODEL", arguments.model.clone()));
        None
    } else {
        report::line(
            "model",
            "built-in scripted model (no OPENAI_API_KEY set; set it to use OpenAI)",
        );
        let model = Model::start(place, Duration::ZERO, ground.directory()).await?;
        settings.push(("OPENAI_BASE_URL", model.base_url().to_owned()));
        Some(model)
    };
    report::line(
        "mcp",
        "built-in servers \"calc\" (MCP) and \"words\" (line dialect) over stdio",
    );
    let mut worker = Worker::start(place, ground, &settings).await?;
    let ready = worker.starting.as_secs_f64();
    report::line(
        "worker",
        &format!("pid {}, ready after {ready:.1} s", worker.pid()),
    );

    let mut claims = Claims::default();
    let sent = job::publish(ground, &arguments.question, arguments.asks_openai()).await?;
    report::line(
        "job",
        &format!(
            "{} published to {}: {}",
            sent.id,
            ground.name("jobs"),
            arguments.question
        ),
    );
    let patience = Duration::from_secs(if model.is_some() { 20 } else { 180 });
    let followed = record::follow(ground, &sent, &mut worker, patience).await?;
    let stored = record::check(ground, &sent, &followed, &mut claims).await?;
    let transcript = record::transcript(ground, &sent).await?;
    claims.about_transcript(&transcript, &arguments.question, &arguments.expect, &stored);
    let result = job::read_back(ground, &sent, &mut worker).await?;
    claims.about_result(&result, &sent, &arguments.expect, &stored);
    stop(worker, &mut claims).await;
    Ok(claims)
}

async fn stop(worker: Worker, claims: &mut Claims) {
    let begin = Instant::now();
    match worker.stop().await {
        Ok(status) => {
            let time = begin.elapsed().as_secs_f64();
            let fact = format!("SIGTERM: ended with {status} after {time:.1} s");
            report::line("worker", &fact);
            claims.claim(status.success(), || {
                format!("the worker ends with status 0 on SIGTERM, but it ended with {status}")
            });
        }
        Err(error) => claims.claim(false, || {
            format!("the worker ends on SIGTERM, but {error:#}")
        }),
    }
}

fn how_to_go_on() {
    report::line(
        "next",
        "the services stay up; in three terminals, each after  eval \"$(cargo xtask env)\":",
    );
    for command in [
        "cargo run --example stub_model -- --port 8099",
        "OPENAI_BASE_URL=http://127.0.0.1:8099/v1 MCP_SERVER_PATH=$PWD/target/debug/examples/calc_server cargo run -- run",
        "cargo run -- enqueue --wait What is 20 plus 22?",
    ] {
        report::step("$", command);
    }
}

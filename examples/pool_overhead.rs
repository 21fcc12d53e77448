//! What the pool adds to a call, measured side by side: the same server, the same tool, once over the
//! protocol library alone and once through the toolbox; and two hundred calls of a second each on one
//! shared process.
//!
//! `cargo run --release --example pool_overhead`, after `cargo build --release --examples`.

#![expect(clippy::print_stdout, reason = "to print is what it is for")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chat_worker::clock::Deadline;
use chat_worker::config::{Isolation, ToolsConfig, ToolsSettings, environment};
use chat_worker::ids::{ConversationId, JobId, UserId};
use chat_worker::tools::{CallMeta, Invocation, Offer, Selection, Toolbox};
use clap::Parser as _;
use rmcp::ServiceExt as _;
use rmcp::model::CallToolRequestParams;
use tokio_util::task::TaskTracker;

const WARM_UP: usize = 2_000;
/// The two take turns, so that what else the machine does meets both.
const ROUNDS: usize = 20;
const CALLS: usize = 500;

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    tools: ToolsSettings,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let calc = std::env::current_exe()?.with_file_name("calc_server");
    let calc = calc.to_str().context("a path in UTF-8")?;
    let mut child = tokio::process::Command::new(calc)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("calc_server is not built")?;
    let pipes = child.stdout.take().zip(child.stdin.take());
    let bare = ().serve(pipes.context("no pipes")?).await?;

    let tasks = TaskTracker::new();
    let toolbox = Toolbox::start(&config(calc)?, &tasks);
    let offer = toolbox.offer(&Selection::default()).await?;

    let mut times = BTreeMap::from([("rmcp alone", Vec::new())]);
    let names = ["call", "shared", "user"];
    for round in 0..=ROUNDS {
        let calls = if round == 0 { WARM_UP } else { CALLS };
        let mut taken = Vec::new();
        for _ in 0..calls {
            let begun = Instant::now();
            let arguments = serde_json::from_str(r#"{"a": 20, "b": 22}"#)?;
            bare.call_tool(CallToolRequestParams::new("add").with_arguments(arguments))
                .await?;
            taken.push(begun.elapsed());
        }
        note(&mut times, "rmcp alone", round, taken);
        for name in names {
            let mut taken = Vec::new();
            for _ in 0..calls {
                let begun = Instant::now();
                call(
                    &toolbox,
                    &offer,
                    &format!("{name}__add"),
                    r#"{"a": 20, "b": 22}"#,
                )
                .await?;
                taken.push(begun.elapsed());
            }
            note(&mut times, name, round, taken);
        }
    }
    report(times);

    let begun = Instant::now();
    let sleeps = (0..200).map(|_| call(&toolbox, &offer, "shared__sleep", r#"{"ms": 1000}"#));
    futures_util::future::try_join_all(sleeps).await?;
    println!(
        "200 calls of a second each on one shared process: {:.3} s",
        begun.elapsed().as_secs_f64()
    );
    toolbox.shutdown().await;
    Ok(())
}

fn config(calc: &str) -> anyhow::Result<ToolsConfig> {
    let arguments = Arguments::parse_from(["pool_overhead", "--mcp-server-path", calc]);
    let mut problems = chat_worker::config::Problems::default();
    let mut config = arguments
        .tools
        .parse(&environment, &mut problems)
        .context(problems.to_string())?;
    let default = config.servers.pop().context("no server")?;
    let isolations = [
        ("call", Isolation::Call),
        ("shared", Isolation::Shared),
        ("user", Isolation::User),
    ];
    config.servers = isolations
        .map(|(name, isolation)| {
            let mut server = default.clone();
            name.clone_into(&mut server.name);
            server.prefixed = true;
            server.pool.isolation = isolation;
            server
        })
        .into();
    Ok(config)
}

async fn call(toolbox: &Toolbox, offer: &Offer, tool: &str, arguments: &str) -> anyhow::Result<()> {
    let user_id = UserId::new("user-42").context("a user id")?;
    let meta = CallMeta {
        job_id: JobId(uuid::Uuid::from_u128(1)),
        user_id: &user_id,
        conversation_id: ConversationId(uuid::Uuid::from_u128(2)),
        idempotency_key: "1/2/3",
    };
    let outcome = toolbox
        .call(
            offer,
            &Invocation {
                tool,
                arguments,
                meta,
                deadline: Deadline::after(Duration::from_mins(1)),
                listener: None,
            },
        )
        .await;
    anyhow::ensure!(
        outcome.status == chat_worker::chat::OutcomeStatus::Succeeded,
        "{outcome:?}"
    );
    Ok(())
}

fn note(
    times: &mut BTreeMap<&'static str, Vec<Duration>>,
    name: &'static str,
    round: usize,
    taken: Vec<Duration>,
) {
    if round > 0 {
        times.entry(name).or_default().extend(taken);
    }
}

fn report(times: BTreeMap<&'static str, Vec<Duration>>) {
    let mut bare = None;
    let mut sorted: Vec<_> = times.into_iter().collect();
    sorted.sort_by_key(|(name, _)| *name != "rmcp alone");
    for (name, mut taken) in sorted {
        taken.sort();
        let at = |share: usize| {
            taken
                .get(taken.len() * share / 100)
                .copied()
                .unwrap_or_default()
        };
        let (half, most) = (at(50), at(99));
        let more = half.saturating_sub(*bare.get_or_insert(half));
        println!(
            "{name:<12} p50 {:>6.1} us  p99 {:>7.1} us  more at p50 {:>5.1} us",
            half.as_secs_f64() * 1e6,
            most.as_secs_f64() * 1e6,
            more.as_secs_f64() * 1e6
        );
    }
}

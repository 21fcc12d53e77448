//! What the model client adds to a call, measured side by side: the same body to the same server, by the
//! HTTP library alone, which is given the bytes and reads the answer's and nothing of them; by the same, which
//! writes the body from a JSON value and reads one; and by the client.
//!
//! `cargo run --release --example model_overhead`, after `cargo build --release --examples`.

#![expect(clippy::print_stdout, reason = "to print is what it is for")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chat_worker::chat::{
    Content, Message, ModelOptions, Prompt, PromptMessage, Role, ToolChoice, ToolSpec,
};
use chat_worker::clock::Deadline;
use chat_worker::config::{ModelConfig, ModelProfile, ProviderConfig};
use chat_worker::model::Model;
use serde_json::value::RawValue;

#[expect(dead_code, reason = "the program uses the rest of it")]
#[path = "stub_model/server.rs"]
mod server;

use server::{Script, StubModel};

const WARM_UP: u32 = 1_000;
/// The two take turns, so that what else the machine does meets both.
const ROUNDS: usize = 20;
const CALLS: u32 = 200;

/// One thread, so that the time of this thread is all the time that a call takes.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut stub = start_stub()?;
    let base_url = address(&mut stub)?;
    for (name, turns) in [("a question", 1), ("20 turns", 20), ("100 turns", 100)] {
        compare(&base_url, name, &prompt(turns)?).await?;
    }
    // It ends when its standard input does.
    drop(stub.stdin.take());
    stub.wait()?;
    Ok(())
}

async fn compare(base_url: &str, name: &str, prompt: &Prompt) -> anyhow::Result<()> {
    let body = body_of(prompt).await?;
    let model = model(base_url)?;
    let http = reqwest::Client::builder().http1_only().build()?;
    let url = format!("{base_url}/chat/completions");
    let value: serde_json::Value = serde_json::from_str(&body)?;
    let (mut bare, mut plain, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let calls = if round == 0 { WARM_UP } else { CALLS };
        let begun = cpu()?;
        for _ in 0..calls {
            let request = http.post(&url).body(body.clone());
            let request = request.header("content-type", "application/json");
            request.send().await?.error_for_status()?.bytes().await?;
        }
        let between = cpu()?;
        for _ in 0..calls {
            let request = http.post(&url).body(serde_json::to_vec(&value)?);
            let request = request.header("content-type", "application/json");
            let answer = request.send().await?.error_for_status()?.bytes().await?;
            serde_json::from_slice::<serde_json::Value>(&answer)?;
        }
        let then = cpu()?;
        for _ in 0..calls {
            let deadline = Deadline::after(Duration::from_mins(1));
            model.complete(prompt, deadline).await?;
        }
        let ended = cpu()?;
        if round > 0 {
            let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(CALLS);
            bare.push(each(between.saturating_sub(begun)));
            plain.push(each(then.saturating_sub(between)));
            ours.push(each(ended.saturating_sub(then)));
        }
    }
    let (bare, plain, ours) = (median(bare), median(plain), median(ours));
    println!(
        "{name:<11} {:>6} bytes  CPU a call: bytes {bare:>6.1} us  values {plain:>6.1} us  client {ours:>6.1} us  ratios {:.2} {:.2}",
        body.len(),
        ours / bare,
        ours / plain
    );
    Ok(())
}

/// The body that the client makes of a prompt.
async fn body_of(prompt: &Prompt) -> anyhow::Result<String> {
    let stub = StubModel::start(Script::arithmetic());
    let deadline = Deadline::after(Duration::from_mins(1));
    model(&stub.base_url())?.complete(prompt, deadline).await?;
    let requests = stub.requests();
    Ok(requests.first().context("no request")?.body.to_string())
}

fn model(base_url: &str) -> anyhow::Result<Model> {
    let profile = ModelProfile::at(ProviderConfig::new(base_url.to_owned(), None));
    let config = ModelConfig::new("gpt-4o-mini", profile, Duration::from_mins(1));
    Ok(Model::connect(&config)?)
}

/// A conversation of so many turns, with ten tools on offer.
fn prompt(turns: usize) -> anyhow::Result<Prompt> {
    let say = |role, text: String| {
        let content = Content::Text(text);
        PromptMessage::Given(Arc::new(Message { role, content }))
    };
    let mut messages = vec![say(Role::System, "You are helping user-42.".to_owned())];
    for turn in 1..turns {
        let question = format!("Turn {turn}: {}", "what do you say to this? ".repeat(12));
        messages.push(say(Role::User, question));
        messages.push(say(
            Role::Assistant,
            "I would say that it depends. ".repeat(12),
        ));
    }
    messages.push(say(Role::User, "What is 20 plus 22?".to_owned()));
    let schema = r#"{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}}}"#;
    let schema: Arc<RawValue> = RawValue::from_string(schema.to_owned())?.into();
    let tool = |number: usize| ToolSpec {
        name: if number == 0 {
            "calc__add".to_owned()
        } else {
            format!("calc__operation_{number}")
        },
        description: "Does with two numbers what its name says.".to_owned(),
        schema: Arc::clone(&schema),
    };
    Ok(Prompt {
        model: "gpt-4o-mini".into(),
        messages,
        tools: (0..10).map(tool).collect(),
        tool_choice: ToolChoice::Auto,
        options: Arc::new(ModelOptions::default()),
    })
}

/// The scripted model as a process of its own, so that its work is not ours.
fn start_stub() -> anyhow::Result<Child> {
    Command::new(std::env::current_exe()?.with_file_name("stub_model"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("stub_model is not built")
}

fn address(stub: &mut Child) -> anyhow::Result<String> {
    let mut line = String::new();
    let stdout = stub.stdout.take().context("no output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    let url = line.trim().strip_prefix("listening on ");
    Ok(url.context("no address")?.to_owned())
}

/// What this thread has used: the first figure of `schedstat`, in nanoseconds.
fn cpu() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split(' ').next().context("no figure")?;
    Ok(Duration::from_nanos(first.parse()?))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

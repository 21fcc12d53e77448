//! Calls that say how far they are.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use chat_worker::chat::{OutcomeStatus, ToolOutcome};
use chat_worker::config::ServerConfig;
use chat_worker::tools::{Listener, ToolProgress};

use crate::harness::{Caller, Tools, calc, eventually, runs};
use crate::shell::shell as shell_of;

/// `calc` with these limits, in milliseconds.
fn patient(idle: u64, total: u64) -> ServerConfig {
    let mut server = calc();
    server.timeout = Duration::from_millis(idle);
    server.max_timeout = Duration::from_millis(total);
    server
}

/// Makes a call and keeps what is said of it.
async fn heard(tools: &Tools, tool: &str, arguments: &str) -> (ToolOutcome, Vec<ToolProgress>) {
    let said = Mutex::new(Vec::new());
    let listen = |progress| said.lock().expect("a lock").push(progress);
    let offer = tools.offer().await;
    let listener = Some(Listener(&listen));
    let within = Duration::from_mins(2);
    let by = Caller::default();
    let outcome = tools
        .call_heard(&by, &offer, (tool, arguments), within, listener)
        .await;
    (outcome, said.into_inner().expect("what was said"))
}

/// A server of one tool, `work`, that does `work`.
fn shell(work: &str) -> ServerConfig {
    shell_of(r#"say '{"tools":[{"name":"work"}]}'"#, work)
}

fn rises(said: &[ToolProgress]) -> bool {
    said.is_sorted_by(|one, other| one.progress <= other.progress)
}

#[tokio::test]
async fn progress_keeps_a_call_alive_beyond_its_timeout_and_is_passed_on_in_order() {
    let tools = Tools::start([patient(3000, 600_000)]);
    let (outcome, said) = heard(&tools, "calc__sleep", r#"{"ms": 4000, "steps": 10}"#).await;
    assert_eq!(outcome.text, "slept 4000 ms");
    assert!(rises(&said), "{said:?}");
    let last = said.last().expect("progress");
    // The last step and the answer may overtake each other.
    assert!(last.progress >= 8.0, "{last:?}");
    assert_eq!(last.total, Some(10.0));
    let step = format!("step {}", last.progress);
    assert_eq!(last.message, Some(step));
    tools.end().await;
}

#[tokio::test]
async fn progress_does_not_keep_a_call_alive_for_ever() {
    let tools = Tools::start([patient(5000, 6000)]);
    let pid = tools.pid().await;
    let endless = r#"{"ms": 36000000, "steps": 180000}"#;
    let (outcome, said) = heard(&tools, "calc__sleep", endless).await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(
        outcome.text.contains("within 6.0 s") && outcome.text.contains("unknown"),
        "{outcome:?}"
    );
    assert!(rises(&said) && said.len() >= 2, "{said:?}");
    eventually("the end of the process", async || {
        (!runs(pid)).then_some(())
    })
    .await;
    tools.end().await;
}

#[tokio::test]
async fn a_call_that_falls_silent_is_ended_for_that() {
    let mut server = shell("far 1");
    server.timeout = Duration::from_secs(1);
    let tools = Tools::start([server]);
    let (outcome, said) = heard(&tools, "shell__work", "").await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(
        outcome.text.contains("then nothing for 1.0 s"),
        "{outcome:?}"
    );
    assert_eq!(said.len(), 1);
    tools.end().await;
}

#[tokio::test]
async fn a_server_that_says_how_far_it_is_all_the_time_is_heard_now_and_then() {
    let flood = r#"awk -v t="$token" 'BEGIN { for (n = 0; n < 50000; n++) printf "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":%d,\"progress\":%d}}\n", t, n }'; say '{"content":[{"type":"text","text":"done"}]}'"#;
    let tools = Tools::start([shell(flood)]);
    let start = Instant::now();
    let (outcome, said) = heard(&tools, "shell__work", "").await;
    assert_eq!(outcome.text, "done", "{:?}", tools.health());
    let most = start.elapsed().as_millis() / 100 + 2;
    assert!(rises(&said) && !said.is_empty(), "{said:?}");
    assert!(
        said.len() as u128 <= most,
        "{} in {:?}",
        said.len(),
        start.elapsed()
    );
    tools.end().await;
}

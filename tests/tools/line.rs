use std::time::Duration;

use chat_worker::chat::OutcomeStatus;
use chat_worker::config::{Protocol, ServerConfig};

use crate::harness::{Tools, eventually, example, runs, server};

fn line() -> ServerConfig {
    let mut line = server("old", &example("line_server"), &[]);
    line.protocol = Protocol::Line;
    line
}

#[tokio::test]
async fn a_line_server_lists_its_tools_and_answers_in_lines() {
    let tools = Tools::start([line()]);
    let offer = tools.offer().await;
    assert_eq!(offer.specs().len(), 5);
    assert_eq!(
        offer.specs()[4].schema.get(),
        r#"{"properties":{},"type":"object"}"#
    );
    let outcome = tools
        .call("old__upper", r#"{"text": "grüße\nan alle"}"#)
        .await;
    assert_eq!(
        (outcome.status, outcome.text.as_str()),
        (OutcomeStatus::Succeeded, "GRÜSSE")
    );
    tools.end().await;
}

#[tokio::test]
async fn a_late_line_never_answers_the_next_call() {
    let mut server = line();
    server.timeout = Duration::from_millis(200);
    server.pool.size = 1;
    let tools = Tools::start([server]);
    let pid: i32 = tools.call("old__pid", "").await.text.parse().unwrap();
    let outcome = tools.call("old__late", r#"{"ms": 600000}"#).await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    let next: i32 = tools.call("old__pid", "").await.text.parse().unwrap();
    assert_ne!(next, pid);
    eventually("the end of the late process", async || {
        (!runs(pid)).then_some(())
    })
    .await;
    tools.end().await;
}

#[tokio::test]
async fn a_line_server_that_dies_or_says_too_much_costs_only_its_call() {
    let mut server = line();
    server.max_result_bytes = 500;
    let tools = Tools::start([server]);
    let outcome = tools.call("old__die", "").await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    let outcome = tools.call("old__big", r#"{"bytes": 6000000}"#).await;
    assert_eq!(
        (outcome.status, outcome.bytes),
        (OutcomeStatus::Succeeded, 6_000_000)
    );
    assert!(outcome.text.len() <= 500 && outcome.text.contains(" of 6000000 bytes]\n"));
    assert_eq!(tools.call("old__upper", r#"{"text": "a"}"#).await.text, "A");
    tools.end().await;
}

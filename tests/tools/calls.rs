use std::time::{Duration, Instant};

use chat_worker::chat::OutcomeStatus;
use serde_json::{Value, json};

use crate::harness::{Tools, calc, with_env};

#[tokio::test]
async fn a_tool_answers_and_its_answer_is_told_as_text() {
    let tools = Tools::start([calc()]);
    let outcome = tools.call("calc__add", r#"{"a": 20, "b": 22}"#).await;
    assert_eq!(
        (outcome.status, outcome.text.as_str()),
        (OutcomeStatus::Succeeded, "42")
    );
    assert_eq!(outcome.bytes, 2);
    tools.end().await;
}

#[tokio::test]
async fn every_call_carries_on_whose_behalf_it_is_made() {
    let tools = Tools::start([calc()]);
    let outcome = tools.call("calc__echo_meta", "").await;
    let mut meta: Value = serde_json::from_str(&outcome.text).unwrap();
    meta.as_object_mut().unwrap().remove("progressToken");
    assert_eq!(
        meta,
        json!({
            "chat-worker/jobId": "00000000-0000-0000-0000-000000000001",
            "chat-worker/userId": "user-42",
            "chat-worker/conversationId": "00000000-0000-0000-0000-000000000002",
            "chat-worker/idempotencyKey": "1/2/3",
        })
    );
    tools.end().await;
}

#[tokio::test]
async fn an_unknown_tool_is_refused_with_the_names_that_there_are() {
    let tools = Tools::start([calc()]);
    let outcome = tools.call("calc__subtract", "{}").await;
    assert_eq!(outcome.status, OutcomeStatus::Refused);
    assert!(
        outcome.text.contains("calc__subtract") && outcome.text.contains("calc__add"),
        "{outcome:?}"
    );
    tools.end().await;
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_refused_before_any_process_sees_them() {
    let tools = Tools::start([calc()]);
    let offer = tools.offer().await;
    for bad in [
        r#"{"a": 1}"#,
        r#"{"a": 1, "b": "two"}"#,
        "[1, 2]",
        "{\"a\": 1",
        "null",
        "",
    ] {
        let outcome = tools.call_of(&offer, "calc__add", bad).await;
        assert_eq!(outcome.status, OutcomeStatus::Refused, "{bad}: {outcome:?}");
    }
    tools.end().await;
}

#[tokio::test]
async fn a_tool_that_says_it_failed_has_failed_and_is_called_again_on_the_same_process() {
    let tools = Tools::start([calc()]);
    let pid = tools.pid().await;
    let outcome = tools.call("calc__fail", "null").await;
    assert_eq!(
        (outcome.status, outcome.text.as_str()),
        (OutcomeStatus::Failed, "Error: it failed, as it should")
    );
    assert_eq!(tools.pid().await, pid);
    tools.end().await;
}

#[tokio::test]
async fn a_large_answer_is_cut_and_keeps_its_true_size() {
    let mut server = calc();
    server.max_result_bytes = 1000;
    let tools = Tools::start([server]);
    let outcome = tools.call("calc__big", r#"{"bytes": 2000000}"#).await;
    assert_eq!(
        (outcome.status, outcome.bytes),
        (OutcomeStatus::Succeeded, 2_000_000)
    );
    assert!(outcome.text.len() <= 1000, "{}", outcome.text.len());
    assert!(
        outcome.text.contains(" of 2000000 bytes]\nxxx"),
        "{}",
        outcome.text
    );
    tools.end().await;
}

#[tokio::test]
async fn an_answer_too_long_to_be_read_fails_at_once_and_not_at_its_timeout() {
    let tools = Tools::start([calc()]);
    let offer = tools.offer().await;
    let start = Instant::now();
    let outcome = tools
        .call_of(&offer, "calc__big", r#"{"bytes": 20000000}"#)
        .await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(
        outcome.text.contains("more than 18175320 bytes"),
        "{outcome:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        tools.call("calc__add", r#"{"a": 1, "b": 1}"#).await.text,
        "2"
    );
    tools.end().await;
}

#[tokio::test]
async fn a_child_sees_nothing_of_our_environment_but_what_it_is_given() {
    let tools = Tools::start([with_env(calc(), "CALC_EXTRA", "1")]);
    let outcome = tools.call("calc__env", "{}").await;
    assert_eq!(outcome.text, "CALC_EXTRA PATH TMPDIR");
    tools.end().await;
}

#[tokio::test]
async fn a_server_that_only_knows_the_newest_handshake_is_met_with_it() {
    let tools = Tools::start([with_env(calc(), "CALC_ERA", "modern")]);
    let outcome = tools.call("calc__add", r#"{"a": 1, "b": 2}"#).await;
    assert_eq!(outcome.text, "3", "{:?}", tools.health());
    assert_eq!(
        tools.health().starts,
        2,
        "the first handshake was not refused"
    );
    tools.end().await;
}

use std::sync::Arc;
use std::time::Duration;

use chat_worker::chat::OutcomeStatus;
use chat_worker::config::Isolation;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use crate::harness::{Lines, Tools, calc, eventually, runs, with_env};

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_jobs_share_no_more_processes_than_the_pool_is_large() {
    let starts = Lines::new();
    let tools = Arc::new(Tools::start([with_env(
        calc(),
        "CALC_START_LOG",
        starts.path(),
    )]));
    let mut jobs = JoinSet::new();
    for n in 0..500 {
        let tools = Arc::clone(&tools);
        jobs.spawn(async move {
            let outcome = tools
                .call("calc__add", &format!(r#"{{"a": {n}, "b": 1}}"#))
                .await;
            assert_eq!(outcome.text, (n + 1).to_string());
        });
    }
    jobs.join_all().await;
    let started = starts.read().len();
    assert!((1..=4).contains(&started), "{started} processes");
    Arc::into_inner(tools).unwrap().end().await;
}

#[tokio::test]
async fn one_process_serves_one_call_at_a_time_and_waiting_counts_against_the_deadline() {
    let log = Lines::new();
    let mut server = with_env(calc(), "CALC_LOG", log.path());
    server.pool.size = 1;
    let tools = Tools::start([server]);
    let offer = tools.offer().await;
    let first = tools.call_of(&offer, "calc__sleep", r#"{"ms": 600000}"#);
    let second = async {
        log.wait_for("sleeping").await;
        tools
            .call_within(&offer, "calc__pid", "", Duration::from_millis(100))
            .await
    };
    let outcome = tokio::select! {
        outcome = first => panic!("it ended by itself: {outcome:?}"),
        outcome = second => outcome,
    };
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.text.contains("no process"), "{outcome:?}");
    tools.end().await;
}

#[tokio::test]
async fn a_shared_process_serves_many_calls_at_once_and_outlives_one_that_hangs() {
    let log = Lines::new();
    let mut server = with_env(calc(), "CALC_LOG", log.path());
    server.pool.isolation = Isolation::Shared;
    server.timeout = Duration::from_secs(2);
    let tools = Tools::start([server]);
    let offer = tools.offer().await;
    let pid = tools.pid().await;
    let hangs = tools.call_of(&offer, "calc__sleep", r#"{"ms": 600000}"#);
    let others = async {
        log.wait_for("sleeping").await;
        let same = tools.pid().await;
        assert_eq!(same, pid, "the second call did not share the process");
    };
    let (hung, ()) = tokio::join!(hangs, others);
    assert_eq!(hung.status, OutcomeStatus::Failed);
    eventually("the end of the hung process", async || {
        (!runs(pid)).then_some(())
    })
    .await;
    assert_ne!(tools.pid().await, pid);
    assert_eq!(tools.health().starts, 2);
    tools.end().await;
}

#[tokio::test]
async fn a_toolbox_that_is_dropped_takes_its_processes_along() {
    let tools = Tools::start([calc()]);
    let pid = tools.pid().await;
    drop(tools);
    eventually("the end of the process", async || {
        (!runs(pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_process_is_replaced_after_its_calls() {
    let mut server = calc();
    server.pool.size = 1;
    server.pool.max_calls = Some(2);
    let tools = Tools::start([server]);
    let pids = [tools.pid().await, tools.pid().await, tools.pid().await];
    assert_eq!(pids[0], pids[1]);
    assert_ne!(pids[1], pids[2]);
    tools.end().await;
}

#[tokio::test]
async fn a_process_that_dies_while_idle_is_replaced_before_anybody_asks() {
    let mut server = calc();
    server.pool.size = 1;
    let tools = Tools::start([server]);
    let pid = tools.pid().await;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("a second process", async || {
        let health = tools.health();
        (health.starts == 2 && health.processes == 1).then_some(())
    })
    .await;
    assert_ne!(tools.pid().await, pid);
    assert_eq!(tools.health().starts, 2);
    tools.end().await;
}

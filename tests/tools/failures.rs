use std::time::{Duration, Instant};

use chat_worker::chat::OutcomeStatus;
use chat_worker::config::{Isolation, OnInterrupt, ServerConfig};
use chat_worker::tools::ServerState;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Caller, Lines, Tools, calc, eventually, runs, server, with_env};

#[tokio::test]
async fn a_call_that_takes_too_long_fails_and_its_process_is_ended() {
    let mut server = calc();
    server.timeout = Duration::from_millis(200);
    let tools = Tools::start([server]);
    let pid = tools.pid().await;
    let outcome = tools.call("calc__sleep", r#"{"ms": 600000}"#).await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(
        outcome.text.contains("did not answer") && outcome.text.contains("unknown"),
        "{outcome:?}"
    );
    eventually("the end of the process", async || {
        (!runs(pid)).then_some(())
    })
    .await;
    assert_ne!(tools.pid().await, pid);
    tools.end().await;
}

#[tokio::test]
async fn the_deadline_of_a_call_ends_it_before_its_timeout() {
    let tools = Tools::start([calc()]);
    let offer = tools.offer().await;
    let start = Instant::now();
    let arguments = r#"{"ms": 600000}"#;
    let outcome = tools
        .call_within(&offer, "calc__sleep", arguments, Duration::from_millis(200))
        .await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    tools.end().await;
}

#[tokio::test]
async fn a_process_that_reads_nothing_cannot_hold_a_call() {
    let mut server = calc();
    server.timeout = Duration::from_millis(200);
    let tools = Tools::start([server]);
    let pid = tools.pid().await;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    // More than a pipe holds, so that the write itself hangs.
    let arguments = format!(r#"{{"line": "{}"}}"#, "x".repeat(300_000));
    let outcome = tools.call("calc__append", &arguments).await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.text.contains("did not answer"), "{outcome:?}");
    eventually("the end of the stopped process", async || {
        (!runs(pid)).then_some(())
    })
    .await;
    tools.end().await;
}

#[tokio::test]
async fn a_server_that_dies_during_a_call_fails_the_call_and_serves_the_next() {
    let log = Lines::new();
    let tools = Tools::start([with_env(calc(), "CALC_LOG", log.path())]);
    let outcome = tools.call("calc__die", "").await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(
        outcome.text.contains("stopped during the call") && outcome.text.contains("unknown"),
        "{outcome:?}"
    );
    assert_eq!(
        log.read(),
        ["died"],
        "a call that is not safe to repeat was repeated"
    );
    assert_eq!(
        tools.call("calc__add", r#"{"a": 1, "b": 1}"#).await.text,
        "2"
    );
    tools.end().await;
}

#[tokio::test]
async fn a_call_that_is_safe_to_repeat_is_repeated_once_when_its_process_dies() {
    let log = Lines::new();
    let mut server = with_env(calc(), "CALC_LOG", log.path());
    server.on_interrupt = OnInterrupt::Retry;
    let tools = Tools::start([server]);
    let outcome = tools.call("calc__die", "").await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert_eq!(log.read(), ["died", "died"]);
    tools.end().await;
}

#[tokio::test]
async fn the_end_of_a_process_is_noticed_though_what_it_started_holds_its_pipes() {
    let log = Lines::new();
    let tools = Tools::start([with_env(calc(), "CALC_LOG", log.path())]);
    let start = Instant::now();
    let outcome = tools.call("calc__orphan", "").await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    let orphan: i32 = log.read()[0].parse().unwrap();
    eventually("the end of the orphan", async || {
        (!runs(orphan)).then_some(())
    })
    .await;
    tools.end().await;
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled_at_the_server() {
    let log = Lines::new();
    let tools = Tools::start([with_env(calc(), "CALC_LOG", log.path())]);
    let offer = tools.offer().await;
    {
        let call = tools.call_of(&offer, "calc__sleep", r#"{"ms": 600000}"#);
        tokio::select! {
            outcome = call => panic!("it ended by itself: {outcome:?}"),
            () = log.wait_for("sleeping") => {}
        }
    }
    log.wait_for("cancelled").await;
    assert_eq!(
        tools.call("calc__add", r#"{"a": 1, "b": 1}"#).await.text,
        "2"
    );
    tools.end().await;
}

#[tokio::test]
async fn a_server_that_refuses_to_start_says_why_and_comes_back_by_itself() {
    let refuse = Lines::new();
    let tools = Tools::start([with_env(calc(), "CALC_REFUSE", refuse.path())]);
    assert_eq!(tools.offer().await.missing(), ["calc"]);
    let ServerState::Down { last_words, .. } = tools.health().state else {
        panic!("it is not down: {:?}", tools.health());
    };
    assert!(
        last_words.contains("calc is told to refuse to start"),
        "{last_words}"
    );
    drop(refuse);
    eventually("the server", async || {
        tools.offer().await.missing().is_empty().then_some(())
    })
    .await;
    assert_eq!(
        tools.call("calc__add", r#"{"a": 1, "b": 1}"#).await.text,
        "2"
    );
    tools.end().await;
}

#[tokio::test]
async fn after_repeated_failures_calls_are_answered_at_once() {
    let refuse = tempfile::tempdir().unwrap();
    let flag = refuse.path().join("refuse");
    let tools = Tools::start([with_env(calc(), "CALC_REFUSE", flag.to_str().unwrap())]);
    let offer = tools.offer().await;
    let pid = tools.pid().await;
    std::fs::write(&flag, "").unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let told = eventually("an open breaker", async || {
        let outcome = tools
            .call_of(&offer, "calc__add", r#"{"a": 1, "b": 1}"#)
            .await;
        outcome
            .text
            .contains("the next try is in")
            .then_some(outcome)
    });
    let outcome = told.await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(
        outcome.text.contains("failed to start 3 times"),
        "{outcome:?}"
    );
    assert!(
        !outcome.text.contains("calc is told to refuse to start"),
        "a model is shown what is meant for operators: {outcome:?}"
    );
    tools.end().await;
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_is_given_up_and_quoted() {
    let mut mute = server(
        "mute",
        "sh",
        &[
            "-c",
            "echo this is no MCP; echo cannot find my key >&2; cat >/dev/null",
        ],
    );
    mute.start_timeout = Duration::from_secs(1);
    let tools = Tools::start([mute]);
    assert_eq!(tools.offer().await.missing(), ["mute"]);
    let down = eventually("the reason", async || {
        if let ServerState::Down { reason, last_words } = tools.health().state {
            Some((reason, last_words))
        } else {
            None
        }
    });
    let (reason, last_words) = down.await;
    assert_eq!(reason, "it was not ready within 1 s");
    assert_eq!(last_words, "cannot find my key");
    tools.end().await;
}

#[tokio::test]
async fn shutdown_ends_even_a_group_that_ignores_the_signal() {
    let script = format!(
        "trap '' TERM; {}; sleep 600",
        crate::harness::example("calc_server")
    );
    let tools = Tools::start([server("calc", "sh", &["-c", &script])]);
    let pid = tools.pid().await;
    let start = Instant::now();
    tools.end().await;
    assert!(!runs(pid));
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
}

/// A server that hangs at its start as long as a file exists, in a pool of one.
fn hangs_while_there_is(flag: &std::path::Path, isolation: Isolation) -> ServerConfig {
    let script = format!(
        "[ -e {} ] && exec sleep 600; exec {}",
        flag.display(),
        crate::harness::example("calc_server")
    );
    let mut server = server("calc", "sh", &["-c", &script]);
    server.pool.isolation = isolation;
    server.pool.size = 1;
    server.start_timeout = Duration::from_secs(1);
    server
}

/// While the keeper tries again, which takes as long as a start may, calls are answered at once all
/// the same; other servers are as fast as ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_told_at_once_whatever_its_pool_and_found_again_by_itself() {
    let isolations = [
        Isolation::Call,
        Isolation::Shared,
        Isolation::Job,
        Isolation::User,
    ];
    futures_util::future::join_all(isolations.map(goes_down_and_comes_back)).await;
}

async fn goes_down_and_comes_back(isolation: Isolation) {
    let directory = tempfile::tempdir().expect("a directory");
    let flag = directory.path().join("hang");
    let mut other = calc();
    "other".clone_into(&mut other.name);
    let tools = Tools::start([hangs_while_there_is(&flag, isolation), other]);
    let offer = tools.offer().await;
    let sum = r#"{"a": 1, "b": 1}"#;
    let session = tools.toolbox.begin(Caller::default().job);
    let pid = tools.pid().await;
    std::fs::write(&flag, "").expect("the flag");
    let pid = Pid::from_raw(pid).expect("a process id");
    kill_process(pid, Signal::KILL).expect("its end");
    eventually("an open breaker", async || {
        let outcome = tools.call_of(&offer, "calc__add", sum).await;
        outcome.text.contains("the next try is in").then_some(())
    })
    .await;
    let begun = Instant::now();
    let mut times = Vec::new();
    // Longer than a try of the keeper.
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        let outcome = tools.call_of(&offer, "calc__add", sum).await;
        times.push(asked.elapsed());
        assert_eq!(outcome.status, OutcomeStatus::Failed, "{outcome:?}");
        assert_eq!(tools.call_of(&offer, "other__add", sum).await.text, "2");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times.sort();
    // The machine may be busy for a moment; a call that waits for a try takes a second.
    let at = |position: usize| times.get(position).copied().expect("a call");
    let (most, slowest) = (at(times.len() * 9 / 10), at(times.len() - 1));
    assert!(most < Duration::from_millis(50), "{isolation:?}: {most:?}");
    assert!(
        slowest < Duration::from_millis(700),
        "{isolation:?}: {slowest:?}"
    );
    std::fs::remove_file(&flag).expect("the flag");
    eventually("the server", async || {
        let outcome = tools.call_of(&offer, "calc__add", sum).await;
        (outcome.text == "2").then_some(())
    })
    .await;
    drop(session);
    tools.end().await;
}

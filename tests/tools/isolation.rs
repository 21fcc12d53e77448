//! What a server remembers of one job or user is never seen by another.

use std::sync::Arc;
use std::time::Duration;

use chat_worker::chat::OutcomeStatus;
use chat_worker::config::{Isolation, Protocol, ServerConfig};
use chat_worker::tools::Offer;

use crate::harness::{Caller, Lines, Tools, calc, eventually, example, runs, server, with_env};

fn isolated(isolation: Isolation, size: usize) -> ServerConfig {
    let mut server = calc();
    server.pool.isolation = isolation;
    server.pool.size = size;
    server
}

/// A toolbox with one server, and its offer.
struct Stage {
    tools: Tools,
    offer: Arc<Offer>,
}

impl Stage {
    async fn new(server: ServerConfig) -> Self {
        let tools = Tools::start([server]);
        let offer = tools.offer().await;
        Self { tools, offer }
    }

    async fn call(&self, by: &Caller, tool: &str, arguments: &str) -> String {
        let call = (tool, arguments);
        let within = Duration::from_mins(1);
        let outcome = self.tools.call_by(by, &self.offer, call, within).await;
        assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{outcome:?}");
        outcome.text
    }

    async fn remember(&self, by: &Caller, text: &str) -> String {
        let arguments = format!(r#"{{"text": "{text}"}}"#);
        self.call(by, "calc__remember", &arguments).await
    }

    async fn pid(&self, by: &Caller) -> i32 {
        let pid = self.call(by, "calc__pid", "").await;
        pid.parse().expect("a process id")
    }
}

async fn gone(pid: i32) {
    eventually("the end of the process", async || {
        (!runs(pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_jobs_at_once_never_see_what_the_other_said_and_each_sees_all_of_its_own() {
    let stage = Stage::new(isolated(Isolation::Job, 2)).await;
    let job = async |number: u128, user: &str| {
        let by = Caller::new(number, user);
        let _session = stage.tools.toolbox.begin(by.job);
        let mut all = Vec::new();
        for n in 0..50 {
            all.push(format!("{number}-{n}"));
            let said = stage.remember(&by, &all[n]).await;
            assert_eq!(said, all.join(" "));
        }
        stage.pid(&by).await
    };
    // The same user, too: it is the job that counts.
    let (one, other) = tokio::join!(job(1, "ann"), job(2, "ann"));
    assert_ne!(one, other);
    gone(one).await;
    gone(other).await;
    stage.tools.end().await;
}

#[tokio::test]
async fn calls_of_one_job_run_together_on_its_one_process() {
    let log = Lines::new();
    let stage = Stage::new(with_env(
        isolated(Isolation::Job, 3),
        "CALC_LOG",
        log.path(),
    ))
    .await;
    let by = Caller::default();
    let _session = stage.tools.toolbox.begin(by.job);
    let pid = stage.pid(&by).await;
    let sleeps = stage.call(&by, "calc__sleep", r#"{"ms": 600000}"#);
    let meanwhile = async {
        log.wait_for("sleeping").await;
        stage.pid(&by).await
    };
    tokio::select! {
        slept = sleeps => panic!("it ended by itself: {slept}"),
        same = meanwhile => assert_eq!(same, pid),
    }
    stage.tools.end().await;
}

#[tokio::test]
async fn a_job_waits_for_the_process_of_another_and_waiting_counts() {
    let mut server = isolated(Isolation::Job, 1);
    server.timeout = Duration::from_millis(300);
    let stage = Stage::new(server).await;
    let (first, second) = (Caller::new(1, "ann"), Caller::new(2, "bob"));
    let session = stage.tools.toolbox.begin(first.job);
    let _session = stage.tools.toolbox.begin(second.job);
    let pid = stage.pid(&first).await;
    let call = ("calc__pid", "");
    let within = Duration::from_mins(1);
    let outcome = stage
        .tools
        .call_by(&second, &stage.offer, call, within)
        .await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.text.contains("no process"), "{outcome:?}");
    drop(session);
    let next = eventually("a process", async || {
        let outcome = stage
            .tools
            .call_by(&second, &stage.offer, call, within)
            .await;
        outcome.text.parse::<i32>().ok()
    });
    assert_ne!(next.await, pid);
    gone(pid).await;
    stage.tools.end().await;
}

#[tokio::test]
async fn a_call_that_outlives_its_job_leaves_no_process_behind() {
    let log = Lines::new();
    let stage = Stage::new(with_env(
        isolated(Isolation::Job, 2),
        "CALC_LOG",
        log.path(),
    ))
    .await;
    let by = Caller::default();
    let pid = {
        let _session = stage.tools.toolbox.begin(by.job);
        let pid = stage.pid(&by).await;
        let call = stage.call(&by, "calc__sleep", r#"{"ms": 600000}"#);
        tokio::select! {
            slept = call => panic!("it ended by itself: {slept}"),
            () = log.wait_for("sleeping") => {}
        }
        pid
    };
    log.wait_for("cancelled").await;
    gone(pid).await;
    // A call of a job that never began, or has ended, has a process for itself.
    let alone = stage.pid(&by).await;
    gone(alone).await;
    stage.tools.end().await;
}

#[tokio::test]
async fn a_user_finds_what_an_earlier_job_said_and_nobody_else_does() {
    let stage = Stage::new(isolated(Isolation::User, 4)).await;
    let say = async |job: u128, user: &str, text: &str| {
        let by = Caller::new(job, user);
        let _session = stage.tools.toolbox.begin(by.job);
        stage.remember(&by, text).await
    };
    assert_eq!(say(1, "ann", "a").await, "a");
    assert_eq!(say(2, "bob", "b").await, "b");
    assert_eq!(say(3, "ann", "c").await, "a c");
    assert_eq!(say(4, "bob", "d").await, "b d");
    stage.tools.end().await;
}

#[tokio::test]
async fn a_new_user_takes_the_place_of_the_one_who_has_not_called_for_longest() {
    let stage = Stage::new(isolated(Isolation::User, 2)).await;
    let user = |name: &str| Caller::new(1, name);
    let (ann, bob) = (stage.pid(&user("ann")).await, stage.pid(&user("bob")).await);
    assert_eq!(stage.pid(&user("ann")).await, ann);
    let cec = stage.pid(&user("cec")).await;
    gone(bob).await;
    assert!(runs(ann) && runs(cec));
    assert_eq!(stage.pid(&user("ann")).await, ann);
    assert!(stage.tools.health().processes <= 2);
    stage.tools.end().await;
}

#[tokio::test]
async fn a_user_who_waits_gets_the_first_process_that_is_done() {
    let log = Lines::new();
    let stage = Stage::new(with_env(
        isolated(Isolation::User, 1),
        "CALC_LOG",
        log.path(),
    ))
    .await;
    let (ann, bob) = (Caller::new(1, "ann"), Caller::new(2, "bob"));
    let sleeps = stage.call(&ann, "calc__sleep", r#"{"ms": 300}"#);
    let waits = async {
        log.wait_for("sleeping").await;
        stage.remember(&bob, "b").await
    };
    let (slept, said) = tokio::join!(sleeps, waits);
    assert_eq!((slept.as_str(), said.as_str()), ("slept 300 ms", "b"));
    stage.tools.end().await;
}

#[tokio::test]
async fn a_process_of_a_user_that_ends_is_replaced_for_that_user() {
    let stage = Stage::new(isolated(Isolation::User, 2)).await;
    let (ann, bob) = (Caller::new(1, "ann"), Caller::new(2, "bob"));
    assert_eq!(stage.remember(&ann, "a").await, "a");
    assert_eq!(stage.remember(&bob, "b").await, "b");
    let call = ("calc__die", "");
    let within = Duration::from_mins(1);
    let died = stage.tools.call_by(&ann, &stage.offer, call, within).await;
    assert_eq!(died.status, OutcomeStatus::Failed);
    assert_eq!(stage.remember(&ann, "new").await, "new");
    assert_eq!(stage.remember(&bob, "c").await, "b c");
    stage.tools.end().await;
}

#[tokio::test]
async fn lines_of_one_job_are_answered_one_after_the_other_by_its_one_process() {
    let mut old = server("old", &example("line_server"), &[]);
    old.protocol = Protocol::Line;
    old.pool.isolation = Isolation::Job;
    let stage = Stage::new(old).await;
    let by = Caller::default();
    let _session = stage.tools.toolbox.begin(by.job);
    let calls = (0..20).map(|_| stage.call(&by, "old__pid", ""));
    let pids = futures_util::future::join_all(calls).await;
    assert!(pids.iter().all(|pid| pid == &pids[0]), "{pids:?}");
    stage.tools.end().await;
}

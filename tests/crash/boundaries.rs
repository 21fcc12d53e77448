//! A worker dies at each boundary in turn, and another goes on.

use std::os::unix::process::ExitStatusExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chat_worker::clock::{Clock as _, SystemClock};
use chat_worker::crash::{Act, Side};
use chrono::TimeDelta;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cases::{self, Case, Situation};
use crate::laws;
use crate::scenario::{Program, Properties, Scenario, Setup, call, puppet, with};
use crate::stub_model::Reply;
use crate::watch::{calls_made, with_calc};

/// Scenarios that are under way together. They wait most of the time.
const AT_ONCE: usize = 6;
/// What the model tries before its caller gives up.
const TRIES: usize = 3;

/// With `CRASH_CASES=append` only the cases whose names say so.
#[tokio::test]
async fn a_worker_may_die_before_and_after_everything_that_it_does() {
    let only = chat_worker::config::environment("CRASH_CASES").unwrap_or_default();
    let cases = cases::all().into_iter();
    let cases = cases.filter(|case| case.to_string().contains(&only));
    let results = stream::iter(cases.map(ends_well)).buffer_unordered(AT_ONCE);
    let results: Vec<_> = results.collect().await;
    assert!(!results.is_empty());
    let failed: Vec<_> = results.iter().filter(|(_, held)| !held).collect();
    let failed: Vec<_> = failed.iter().map(|(case, _)| case.to_string()).collect();
    assert!(failed.is_empty(), "of {}: {failed:#?}", results.len());
}

/// A failed case leaves the others alone.
async fn ends_well(case: Case) -> (Case, bool) {
    let ended = AssertUnwindSafe(walk(case)).catch_unwind().await;
    (case, ended.is_ok())
}

/// One case.
async fn walk(case: Case) {
    let answers = Arc::new(AtomicUsize::new(0));
    setup(case.situation, &answers)
        .run(async |s| {
            let job = prepare(s, case.situation).await;
            let trap = format!("{}=kill@{}", case.act.boundary(case.side), case.visit);
            let doomed = s.launch(&[("CHAT_FAILPOINT", &trap), ("CHAT_DRAIN_SECS", "1")]);
            let job = match job {
                Some(job) => job,
                None => provoke(s, case.situation, &doomed).await,
            };
            let status = doomed.ended().await;
            assert_eq!(status.signal(), Some(9), "{case}: it did not die there");
            if (case.act, case.side) != (Act::Finish, Side::After) {
                hurry(s).await;
            }
            s.start_worker().await;
            if matches!(case.situation, Situation::Held | Situation::HeldLong) {
                approve_what_waits(s, &job).await;
            }
            if case.situation == Situation::Refused {
                check_refusal(s).await;
            } else {
                check(s, case, &job, &answers).await;
            }
            laws::check_rest(s).await;
        })
        .await;
}

fn setup(situation: Situation, answers: &Arc<AtomicUsize>) -> Setup {
    let asked = AtomicUsize::new(0);
    let answers = Arc::clone(answers);
    let model = move |request: &Value| {
        let asked = asked.fetch_add(1, Ordering::Relaxed);
        if situation == Situation::Failing && asked < TRIES {
            return Reply::error(500, "server_error", "down", "The server is down");
        }
        let hangs = matches!(situation, Situation::Draining | Situation::Orphaned);
        if hangs && asked == 0 {
            return Reply::never();
        }
        answers.fetch_add(1, Ordering::Relaxed);
        puppet(request)
    };
    let more = if matches!(situation, Situation::Held | Situation::HeldLong) {
        json!({"approval": ["append"]})
    } else {
        json!({})
    };
    with_calc(Setup::new().replicas(0).model(model), &more)
}

/// The job, published if it has to be before the doomed worker starts.
async fn prepare(s: &Scenario, situation: Situation) -> Option<String> {
    match situation {
        Situation::Scheduled => {
            let first = s.start_worker().await;
            let at = SystemClock.now() + TimeDelta::seconds(2);
            let id = s.send(&with(job(), "not_before", at.to_rfc3339())).await;
            let query = format!("SELECT * FROM chat.jobs WHERE id = '{id}'");
            s.row_where(query, |row| row["status"] == "waiting").await;
            first.stop().await;
            Some(id)
        }
        Situation::Orphaned => {
            let first = s.start_worker().await;
            let id = s.send(&job()).await;
            s.model.arrived(1).await;
            first.signal(Signal::KILL);
            first.ended().await;
            Some(id)
        }
        Situation::Retaken => Some(dies_first(s, "append.before=kill").await),
        Situation::Unpublished => {
            let id = dies_first(s, "publish.result.before=kill").await;
            hurry(s).await;
            Some(id)
        }
        Situation::Plain
        | Situation::Failing
        | Situation::Draining
        | Situation::CalledOff
        | Situation::Overdue
        | Situation::Held
        | Situation::HeldLong
        | Situation::Refused => None,
    }
}

async fn dies_first(s: &Scenario, trap: &str) -> String {
    let first = s.start_worker_with(&[("CHAT_FAILPOINT", trap)]).await;
    let id = s.send(&job()).await;
    first.ended().await;
    id
}

/// Has the worker do what it will die of; the job's id.
async fn provoke(s: &Scenario, situation: Situation, doomed: &Program) -> String {
    doomed.log_says("the worker takes jobs").await;
    doomed.ready().await;
    match situation {
        Situation::Draining => {
            let id = s.send(&job()).await;
            s.model.arrived(1).await;
            doomed.signal(Signal::TERM);
            id
        }
        Situation::CalledOff => {
            let calls = [("calc__sleep", json!({"ms": 60_000}))];
            let id = s.send(&call(&calls)).await;
            calls_made(s, 1).await;
            let cancel = json!({"version": 1, "type": "cancel", "job_id": id, "reason": "enough"});
            let body = cancel.to_string();
            let control = s.name("control");
            s.broker
                .publish(&control, body.as_bytes(), Properties::default())
                .await;
            id
        }
        Situation::Held => {
            let id = s.send(&job()).await;
            approve_by_message(s, &id).await;
            id
        }
        Situation::HeldLong => {
            let id = s
                .send(&call(&[("calc__append", json!({"line": "x"}))]))
                .await;
            tokio::select! {
                _ = s.waits(&id, "approval") => {}
                _ = doomed.ended() => {}
            }
            approve_by_message(s, &id).await;
            id
        }
        Situation::Overdue => {
            let now = SystemClock.now();
            let at = |seconds| (now + TimeDelta::seconds(seconds)).to_rfc3339();
            let late = with(job(), "not_before", at(3600));
            s.send(&with(late, "deadline", at(1))).await
        }
        Situation::Refused => {
            let properties = Properties::default().with_correlation_id("somebody waits".into());
            s.send_bytes(b"{", properties).await;
            String::new()
        }
        Situation::Plain
        | Situation::Retaken
        | Situation::Failing
        | Situation::Scheduled
        | Situation::Orphaned
        | Situation::Unpublished => s.send(&job()).await,
    }
}

/// Approves the call of a job that waits, whoever is there to hear it.
async fn approve_by_message(s: &Scenario, job: &str) {
    let held = format!("SELECT call_id FROM chat.pending_approvals WHERE job_id = '{job}'");
    let call = s.row_where(held, |_| true).await["call_id"].clone();
    let approve = json!({"type": "approve", "job_id": job, "call_id": call, "by": "ann"});
    s.control(approve.to_string()).await;
}

/// Approves the call that waits, unless the message did.
async fn approve_what_waits(s: &Scenario, job: &str) {
    let decided = format!(
        "SELECT chat.approve(job_id, call_id, 'ann') FROM chat.tool_calls WHERE job_id = '{job}' AND approval_expires_at IS NOT NULL"
    );
    s.row_where(decided, |_| true).await;
}

/// One call that must not be made twice, and one that may be.
fn job() -> Value {
    call(&[
        ("calc__append", json!({"line": "x"})),
        ("calc__add", json!({"a": 20, "b": 22})),
    ])
}

/// What falls due within a minute falls due now. Nobody is there who could be misled.
async fn hurry(s: &Scenario) {
    let statement = "UPDATE chat.jobs SET due_at = least(due_at, now()) WHERE status = 'queued';
        UPDATE chat.jobs SET publish_due_at = now() WHERE finished_at IS NOT NULL";
    laws::execute(s, statement).await;
}

async fn check(s: &Scenario, case: Case, job: &str, answers: &AtomicUsize) {
    let result = s.result_of(job).await;
    let row = s
        .row_where(
            format!("SELECT * FROM chat.jobs WHERE id = '{job}'"),
            |row| !row["result_published_at"].is_null(),
        )
        .await;
    assert_eq!(row["status"], case.status(), "{case}: {row:#}");
    // What is stored is progress.
    let failures = usize::from(case.situation == Situation::CalledOff);
    assert_eq!(row["failures"], json!(failures), "{case}: {row:#}");
    let mut results = s.results_so_far().await;
    results.push(result);
    laws::check(s, job, &results, answers.load(Ordering::Relaxed)).await;
    let outcomes = laws::outcomes(s, job).await;
    assert!(
        case.outcomes().iter().any(|all| *all == outcomes),
        "{case}: {outcomes:?}"
    );
    let jobs = s.row("SELECT count(*) AS jobs FROM chat.jobs").await;
    assert_eq!(jobs, json!({"jobs": 1}), "{case}");
    let dead = s.rows("SELECT * FROM chat.dead_letters").await;
    assert_eq!(dead.len(), usize::from(row["status"] == "failed"), "{case}");
}

/// A dead letter is stored at least once, and the sender is told at least once.
async fn check_refusal(s: &Scenario) {
    let told = s.results().await.next().await;
    assert_eq!(told.correlation_id(), "somebody waits");
    assert_eq!(told.json()["error"]["code"], "invalid_json");
    s.dead_letters().await.next().await;
    let rows = s.rows("SELECT * FROM chat.dead_letters").await;
    assert!((1..=2).contains(&rows.len()), "{rows:#?}");
    assert_eq!(s.rows("SELECT * FROM chat.jobs").await, Vec::<Value>::new());
}

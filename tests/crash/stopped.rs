//! A worker that stands still is taken for dead, and does nothing more for its job when it wakes.

use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::laws;
use crate::scenario::{Program, Scenario, Setup, ask, call, puppet, with};
use crate::stub_model::Reply;
use crate::watch::{calls_made, is_stopped, now, patiently, tell, time, with_calc};

/// The promise.
const SOON: TimeDelta = TimeDelta::seconds(45);

/// Where a worker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// While the model thinks, which answers meanwhile.
    Model,
    /// While a tool is at work, which ends meanwhile.
    Tool,
    /// Before what the model said is stored.
    BeforeAppend,
    /// When that is stored, and before the tools are called.
    AfterAppend,
    /// Before the end is stored.
    BeforeFinish,
}

#[tokio::test]
async fn the_job_of_a_stopped_worker_goes_on_within_45_seconds_and_the_thawed_one_leaves_it_alone()
{
    let places = [
        Place::Model,
        Place::Tool,
        Place::BeforeAppend,
        Place::AfterAppend,
        Place::BeforeFinish,
    ];
    join_all(places.map(|place| Box::pin(stop_at(place)))).await;
}

async fn stop_at(place: Place) {
    let gate = Arc::new(Semaphore::new(0));
    let setup = Setup::new().replicas(0);
    let setup = match place {
        Place::Model => setup.replies([
            Reply::text("too late").when(&gate),
            Reply::text("from the other"),
        ]),
        Place::Tool | Place::BeforeAppend | Place::AfterAppend | Place::BeforeFinish => {
            setup.model(puppet)
        }
    };
    with_calc(setup, &json!({}))
        .run(async |s| {
            let trap = match place {
                Place::Model | Place::Tool => "",
                Place::BeforeAppend => "append.before=stop",
                Place::AfterAppend => "append.after=stop",
                Place::BeforeFinish => "finish.before=stop",
            };
            let first = s.start_worker_with(&[("CHAT_FAILPOINT", trap)]).await;
            let job = s.send(&job(place)).await;
            let stopped_at = stop(s, place, &first, &gate).await;
            s.start_worker().await;
            patiently("a result of the other worker", async || {
                let row = s.job(&job).await;
                (!row["result_published_at"].is_null()).then_some(())
            })
            .await;
            let after = time(&laws::attempts(s, &job).await[1]["started_at"]) - stopped_at;
            tell(&format!("{place:?}: taken over {after} after the stop"));
            assert!(after <= SOON, "{place:?}: {after}");
            let before = traces(s, &job).await;
            first.signal(Signal::CONT);
            first.log_says("another worker has this job now").await;
            assert_eq!(traces(s, &job).await, before, "{place:?}: it did something");
            let results = s.results_so_far().await;
            assert_eq!(results.len(), 1, "{place:?}: {results:#?}");
            let answers = s.model.requests().len();
            laws::check(s, &job, &results, answers).await;
            // And is as good as ever.
            first.ready().await;
        })
        .await;
}

fn job(place: Place) -> Value {
    match place {
        Place::Model => ask("x"),
        Place::Tool => call(&[("calc__sleep", json!({"ms": 1000}))]),
        Place::BeforeAppend | Place::AfterAppend | Place::BeforeFinish => call(&[
            ("calc__append", json!({"line": "x"})),
            ("calc__add", json!({"a": 20, "b": 22})),
        ]),
    }
}

/// Waits until the worker stands still; since when it may.
async fn stop(
    s: &Scenario,
    place: Place,
    worker: &Program,
    gate: &Semaphore,
) -> chrono::DateTime<chrono::Utc> {
    match place {
        Place::Model => s.model.arrived(1).await,
        Place::Tool => calls_made(s, 1).await,
        Place::BeforeAppend | Place::AfterAppend | Place::BeforeFinish => {
            is_stopped(worker).await;
            let row = s.row("SELECT * FROM chat.attempts").await;
            return time(&row["started_at"]);
        }
    }
    let at = now(s).await;
    worker.signal(Signal::STOP);
    is_stopped(worker).await;
    // Its request is answered all the same.
    gate.add_permits(1);
    at
}

/// All that a run leaves: rows, requests to the model, calls of tools.
async fn traces(s: &Scenario, job: &str) -> Vec<String> {
    let mut traces = vec![s.job(job).await];
    for table in ["attempts", "iterations", "tool_calls"] {
        let query = format!("SELECT * FROM chat.{table} WHERE job_id = '{job}' ORDER BY 1, 2");
        traces.extend(s.rows(query).await);
    }
    let mut traces: Vec<_> = traces.iter().map(ToString::to_string).collect();
    traces.push(format!("{} requests", s.model.requests().len()));
    traces.push(format!("{} calls", laws::effects(s).len()));
    traces
}

/// Its locks are those of the conversation: whoever claims the next turn needs them.
#[tokio::test]
async fn a_worker_that_stops_within_a_claim_holds_its_conversation_up_for_some_ten_seconds() {
    Setup::new()
        .replicas(0)
        .model(|_| Reply::text("yes"))
        .run(async |s| {
            // It is sent no more than it has in hand; the rest goes to the other worker.
            let slow = [
                ("CHAT_FAILPOINT", "claim.before=stop@3"),
                ("CHAT_CONCURRENCY", "1"),
            ];
            let first = s.start_worker_with(&slow).await;
            let conversation = uuid::Uuid::new_v4().to_string();
            let turn = || with(ask("x"), "conversation_id", conversation.as_str());
            assert_eq!(s.answer(&turn()).await["turn"], 1);
            // Its claim finds the conversation known, and locks it in a transaction.
            let stuck = s.send(&turn()).await;
            is_stopped(&first).await;
            s.start_worker().await;
            let stopped_at = now(s).await;
            assert_eq!(s.answer(&turn()).await["turn"], 2);
            let after = now(s).await - stopped_at;
            tell(&format!("the next turn was done {after} after the stop"));
            assert!(after < TimeDelta::seconds(20), "{after}");
            first.signal(Signal::CONT);
            assert_eq!(s.result_of(&stuck).await.json()["turn"], 3);
            let jobs = s.row("SELECT count(*) AS jobs FROM chat.jobs").await;
            assert_eq!(jobs, json!({"jobs": 3}));
            laws::check_rest(s).await;
        })
        .await;
}

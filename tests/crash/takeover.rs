//! How soon a killed worker's job goes on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::laws;
use crate::scenario::{Program, Scenario, Setup, ask};
use crate::stub_model::Reply;
use crate::watch::{now, tell, time};

const DEATHS: usize = 4;
/// The promise.
const SOON: TimeDelta = TimeDelta::seconds(5);

#[tokio::test]
async fn the_job_of_a_killed_worker_goes_on_within_five_seconds() {
    // The first run of each job is still with the model when its worker is killed.
    let asked = Mutex::new(HashSet::new());
    let model = move |request: &Value| {
        let text = request["messages"][1]["content"].to_string();
        if asked.lock().unwrap().insert(text) {
            Reply::never()
        } else {
            Reply::text("here I am")
        }
    };
    Setup::new()
        .replicas(0)
        .model(model)
        .run(async |s| {
            let mut workers = vec![s.start_worker().await, s.start_worker().await];
            for death in 1..=DEATHS {
                let job = s.send(&ask(&death.to_string())).await;
                let owner = owner(s, &job, &workers).await;
                heartbeat_of(s, &owner).await;
                let killed_at = now(s).await;
                owner.signal(Signal::KILL);
                s.result_of(&job).await;
                let runs = laws::attempts(s, &job).await;
                let after = time(&runs[1]["started_at"]) - killed_at;
                tell(&format!("taken over {after} after the kill"));
                assert!(after <= SOON, "death {death}: {after}");
                assert_eq!(laws::outcomes(s, &job).await, ["taken_over", "completed"]);
                workers.retain(|worker| !Arc::ptr_eq(worker, &owner));
                workers.push(s.start_worker().await);
            }
        })
        .await;
}

/// The worker that runs a job.
async fn owner(s: &Scenario, job: &str, workers: &[Arc<Program>]) -> Arc<Program> {
    let query = format!(
        "SELECT w.pid FROM chat.jobs AS j JOIN chat.workers AS w ON w.id = j.worker_id WHERE j.id = '{job}'"
    );
    let pid = s.row_where(query, |_| true).await["pid"].clone();
    let owner = workers.iter().find(|worker| pid == json!(worker.pid()));
    Arc::clone(owner.expect("a worker of ours"))
}

/// Waits for the next heartbeat: who is killed right after it is believed to live the longest.
async fn heartbeat_of(s: &Scenario, worker: &Program) {
    let query = format!(
        "SELECT heartbeat_at FROM chat.workers WHERE pid = {}",
        worker.pid()
    );
    let last = s.row(&query).await;
    s.row_where(&query, |row| *row != last).await;
}

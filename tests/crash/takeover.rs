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

/// A worker that nobody has heard of for a minute, and the jobs that it ran.
const GHOST: &str = r#"
    WITH ghost AS (
        INSERT INTO chat.workers (id, host, pid, version, concurrency, heartbeat_at)
        VALUES (gen_random_uuid(), 'gone', 1, '0', 1500, now() - interval '1 min') RETURNING id
    ), conversation AS (
        INSERT INTO chat.conversations (id, user_id, turns) SELECT gen_random_uuid(), 'u', 1 FROM generate_series(1, 1500) RETURNING id
    ), job AS (
        INSERT INTO chat.jobs (id, conversation_id, user_id, turn, status, attempt, worker_id, request)
        SELECT c.id, c.id, 'u', 1, 'running', 1, ghost.id, '{"user_id":"u","messages":[{"role":"user","content":"x"}]}'
        FROM conversation AS c, ghost RETURNING id, worker_id
    )
    INSERT INTO chat.attempts (job_id, attempt, worker_id) SELECT id, 1, worker_id FROM job
"#;

#[tokio::test]
async fn a_thousand_jobs_of_a_killed_worker_are_taken_from_it_without_a_pause() {
    let busy = Setup::new().set("CHAT_CONCURRENCY", "1");
    busy.model(|_| Reply::never())
        .run(async |s| {
            s.sql(GHOST).await;
            let taken = "SELECT count(*), extract(epoch FROM max(ended_at) - min(ended_at))::double precision AS seconds \
                         FROM chat.attempts WHERE outcome = 'taken_over'";
            let taken = s.row_where(taken, |row| row["count"] == json!(1500)).await;
            let seconds = taken["seconds"].as_f64().unwrap();
            tell(&format!("1500 jobs were taken over within {seconds} s"));
            // Batch by batch, a second each, it would be 7 s.
            assert!(seconds < 4.0, "{seconds}");
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

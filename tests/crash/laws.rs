//! What holds of a job, whatever happened to its workers.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::scenario::{Received, Scenario};

/// The file below the test's directory where the tool server notes each call that reaches it.
pub(crate) const EFFECTS: &str = "effects.log";
/// A tool that must not be called again, however its call ended.
const UNSAFE: &str = "append";

/// A call that reached the tool server.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) at: DateTime<Utc>,
    pub(crate) tool: String,
    /// The idempotency key.
    pub(crate) key: String,
}

/// The calls that reached the tool server, in order.
pub(crate) fn effects(s: &Scenario) -> Vec<Effect> {
    let read = |line: &String| {
        let mut words = line.split(' ');
        let micros = words.next()?.parse().ok()?;
        Some(Effect {
            at: DateTime::from_timestamp_micros(micros)?,
            tool: words.next()?.to_owned(),
            key: words.next()?.to_owned(),
        })
    };
    let lines = s.lines(EFFECTS);
    lines
        .iter()
        .map(|line| read(line).unwrap_or_else(|| panic!("{EFFECTS}: {line:?}")))
        .collect()
}

/// Runs a statement in the test's database.
pub(crate) async fn execute(s: &Scenario, statement: &str) {
    let mut connection = PgConnection::connect(&s.database_url()).await.unwrap();
    connection
        .execute(AssertSqlSafe(statement.to_owned()))
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
    connection.close().await.unwrap();
}

/// The runs of a job, in order.
pub(crate) async fn attempts(s: &Scenario, job: &str) -> Vec<Value> {
    let query = format!("SELECT * FROM chat.attempts WHERE job_id = '{job}' ORDER BY attempt");
    s.rows(query).await
}

/// How the runs of a job ended. All have.
pub(crate) async fn outcomes(s: &Scenario, job: &str) -> Vec<String> {
    let attempts = attempts(s, job).await;
    for (number, row) in (1..).zip(&attempts) {
        assert_eq!(row["attempt"].as_i64(), Some(number), "{attempts:#?}");
        assert!(!row["ended_at"].is_null(), "{attempts:#?}");
    }
    let outcome = |row: &Value| row["outcome"].as_str().unwrap_or("none").to_owned();
    attempts.iter().map(outcome).collect()
}

/// One job: it has ended once, nothing that is stored was done again, and its results, of which
/// there may be copies, are one.
pub(crate) async fn check(s: &Scenario, job: &str, results: &[Received], answers: usize) {
    let row = s.job(job).await;
    assert!(!row["finished_at"].is_null(), "{row:#}");
    let runs = outcomes(s, job).await;
    assert_eq!(row["attempt"], Value::from(runs.len()), "{row:#}\n{runs:?}");
    check_result(job, &row, results);
    check_answers(s, job, &runs, answers).await;
    check_calls(s, job).await;
}

fn check_result(job: &str, row: &Value, results: &[Received]) {
    assert!(!results.is_empty(), "{job} has no result");
    let ids: BTreeSet<_> = results.iter().map(Received::message_id).collect();
    assert_eq!(ids, BTreeSet::from([job.to_owned()]), "the results' ids");
    let texts: BTreeSet<_> = results.iter().map(Received::text).collect();
    assert_eq!(texts.len(), 1, "the results differ: {texts:#?}");
    let result = results[0].json();
    for field in ["status", "attempt", "iterations", "tool_calls"] {
        assert_eq!(result[field], row[field], "{field}: {result:#}\n{row:#}");
    }
}

/// No stored answer of the model was paid for again: each run may have lost one at its end, and the
/// one that ended the job none.
async fn check_answers(s: &Scenario, job: &str, runs: &[String], answers: usize) {
    let query = format!("SELECT * FROM chat.iterations WHERE job_id = '{job}' ORDER BY number");
    let stored = s.rows(query).await;
    let lost = runs
        .iter()
        .filter(|outcome| matches!(&***outcome, "taken_over" | "given_back"))
        .count();
    assert!(
        stored.len() <= answers && answers <= stored.len() + lost,
        "{job}: the model answered {answers} times, {} of that is stored, its runs: {runs:?}",
        stored.len()
    );
    let wrote: Vec<_> = stored.iter().map(|row| row["attempt"].as_i64()).collect();
    assert!(wrote.is_sorted(), "{job}: answers were stored by {wrote:?}");
}

/// No call was made after its result was stored, no call that is not safe to repeat was made twice
/// at all, and no call of a job that has ended is left open.
async fn check_calls(s: &Scenario, job: &str) {
    let mut made: BTreeMap<String, Vec<Effect>> = BTreeMap::new();
    for effect in effects(s) {
        made.entry(effect.key.clone()).or_default().push(effect);
    }
    for row in s.tool_calls(job).await {
        assert_ne!(row["status"], "started", "left open: {row:#}");
        let key = format!("{job}/{}/{}", row["iteration"], row["position"]);
        let made = made.remove(&key).unwrap_or_default();
        if row["status"] == "succeeded" {
            assert!(!made.is_empty(), "a result of nothing: {row:#}");
            let finished = row["finished_at"].as_str().expect("an end");
            let finished: DateTime<Utc> = finished.parse().unwrap();
            let late = made.iter().filter(|effect| effect.at > finished).count();
            assert_eq!(late, 0, "called again: {row:#}\n{made:#?}");
        }
        let unsafe_calls = made.iter().filter(|effect| effect.tool == UNSAFE).count();
        assert!(unsafe_calls <= 1, "called twice: {row:#}\n{made:#?}");
    }
    let mut rest = made.keys();
    let strange = rest.find(|key| key.starts_with(job));
    assert_eq!(strange, None, "called, and not stored");
}

/// Nothing is left to do.
pub(crate) async fn check_rest(s: &Scenario) {
    let query = "SELECT waiting, running, unpublished_results FROM chat.queue_health";
    let nothing = serde_json::json!({"waiting": 0, "running": 0, "unpublished_results": 0});
    s.row_where(query, |row| *row == nothing).await;
}

//! What holds at every moment, whatever happened before.

use chat_worker::ids::JobId;
use uuid::Uuid;

use crate::ground::Ground;

/// A job's row, and its runs.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) conversation_id: Uuid,
    pub(crate) turn: Option<i32>,
    pub(crate) status: String,
    pub(crate) wait_reason: Option<String>,
    pub(crate) has_due_time: bool,
    pub(crate) attempt: i32,
    pub(crate) failures: i32,
    pub(crate) worker_id: Option<Uuid>,
    pub(crate) is_finished: bool,
    pub(crate) runs: i64,
    pub(crate) open_runs: i64,
    pub(crate) letters: i64,
}

impl Row {
    pub(crate) fn is_running(&self) -> bool {
        self.status == "running"
    }
}

const ROWS: &str = "
    SELECT j.id, j.conversation_id, j.turn, j.status::text AS status, j.wait_reason::text AS wait_reason,
           j.due_at IS NOT NULL AS has_due_time, j.attempt, j.failures, j.worker_id, j.finished_at IS NOT NULL AS is_finished,
           (SELECT count(*) FROM chat.attempts AS a WHERE a.job_id = j.id) AS runs,
           (SELECT count(*) FROM chat.attempts AS a WHERE a.job_id = j.id AND a.ended_at IS NULL) AS open_runs,
           (SELECT count(*) FROM chat.dead_letters AS d WHERE d.job_id = j.id) AS letters
    FROM chat.jobs AS j WHERE j.id = ANY($1) ORDER BY j.conversation_id, j.turn NULLS LAST, j.id";

/// The rows of these jobs, those that are stored.
pub(crate) async fn rows(ground: &Ground, jobs: &[JobId]) -> Vec<Row> {
    let ids: Vec<_> = jobs.iter().map(|job| job.0).collect();
    sqlx::query_as(ROWS)
        .bind(ids)
        .fetch_all(&ground.pool)
        .await
        .unwrap()
}

/// What is wrong with the rows; empty when every law holds.
pub(crate) fn breaches(rows: &[Row]) -> Vec<String> {
    rows.iter().filter_map(|row| breach(row, rows)).collect()
}

fn breach(row: &Row, all: &[Row]) -> Option<String> {
    let earlier_unfinished = all.iter().any(|other| {
        other.conversation_id == row.conversation_id
            && other.turn.is_some()
            && other.turn < row.turn
            && !other.is_finished
    });
    let is_running = row.is_running();
    let what = if row.runs != i64::from(row.attempt) {
        "a run is missing, or one too many is noted"
    } else if row.open_runs != i64::from(is_running) {
        "a run is open that is none, or none is"
    } else if is_running && earlier_unfinished {
        "it runs before its turn"
    } else if is_running && row.turn.is_none() {
        "it runs without a turn"
    } else if waits_for_turn(row) && !earlier_unfinished {
        "it waits for nobody, for ever"
    } else if waits(row) && !waits_for_turn(row) && !row.has_due_time {
        "it waits for nothing, for ever"
    } else if is_running && row.has_due_time {
        "it is due while it runs"
    } else if row.letters != i64::from(row.status == "failed") {
        "it has no dead letter, or too many"
    } else {
        return None;
    };
    Some(format!("{what}: {row:?}"))
}

fn waits(row: &Row) -> bool {
    row.status == "waiting" || row.status == "queued"
}

fn waits_for_turn(row: &Row) -> bool {
    row.wait_reason.as_deref() == Some("turn")
}

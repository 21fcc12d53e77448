//! The analyst's side: what the tables say, while the job runs and afterwards.

use std::time::Duration;

use anyhow::bail;
use sqlx::FromRow;
use tokio::time::{Instant, sleep};

use crate::claims::Claims;
use crate::job::Sent;
use crate::report::{self, short};
use crate::stage::{Ground, Worker};

const POLL: Duration = Duration::from_millis(10);

/// The tables that a job leaves rows in.
const TABLES: [(&str, &str); 6] = [
    ("conversations", "SELECT count(*) FROM chat.conversations"),
    ("jobs", "SELECT count(*) FROM chat.jobs"),
    ("iterations", "SELECT count(*) FROM chat.iterations"),
    ("tool_calls", "SELECT count(*) FROM chat.tool_calls"),
    ("attempts", "SELECT count(*) FROM chat.attempts"),
    ("workers", "SELECT count(*) FROM chat.workers"),
];

/// A tool call that has ended.
#[derive(FromRow)]
struct Call {
    iteration: i32,
    offered_as: String,
    arguments: String,
    result: Option<String>,
    ms: f64,
}

/// What was seen while the job ran.
#[derive(Default)]
pub(crate) struct Followed {
    calls: usize,
    tool_rounds: usize,
    answers: usize,
}

/// What the job's row says in the end.
#[derive(FromRow)]
pub(crate) struct Stored {
    pub(crate) status: String,
    pub(crate) iterations: i32,
    pub(crate) tool_calls: i32,
    pub(crate) reply: Option<String>,
    error: Option<String>,
}

/// A line of the conversation.
#[derive(FromRow)]
pub(crate) struct Line {
    position: i32,
    pub(crate) role: String,
    pub(crate) content: String,
    calls: Option<String>,
}

/// Prints each step of the job as it is stored, until the job has ended.
pub(crate) async fn follow(
    ground: &Ground,
    sent: &Sent,
    worker: &mut Worker,
    patience: Duration,
) -> anyhow::Result<Followed> {
    let begin = Instant::now();
    let mut seen = Followed::default();
    loop {
        // Asked first: what is stored before the end is then seen below.
        let ended = has_ended(ground, sent).await?;
        report_calls(ground, sent, &mut seen).await?;
        report_answers(ground, sent, &mut seen).await?;
        if ended {
            return Ok(seen);
        }
        worker.check()?;
        if begin.elapsed() > patience {
            bail!(
                "the job {} did not end within {} s{}",
                sent.id,
                patience.as_secs(),
                worker.last_words()
            );
        }
        sleep(POLL).await;
    }
}

async fn has_ended(ground: &Ground, sent: &Sent) -> anyhow::Result<bool> {
    let finished: Option<bool> =
        sqlx::query_scalar("SELECT finished_at IS NOT NULL FROM chat.jobs WHERE id = $1")
            .bind(sent.id)
            .fetch_optional(&ground.pool)
            .await?;
    Ok(finished == Some(true))
}

async fn report_calls(ground: &Ground, sent: &Sent, seen: &mut Followed) -> anyhow::Result<()> {
    let calls: Vec<Call> = sqlx::query_as(
        "SELECT iteration, offered_as, arguments::text AS arguments, result, \
                extract(epoch FROM finished_at - started_at)::float8 * 1000 AS ms \
         FROM chat.tool_calls WHERE job_id = $1 AND finished_at IS NOT NULL AND started_at IS NOT NULL \
         ORDER BY iteration, position",
    )
    .bind(sent.id)
    .fetch_all(&ground.pool)
    .await?;
    for call in calls.iter().skip(seen.calls) {
        let result = short(call.result.as_deref().unwrap_or_default());
        let fact = format!(
            "tool call {} {} → {result}, {:.0} ms",
            call.offered_as,
            short(&call.arguments),
            call.ms.ceil()
        );
        report::step(&format!("turn {}", call.iteration), &fact);
    }
    seen.calls = calls.len();
    let mut rounds: Vec<_> = calls.iter().map(|call| call.iteration).collect();
    rounds.dedup();
    seen.tool_rounds = rounds.len();
    Ok(())
}

async fn report_answers(ground: &Ground, sent: &Sent, seen: &mut Followed) -> anyhow::Result<()> {
    let answers: Vec<(i32, Option<String>)> = sqlx::query_as(
        "SELECT number, content FROM chat.iterations \
         WHERE job_id = $1 AND tool_calls = 0 ORDER BY number",
    )
    .bind(sent.id)
    .fetch_all(&ground.pool)
    .await?;
    for (number, content) in answers.iter().skip(seen.answers) {
        let said = short(content.as_deref().unwrap_or_default());
        report::step(&format!("turn {number}"), &format!("final answer: {said}"));
    }
    seen.answers = answers.len();
    Ok(())
}

/// Counts the rows of every table, and reads the job's own.
pub(crate) async fn check(
    ground: &Ground,
    sent: &Sent,
    followed: &Followed,
    claims: &mut Claims,
) -> anyhow::Result<Stored> {
    claims.claim(followed.tool_rounds >= 1, || {
        "the model asks for a tool at least once".to_owned()
    });
    claims.claim(followed.answers == 1, || {
        format!(
            "the model answers once, but it did {} times",
            followed.answers
        )
    });
    let stored: Stored = sqlx::query_as(
        "SELECT status::text AS status, iterations, tool_calls, reply, \
                error_code || ': ' || error_message AS error FROM chat.jobs WHERE id = $1",
    )
    .bind(sent.id)
    .fetch_one(&ground.pool)
    .await?;
    claims.claim(stored.status == "completed", || {
        let error = stored.error.as_deref().unwrap_or("no error");
        format!(
            "the job is completed, but it is {} ({error})",
            stored.status
        )
    });
    let mut counted = Vec::new();
    for (table, sql) in TABLES {
        let rows: i64 = sqlx::query_scalar(sql).fetch_one(&ground.pool).await?;
        let expected = match table {
            "iterations" => i64::from(stored.iterations),
            "tool_calls" => i64::from(stored.tool_calls),
            _ => 1,
        };
        claims.claim(rows == expected && rows > 0, || {
            format!(
                "chat.{table} has {} rows, but it has {rows}",
                expected.max(1)
            )
        });
        counted.push(format!("{table} {rows}"));
    }
    let fact = format!("{}; rows: {}", stored.status, counted.join(", "));
    report::line("record", &fact);
    Ok(stored)
}

/// Reads and prints the conversation as `chat.transcript` has it.
pub(crate) async fn transcript(ground: &Ground, sent: &Sent) -> anyhow::Result<Vec<Line>> {
    let lines: Vec<Line> = sqlx::query_as(
        "SELECT position, role, coalesce(content, '') AS content, tool_calls::text AS calls \
         FROM chat.transcript WHERE job_id = $1 ORDER BY turn, position",
    )
    .bind(sent.id)
    .fetch_all(&ground.pool)
    .await?;
    report::line("transcript", "as chat.transcript has it:");
    for line in &lines {
        let said = line.calls.as_deref().unwrap_or(&line.content);
        let fact = format!("{:<10} {}", line.role, short(said));
        report::step(&line.position.to_string(), &fact);
    }
    Ok(lines)
}

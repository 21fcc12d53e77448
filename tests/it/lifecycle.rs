//! A worker's start, health and end.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::scenario::{Setup, ask};
use crate::stub_model::Reply;

#[tokio::test]
async fn a_worker_told_to_stop_ends_what_it_runs_and_takes_nothing_more() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .replies([Reply::text("first").when(&gate), Reply::text("second")])
        .run(async |s| {
            let first = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            let worker = s.worker();
            worker.signal(Signal::TERM);
            worker.log_says("stopping: running jobs may end").await;
            let second = s.send(&ask("y")).await;
            gate.add_permits(1);
            assert_eq!(
                s.result_of(&first).await.json()["message"]["content"],
                "first"
            );
            assert_eq!(worker.ended().await.code(), Some(0));
            assert!(
                s.rows(format!("SELECT * FROM chat.jobs WHERE id = '{second}'"))
                    .await
                    .is_empty()
            );
            let row = s.row("SELECT stopped_at FROM chat.workers").await;
            assert!(!row["stopped_at"].is_null());
            assert!(!s.job(&first).await["result_published_at"].is_null());
            // Nothing is lost: the next worker takes it.
            s.start_worker().await;
            assert_eq!(
                s.result_of(&second).await.json()["message"]["content"],
                "second"
            );
            assert_eq!(s.rows("SELECT * FROM chat.workers").await.len(), 2);
        })
        .await;
}

#[tokio::test]
async fn what_a_stopping_worker_was_sent_ahead_is_stored_and_left_to_the_next() {
    let gate = Arc::new(Semaphore::new(0));
    let first = Reply::text("first").when(&gate);
    Setup::new()
        .replies([first, Reply::text("second")])
        .set("CHAT_CONCURRENCY", "1")
        .run(async |s| {
            let running = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            // The only slot is taken: this one waits, sent ahead, and is handed over.
            let waiting = s.send(&ask("y")).await;
            let query = format!("SELECT * FROM chat.jobs WHERE id = '{waiting}'");
            let worker = s.worker();
            worker.signal(Signal::TERM);
            let row = s.row_where(query, |row| !row.is_null()).await;
            assert_eq!(
                (&row["status"], &row["attempt"]),
                (&json!("queued"), &json!(0))
            );
            gate.add_permits(1);
            assert_eq!(worker.ended().await.code(), Some(0));
            s.start_worker().await;
            for (id, said) in [(running, "first"), (waiting, "second")] {
                let result = s.result_of(&id).await.json();
                assert_eq!(result["message"]["content"], said);
            }
        })
        .await;
}

#[tokio::test]
async fn an_idle_worker_stops_at_once_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        Setup::new()
            .calc()
            .run(async |s| {
                let worker = s.worker();
                worker.signal(signal);
                assert_eq!(worker.ended().await.code(), Some(0), "{signal:?}");
            })
            .await;
    }
}

#[tokio::test]
async fn a_worker_does_not_wait_longer_than_it_may() {
    Setup::new()
        .replies([Reply::never()])
        .set("CHAT_DRAIN_SECS", "1")
        .run(async |s| {
            s.send(&ask("x")).await;
            s.model.arrived(1).await;
            let begin = std::time::Instant::now();
            assert_eq!(s.worker().stop().await.code(), Some(0));
            assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
        })
        .await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    Setup::new()
        .replies([Reply::never()])
        .set("CHAT_DRAIN_SECS", "600")
        .run(async |s| {
            s.send(&ask("x")).await;
            s.model.arrived(1).await;
            let worker = s.worker();
            worker.signal(Signal::TERM);
            worker.log_says("stopping: running jobs may end").await;
            worker.signal(Signal::TERM);
            worker.ended().await;
        })
        .await;
}

#[tokio::test]
async fn bad_configuration_is_named_all_at_once_and_without_secrets() {
    Setup::new()
        .replicas(0)
        .run(async |s| {
            let worker = s.launch(&[
                ("AMQP_URL", "http://guest:hunter2@localhost"),
                ("DATABASE_URL", "mysql://root:hunter3@localhost/db"),
                ("OPENAI_API_KEY", "sk-hunter4 with a space"),
                ("OPENAI_BASE_URL", "ftp://example.org"),
                ("CHAT_PREFIX", "two words"),
                ("CHAT_CONCURRENCY", "0"),
                ("CHAT_MAX_ITERATIONS", "many"),
                ("CHAT_ON_ITERATION_LIMIT", "despair"),
                ("CHAT_HTTP_ADDR", "here"),
                ("CHAT_REPLY_TO_ALLOW", "["),
                ("LOG_FORMAT", "xml"),
                ("MCP_CONFIG", "nowhere.json"),
            ]);
            let status = worker.ended().await;
            let log = worker.log();
            for name in [
                "AMQP_URL",
                "DATABASE_URL",
                "OPENAI_API_KEY",
                "OPENAI_BASE_URL",
                "CHAT_PREFIX",
                "CHAT_CONCURRENCY",
                "CHAT_MAX_ITERATIONS",
                "CHAT_ON_ITERATION_LIMIT",
                "CHAT_HTTP_ADDR",
                "CHAT_REPLY_TO_ALLOW",
                "LOG_FORMAT",
                "MCP_CONFIG",
            ] {
                assert!(log.contains(name), "{name} is not named in:\n{log}");
            }
            assert!(!log.contains("hunter"), "a secret is shown:\n{log}");
            assert_eq!(status.code(), Some(2), "{log}");
        })
        .await;
}

#[tokio::test]
async fn health_and_readiness_are_told_over_http() {
    Setup::new()
        .calc()
        .run(async |s| {
            let worker = s.worker();
            assert_eq!(worker.get("/healthz").await, (200, "ok\n".to_owned()));
            assert_eq!(worker.get("/readyz").await, (200, "ready\n".to_owned()));
            assert_eq!(worker.get("/nothing").await.0, 404);
        })
        .await;
}

#[tokio::test]
async fn replicas_that_start_together_on_an_empty_database_migrate_it_once() {
    Setup::new()
        .replicas(4)
        .run(async |s| {
            let rows = s
                .rows("SELECT version, success FROM _chat_worker_migrations ORDER BY version")
                .await;
            assert!(
                rows.len() >= 3 && rows.iter().all(|row| row["success"] == true),
                "{rows:?}"
            );
            assert_eq!(s.rows("SELECT * FROM chat.workers").await.len(), 4);
            assert_eq!(
                s.answer(&ask("What is 1 plus 1?")).await["status"],
                "completed"
            );
        })
        .await;
}

#[tokio::test]
async fn one_database_serves_one_installation() {
    Setup::new()
        .run(async |s| {
            let other = s.launch(&[("CHAT_PREFIX", "it-another")]);
            let status = other.ended().await;
            assert!(!status.success());
            let log = other.log();
            assert!(
                log.contains("it-another") && log.contains(&s.name("").replace('.', "")),
                "{log}"
            );
            assert_eq!(s.answer(&ask("still?")).await["status"], "completed");
            let row = s.row("SELECT count(*) AS workers FROM chat.workers").await;
            assert_eq!(row, json!({"workers": 1}));
        })
        .await;
}

#[tokio::test]
async fn a_database_that_refuses_is_named_and_not_waited_for() {
    Setup::new()
        .replicas(0)
        .run(async |s| {
            let mut missing = url::Url::parse(&s.database_url()).unwrap();
            missing.set_path("it_no_such_database");
            let worker = s.launch(&[("DATABASE_URL", missing.as_str())]);
            assert!(!worker.ended().await.success());
            let log = worker.log();
            assert!(
                log.contains("DATABASE_URL") && log.contains("it_no_such_database"),
                "{log}"
            );
        })
        .await;
}

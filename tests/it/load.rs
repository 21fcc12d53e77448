//! Many jobs at once: each is answered once, and costs no more than it should.

use std::collections::HashSet;
use std::time::Instant;

use crate::scenario::{Properties, Setup, ask};

const JOBS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_jobs_on_two_replicas_are_each_answered_once_within_four_commits() {
    let setup = Setup::new()
        .calc()
        .replicas(2)
        .set("CHAT_CONCURRENCY", "64")
        .set("CHAT_DB_CONNECTIONS", "10");
    setup.run(async |s| {
        let commits = async || s.row("SELECT xact_commit AS commits FROM pg_stat_database WHERE datname = current_database()").await["commits"].as_u64().unwrap();
        let (before, begin) = (commits().await, Instant::now());
        let results = s.results().await;
        for number in 0..JOBS {
            let job = ask(&format!("What is {number} plus 1?")).to_string();
            let properties = Properties::default().with_message_id(uuid::Uuid::new_v4().to_string().into()).with_correlation_id(number.to_string().into());
            s.send_bytes(job.as_bytes(), properties).await;
        }
        let mut answered = HashSet::new();
        while answered.len() < JOBS {
            let result = results.next().await;
            let number: usize = result.correlation_id().parse().unwrap();
            assert_eq!(result.json()["message"]["content"], format!("The answer is {}", number + 1));
            assert_eq!(result.json()["attempt"], 1);
            assert!(answered.insert(result.message_id()), "job {number} was answered twice");
        }
        s.stop_all().await;
        let seconds = begin.elapsed().as_secs_f64();
        assert!(s.results_so_far().await.is_empty(), "some jobs were answered twice");
        let row = s.row("SELECT count(*) AS jobs, count(result_published_at) AS published, count(DISTINCT worker_id) AS workers, sum(tool_calls) AS calls, max(attempt) AS attempts FROM chat.jobs WHERE status = 'completed'").await;
        assert_eq!(row, serde_json::json!({"jobs": JOBS, "published": JOBS, "workers": 2, "calls": JOBS, "attempts": 1}));
        let starts = s.lines("starts.log");
        assert!(starts.len() <= 2 * 4, "{} tool servers were started", starts.len());
        // Ended sessions have told all their commits. Heartbeats and marks go by time: six a second.
        let spent = commits().await - before;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let per_job = (spent as f64 - 100.0 - 2.0 * 6.0 * seconds) / JOBS as f64;
        assert!(per_job <= 4.0, "{per_job:.2} commits a job: {spent} in {seconds:.1} s");
    }).await;
}

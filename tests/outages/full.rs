//! The results queue takes nothing.

use serde_json::json;

use crate::scenario::{Properties, Setup, ask};
use crate::stub_model::Reply;
use crate::victims::{alone, rabbitmqctl};

/// More refusals that cannot be told than the worker has slots: they hold none of them for long.
#[tokio::test]
async fn refusals_that_cannot_be_told_hold_up_no_job() {
    let _alone = alone().await;
    Setup::new()
        .set("CHAT_CONCURRENCY", "2")
        .model(|_| Reply::text("yes"))
        .run(async |s| {
            let queue = format!("^{}$", s.name("results").replace('.', "\\."));
            let full = r#"{"max-length": 1, "overflow": "reject-publish"}"#;
            rabbitmqctl(&["set_policy", "--apply-to", "queues", "full", &queue, full]).await;
            // Its result is the one that finds room, and nobody takes it.
            let first = s.send(&ask("first")).await;
            s.job_where(&first, |row| !row["result_published_at"].is_null())
                .await;
            let told = || Properties::default().with_correlation_id("mine".into());
            for _ in 0..6 {
                s.send_bytes(b"{", told()).await;
            }
            let job = s.send(&ask("x")).await;
            let ended = s.job_where(&job, |row| row["status"] == "completed").await;
            assert_eq!(ended["result_published_at"], json!(null));
            s.result_of(&first).await;
            rabbitmqctl(&["clear_policy", "full"]).await;
            // The sweep publishes it half a minute later.
            s.sql("UPDATE chat.jobs SET publish_due_at = now()").await;
            let result = s.result_of(&job).await.json();
            assert_eq!(result["message"]["content"], "yes");
        })
        .await;
}

//! What is old is deleted, and nothing else.

use std::time::Duration;

use chat_worker::store::{Claimed, PrunedJobs};
use futures_util::future::join;
use uuid::Uuid;

use crate::ground::{Ground, completed, job_of};

const DAY: Duration = Duration::from_hours(24);

/// Conversations `…0a` to `…0e` of a job each, but `…0b` of two.
const ROWS: &str = r"
    INSERT INTO chat.conversations (id, user_id, turns)
    SELECT ('00000000-0000-0000-0000-00000000000' || c)::uuid, 'u', 2 FROM unnest('{a,b,c,d,e}'::text[]) AS c;
    INSERT INTO chat.jobs (id, conversation_id, turn, user_id, status, wait_reason, request, received_at, finished_at,
        publish_due_at, result_published_at)
    SELECT ('00000000-0000-0000-0000-0000000000' || j.id)::uuid, ('00000000-0000-0000-0000-00000000000' || left(j.id, 1))::uuid,
        right(j.id, 1)::integer, 'u', j.status::chat.job_status, CASE j.status WHEN 'waiting' THEN 'turn' END::chat.wait_reason,
        '{}', now() - interval '200 days', j.finished_at, j.finished_at, CASE WHEN j.is_out THEN j.finished_at END
    FROM (VALUES
        ('a1', 'completed', now() - interval '100 days', true),
        ('b1', 'failed', now() - interval '100 days', true), ('b2', 'completed', now() - interval '80 days', true),
        ('c1', 'completed', now() - interval '100 days', false),
        ('d1', 'waiting', NULL, false),
        ('e1', 'cancelled', now() - interval '89 days', true)
    ) AS j (id, status, finished_at, is_out);
    INSERT INTO chat.attempts (job_id, attempt, worker_id)
    SELECT id, 1, gen_random_uuid() FROM chat.jobs WHERE turn = 1;
    INSERT INTO chat.iterations (job_id, number, attempt, message, started_at, finished_at)
    SELECT id, 1, 1, '{}', now(), now() FROM chat.jobs WHERE turn = 1;
    INSERT INTO chat.tool_calls (job_id, iteration, position, call_id, offered_as, tool, arguments, status, attempt)
    SELECT job_id, 1, 1, 'c', 't', 't', '{}', 'succeeded', 1 FROM chat.iterations;
";

impl Ground {
    /// One batch, as large as need be.
    async fn prune(&self, days: u32) -> PrunedJobs {
        let found = self.store.find_prunable(DAY * days).await.unwrap();
        let pruned = self.store.prune_jobs(found.until, None, 1_000).await;
        pruned.unwrap()
    }

    /// The last two characters of all ids in a column, in order.
    async fn ends(&self, table: &str, column: &str) -> String {
        let ends = format!("string_agg(right({column}::text, 2), ' ' ORDER BY {column}::text)");
        let query = format!("SELECT {ends} AS ends FROM chat.{table}");
        self.texts(&query).await.join(" ")
    }
}

fn batch(jobs: u64, conversations: u64, in_use: u64) -> PrunedJobs {
    PrunedJobs {
        jobs,
        conversations,
        in_use,
        last: None,
    }
}

#[tokio::test]
async fn old_jobs_go_with_their_rows_and_what_waits_is_young_or_has_not_gone_out_stays() {
    Ground::run(async |ground| {
        ground.sql(ROWS).await;
        let found = ground.store.find_prunable(DAY * 90).await.unwrap();
        assert_eq!((found.jobs, found.dead_letters), (2, 0));
        assert_eq!(ground.prune(90).await, batch(2, 1, 0));
        let left = r#"{"ends":"b2 c1 d1 e1"}"#;
        assert_eq!(ground.ends("jobs", "id").await, left);
        let left = r#"{"ends":"0b 0c 0d 0e"}"#;
        assert_eq!(ground.ends("conversations", "id").await, left);
        for table in ["attempts", "iterations", "tool_calls"] {
            let left = r#"{"ends":"c1 d1 e1"}"#;
            assert_eq!(ground.ends(table, "job_id").await, left, "{table}");
        }
        assert_eq!(ground.prune(90).await, batch(0, 0, 0));
        assert_eq!(ground.prune(0).await, batch(2, 2, 0));
        let left = r#"{"ends":"c1 d1"}"#;
        assert_eq!(ground.ends("jobs", "id").await, left);
    })
    .await;
}

#[tokio::test]
async fn a_batch_goes_on_after_the_one_before_it_and_past_what_is_in_use() {
    Ground::run(async |ground| {
        ground.sql(ROWS).await;
        let found = ground.store.find_prunable(DAY * 50).await.unwrap();
        assert_eq!(found.jobs, 4);
        // Somebody has a conversation, and a job of another, locked for as long as they like.
        let mut somebody = ground.pool.begin().await.unwrap();
        let locks = [
            "SELECT FROM chat.conversations WHERE id::text LIKE '%a' FOR KEY SHARE",
            "SELECT FROM chat.jobs WHERE id::text LIKE '%b2' FOR NO KEY UPDATE",
        ];
        for lock in locks {
            sqlx::query(lock).fetch_all(&mut *somebody).await.unwrap();
        }
        let (mut after, mut batches) = (None, Vec::new());
        loop {
            let pruned = ground
                .store
                .prune_jobs(found.until, after, 1)
                .await
                .unwrap();
            batches.push((pruned.jobs, pruned.conversations, pruned.in_use));
            after = pruned.last;
            if after.is_none() {
                break;
            }
        }
        // a1, b1, e1, b2, and nothing more.
        assert_eq!(
            batches,
            [(0, 0, 1), (1, 0, 0), (1, 1, 0), (0, 0, 1), (0, 0, 0)]
        );
        somebody.rollback().await.unwrap();
        assert_eq!(ground.prune(50).await, batch(2, 2, 0));
    })
    .await;
}

#[tokio::test]
async fn a_job_that_comes_while_its_conversation_is_deleted_is_not_deleted_with_it() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        for _ in 0..40 {
            let conversation = Uuid::now_v7();
            let Claimed::Run(old) = ground.claim(&job_of(conversation), worker).await else {
                panic!("it is not to run");
            };
            let ended = ground.store.finish(&old.run, &[], None, &completed()).await;
            ended.unwrap();
            ground
                .store
                .mark_published(&[old.run.job_id])
                .await
                .unwrap();
            let new = job_of(conversation);
            let (pruned, claimed) = join(ground.prune(0), ground.claim(&new, worker)).await;
            assert!(matches!(claimed, Claimed::Run(_)), "{claimed:?}");
            // Where the claim was first the old turn is in use, or goes alone.
            assert_eq!(pruned.jobs + pruned.in_use, 1);
            ground.prune(0).await;
            let left = format!(
                "SELECT count(*) FROM chat.jobs WHERE id = '{}' AND status = 'running'",
                new.id
            );
            assert_eq!(ground.texts(&left).await, [r#"{"count":1}"#]);
        }
    })
    .await;
}

#[tokio::test]
async fn workers_that_are_gone_and_cancels_past_their_day_go() {
    Ground::run(async |ground| {
        let (alive, gone, busy) = (
            ground.worker().await,
            ground.worker().await,
            ground.worker().await,
        );
        ground.claim(&job_of(Uuid::now_v7()), busy).await;
        ground.dies(gone).await;
        ground.dies(busy).await;
        ground
            .sql(
                "INSERT INTO chat.cancel_requests (job_id, requested_at)
                 SELECT gen_random_uuid(), now() - make_interval(hours => h) FROM unnest('{1,23,25,99}'::int[]) AS h",
            )
            .await;
        let of = async |age| ground.store.find_prunable(age).await.unwrap().until;
        let hour = of(Duration::from_hours(1)).await;
        assert_eq!(ground.store.prune_workers(hour).await.unwrap(), 0);
        let now = of(Duration::ZERO).await;
        assert_eq!(ground.store.prune_workers(now).await.unwrap(), 1);
        let left = ground.texts("SELECT id FROM chat.workers ORDER BY id").await;
        assert_eq!(left, [alive, busy].map(|id| format!(r#"{{"id":"{id}"}}"#)));
        let old = of(DAY * 2).await;
        assert_eq!(ground.store.prune_cancels(old).await.unwrap(), 1);
        // A younger one still holds for a job that may come.
        assert_eq!(ground.store.prune_cancels(now).await.unwrap(), 1);
    })
    .await;
}

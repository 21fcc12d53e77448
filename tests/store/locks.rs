//! Whoever keeps a row locked holds up nobody else's.

use std::time::Duration;

use chat_worker::ids::JobId;
use chat_worker::store::{Claimed, Finished};
use sqlx::{AssertSqlSafe, Executor as _};
use uuid::Uuid;

use crate::ground::{Ground, completed, job_of};

impl Ground {
    /// A job that has ended.
    async fn ended(&self) -> JobId {
        let worker = self.worker().await;
        let job = job_of(Uuid::now_v7());
        let Claimed::Run(claimed) = self.claim(&job, worker).await else {
            panic!("it is not claimed");
        };
        let ended = self
            .store
            .finish(&claimed.run, &[], None, &completed())
            .await;
        assert!(matches!(ended.unwrap(), Finished::Ended { .. }));
        job.id
    }
}

#[tokio::test]
async fn a_locked_row_is_passed_over_when_results_are_marked_and_the_others_are_marked() {
    Ground::run(async |ground| {
        let (one, other) = (ground.ended().await, ground.ended().await);
        let mut producer = ground.pool.begin().await.unwrap();
        let lock = format!("SELECT FROM chat.jobs WHERE id = '{one}' FOR NO KEY UPDATE");
        producer.execute(AssertSqlSafe(lock)).await.unwrap();
        let passed_over = ground.store.mark_published(&[one, other]).await.unwrap();
        assert_eq!(passed_over, [one]);
        producer.rollback().await.unwrap();
        assert_eq!(ground.store.mark_published(&[one]).await.unwrap(), []);
        let open = "SELECT id FROM chat.jobs WHERE result_published_at IS NULL";
        assert_eq!(ground.texts(open).await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_cancel_of_a_job_that_has_ended_locks_nothing() {
    Ground::run(async |ground| {
        let job = ground.ended().await;
        let mut producer = ground.pool.begin().await.unwrap();
        let cancel = format!("SELECT chat.cancel('{job}') AS will_end");
        let row = producer.fetch_one(AssertSqlSafe(cancel)).await.unwrap();
        assert!(!sqlx::Row::get::<bool, _>(&row, "will_end"));
        let lock = format!("SELECT FROM chat.jobs WHERE id = '{job}' FOR UPDATE NOWAIT");
        ground.sql(lock).await;
        producer.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_follows_a_dead_run_is_numbered_after_all_that_it_can_have_said() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        let job = job_of(Uuid::now_v7());
        assert!(matches!(ground.claim(&job, worker).await, Claimed::Run(_)));
        ground.dies(worker).await;
        assert_eq!(ground.store.take_from_the_dead(9).await.unwrap().len(), 1);
        ground.sql("UPDATE chat.jobs SET deadline = now()").await;
        let closed = ground.store.close_over(job.id).await.unwrap().unwrap();
        assert_eq!(closed.events, Some(1 << 30));
    })
    .await;
}

#[tokio::test]
async fn a_server_that_counts_absurdly_shuts_its_model_for_minutes_and_no_longer() {
    Ground::run(async |ground| {
        let absurd = chat_worker::store::RateWanted {
            tokens: 0.1,
            owed: 2e16,
            burst: 2.4,
            horizon: 1.0,
            ..Default::default()
        };
        let granted = ground.store.reserve_rate("m", absurd).await.unwrap();
        assert!(!granted.granted);
        let asked = chat_worker::store::RateWanted {
            owed: 0.0,
            ..absurd
        };
        let granted = ground.store.reserve_rate("m", asked).await.unwrap();
        let wait = Duration::from_secs_f64(granted.tokens_in);
        assert!(wait <= Duration::from_mins(10), "{wait:?}");
    })
    .await;
}

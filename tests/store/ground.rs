//! A database for tests of the store, and what is claimed there.

use chat_worker::chat::Usage;
use chat_worker::config::environment;
use chat_worker::ids::{ConversationId, JobId, WorkerId};
use chat_worker::store::{Claimant, Claimed, Ending, NewJob, Registration, Store, Wants};
use chat_worker::wire::{FinishReason, OnBusy, Status};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use url::Url;
use uuid::Uuid;

const REQUEST: &str = r#"{"user_id":"u","messages":[{"role":"user","content":"x"}]}"#;
const ATTEMPTS: u32 = 3;

/// A migrated database of the test's own.
pub(crate) struct Ground {
    pub(crate) store: Store,
    pub(crate) pool: PgPool,
    admin: String,
    name: String,
}

impl Ground {
    async fn new() -> Self {
        let admin = environment("DATABASE_URL").expect(
            "needs RabbitMQ and PostgreSQL: run `cargo xtask test`, or `eval \"$(cargo xtask env)\"` after `cargo xtask up`",
        );
        let name = format!("store_{}", Uuid::new_v4().simple());
        administer(&admin, format!("CREATE DATABASE {name}")).await;
        let mut url = Url::parse(&admin).expect("DATABASE_URL is no URL");
        url.set_path(&name);
        let pool = PgPoolOptions::new().max_connections(8);
        let pool = pool.connect(url.as_str()).await.expect("a database");
        let store = Store::over(pool.clone());
        store.migrate().await.unwrap();
        Self {
            store,
            pool,
            admin,
            name,
        }
    }

    /// Runs `test`, and drops the database in any case but that of a failure, which it shows.
    pub(crate) async fn run(test: impl AsyncFnOnce(&Self)) {
        let ground = Self::new().await;
        let ended =
            futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(test(&ground)))
                .await;
        ground.pool.close().await;
        administer(
            &ground.admin,
            format!("DROP DATABASE {} WITH (FORCE)", ground.name),
        )
        .await;
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    pub(crate) async fn worker(&self) -> WorkerId {
        let id = WorkerId(Uuid::now_v7());
        let registration = Registration {
            id,
            host: "test".to_owned(),
            concurrency: 1,
        };
        self.store.register(&registration).await.unwrap();
        // It has no session here, and is alive for half a minute all the same.
        self.sql(format!(
            "UPDATE chat.workers SET presence = NULL WHERE id = '{id}'"
        ))
        .await;
        id
    }

    /// The worker is silent from now on. A server that has just started takes nobody for dead.
    pub(crate) async fn dies(&self, worker: WorkerId) {
        self.sql("SELECT pg_sleep(greatest(0, extract(epoch FROM pg_postmaster_start_time() + interval '15 s' - now())))").await;
        self.sql(format!(
            "UPDATE chat.workers SET heartbeat_at = now() - interval '1 min' WHERE id = '{worker}'"
        ))
        .await;
    }

    pub(crate) async fn claim(&self, job: &NewJob<'_>, worker: WorkerId) -> Claimed {
        self.store.claim(job, claimant(worker)).await.unwrap()
    }

    pub(crate) async fn claim_known(&self, job: JobId, worker: WorkerId) -> Option<Claimed> {
        self.store.claim_known(job, claimant(worker)).await.unwrap()
    }

    /// All that a query says, a text a row.
    pub(crate) async fn texts(&self, query: &str) -> Vec<String> {
        let query = format!("SELECT row_to_json(t)::text FROM ({query}) AS t");
        sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Does a statement by which somebody else, or the passing of time, changes rows.
    pub(crate) async fn sql(&self, statement: impl Into<String>) {
        let statement = statement.into();
        let done = self.pool.execute(AssertSqlSafe(statement.clone())).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn administer(url: &str, statement: String) {
    let mut admin = PgConnection::connect(url)
        .await
        .expect("DATABASE_URL leads to no database");
    admin.execute(AssertSqlSafe(statement)).await.unwrap();
    admin.close().await.ok();
}

pub(crate) fn claimant(worker: WorkerId) -> Claimant<'static> {
    Claimant {
        worker,
        in_hand: false,
        may_judge: true,
        takes_suspects: true,
        default_model: "m",
        wants: Wants::ToRun,
        max_attempts: ATTEMPTS,
    }
}

pub(crate) fn job_of(conversation: Uuid) -> NewJob<'static> {
    NewJob {
        id: JobId(Uuid::now_v7()),
        conversation_id: ConversationId(conversation),
        user_id: "u",
        request: REQUEST,
        request_hash: b"hash",
        model: "m",
        metadata: None,
        deadline: None,
        not_before: None,
        on_busy: OnBusy::Enqueue,
        reply_to: None,
        correlation_id: None,
        priority: Some(4),
        traceparent: None,
        tracestate: None,
        enqueued_at: None,
    }
}

pub(crate) fn completed() -> Ending {
    Ending {
        status: Status::Completed,
        finish_reason: Some(FinishReason::Answered),
        reply: Some("done".to_owned()),
        refusal: None,
        warnings: Vec::new(),
        failure: None,
        model: Some("m-1".to_owned()),
        iterations: 1,
        tool_calls: 0,
        usage: Usage::default(),
    }
}

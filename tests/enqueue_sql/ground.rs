use chat_worker::config::environment;
use chat_worker::store::Store;
use serde_json::Value;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgExecutor, PgPool};
use url::Url;
use uuid::Uuid;

/// A migrated database of the test's own.
pub(crate) struct Ground {
    pub(crate) pool: PgPool,
    pub(crate) store: Store,
}

impl Ground {
    /// Runs `test`, and drops the database in any case; then shows the failure, if it was one.
    pub(crate) async fn run(test: impl AsyncFnOnce(&Self)) {
        let admin = environment("DATABASE_URL").expect(
            "needs RabbitMQ and PostgreSQL: run `cargo xtask test`, or `eval \"$(cargo xtask env)\"` after `cargo xtask up`",
        );
        let name = format!("enqueue_{}", Uuid::new_v4().simple());
        administer(&admin, format!("CREATE DATABASE {name}")).await;
        let mut url = Url::parse(&admin).expect("DATABASE_URL is no URL");
        url.set_path(&name);
        let pool = PgPoolOptions::new().max_connections(12);
        let pool = pool.connect(url.as_str()).await.expect("a database");
        let store = Store::over(pool.clone());
        store.migrate().await.unwrap();
        let ground = Self { pool, store };
        let tested = std::panic::AssertUnwindSafe(test(&ground));
        let ended = futures_util::FutureExt::catch_unwind(tested).await;
        ground.pool.close().await;
        administer(&admin, format!("DROP DATABASE {name} WITH (FORCE)")).await;
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    pub(crate) async fn enqueue(&self, job: &Value) -> Result<Uuid, String> {
        enqueue(&self.pool, &job.to_string()).await
    }

    /// What the database says of a job, without storing it; none if it is one.
    pub(crate) async fn check(&self, job: &Value) -> Option<String> {
        sqlx::query_scalar("SELECT chat.check_job($1::text::jsonb)")
            .bind(job.to_string())
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// All that a query says, a value a row.
    pub(crate) async fn rows(&self, query: &str) -> Vec<Value> {
        let query = format!("SELECT row_to_json(t)::text FROM ({query}) AS t");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.iter()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect()
    }

    /// The job as it is stored.
    pub(crate) async fn stored(&self, job: Uuid) -> Value {
        let query = format!("SELECT *, request::text AS json FROM chat.jobs WHERE id = '{job}'");
        self.rows(&query).await.pop().unwrap()
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM chat.{table}")))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// An ear for what workers are told.
    pub(crate) async fn listener(&self) -> PgListener {
        let mut listener = PgListener::connect_with(&self.pool).await.unwrap();
        listener.listen("chat_worker").await.unwrap();
        listener
    }

    /// Returns when another session waits for a lock in this database.
    pub(crate) async fn until_somebody_waits(&self) {
        let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock')";
        while !sqlx::query_scalar::<_, bool>(waiting)
            .fetch_one(&self.pool)
            .await
            .unwrap()
        {}
    }
}

async fn administer(url: &str, statement: String) {
    let mut admin = PgConnection::connect(url)
        .await
        .expect("DATABASE_URL leads to no database");
    admin.execute(AssertSqlSafe(statement)).await.unwrap();
    admin.close().await.ok();
}

/// The job's id, or the SQLSTATE and the text of its refusal.
pub(crate) async fn enqueue(on: impl PgExecutor<'_>, job: &str) -> Result<Uuid, String> {
    let called = sqlx::query_scalar("SELECT chat.enqueue($1::text::jsonb)").bind(job);
    called.fetch_one(on).await.map_err(|error| {
        let error = error.into_database_error().expect("a refusal");
        format!("{} {}", error.code().unwrap(), error.message())
    })
}

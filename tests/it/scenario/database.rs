use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use url::Url;

use super::setup::needed;
use crate::services;

/// A database of the test's own.
pub(super) struct Database {
    name: String,
    url: Url,
    pool: PgPool,
}

impl Database {
    pub(super) async fn create() -> Self {
        let admin = needed(services::DATABASE);
        let name = format!("it_{}", uuid::Uuid::new_v4().simple());
        execute(&admin, format!("CREATE DATABASE {name}")).await;
        let mut url = Url::parse(&admin).expect("a URL of the database");
        url.set_path(&name);
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .connect_lazy(url.as_str())
            .expect("a URL of postgres");
        Self { name, url, pool }
    }

    pub(super) fn url(&self) -> String {
        self.url.to_string()
    }

    pub(super) async fn rows(&self, query: &str) -> Vec<Value> {
        let query = format!("SELECT row_to_json(t)::text FROM ({query}) AS t");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(query.clone()))
            .fetch_all(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        rows.iter()
            .map(|row| serde_json::from_str(row).expect("JSON"))
            .collect()
    }

    pub(super) async fn execute(&self, statement: &str) {
        let done = self.pool.execute(AssertSqlSafe(statement.to_owned())).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    pub(super) async fn drop_it(self) {
        self.pool.close().await;
        let name = &self.name;
        execute(
            &needed(services::DATABASE),
            format!("DROP DATABASE {name} WITH (FORCE)"),
        )
        .await;
    }
}

async fn execute(url: &str, statement: String) {
    let mut admin = PgConnection::connect(url)
        .await
        .expect("the URL leads to no database");
    let done = admin.execute(AssertSqlSafe(statement.clone())).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    admin.close().await.ok();
}

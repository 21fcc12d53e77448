use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use super::documents::full;
use super::ground::Ground;

/// The functions of the schema that `role` may call.
async fn callable(ground: &Ground, role: &str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT proname::text FROM pg_proc
        WHERE pronamespace = 'chat'::regnamespace AND has_function_privilege($1, oid, 'EXECUTE') ORDER BY proname",
    )
    .bind(role)
    .fetch_all(&ground.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn producers_may_enqueue_and_cancel_and_nothing_else_and_the_public_may_nothing() {
    Ground::run(async |ground| {
        assert_eq!(
            callable(ground, "chat_producer").await,
            ["cancel", "enqueue"]
        );
        assert_eq!(callable(ground, "chat_approver").await, ["approve", "deny"]);
        assert_eq!(callable(ground, "public").await, Vec::<String>::new());
        // All in a transaction that is rolled back: roles belong to the whole server.
        let (member, stranger) = (
            format!("m_{}", Uuid::new_v4().simple()),
            format!("s_{}", Uuid::new_v4().simple()),
        );
        let mut tx = ground.pool.begin().await.unwrap();
        let roles = format!(
            "CREATE ROLE {member} NOLOGIN IN ROLE chat_producer; CREATE ROLE {stranger} NOLOGIN"
        );
        sqlx::raw_sql(AssertSqlSafe(roles))
            .execute(&mut *tx)
            .await
            .unwrap();
        let refused = async |tx: &mut PgConnection, role: &str, statement: &str| {
            let mut inner = tx.begin().await.unwrap();
            inner
                .execute(AssertSqlSafe(format!("SET LOCAL ROLE {role}")))
                .await
                .unwrap();
            let error = inner
                .execute(AssertSqlSafe(statement.to_owned()))
                .await
                .unwrap_err();
            let code = error
                .as_database_error()
                .unwrap()
                .code()
                .unwrap()
                .into_owned();
            assert_eq!(code, "42501", "{role}: {statement}: {error}");
            inner.rollback().await.unwrap();
        };
        let tables = [
            "jobs",
            "conversations",
            "cancel_requests",
            "transcript",
            "iterations",
            "installation",
        ];
        for table in tables {
            refused(&mut tx, &member, &format!("SELECT FROM chat.{table}")).await;
        }
        for statement in [
            "DELETE FROM chat.jobs",
            "SELECT chat.check_job('{}')",
            "SELECT chat.request_cancel(gen_random_uuid(), NULL, NULL)",
            "CREATE TABLE chat.mine ()",
            // Who enqueues a job does not approve what it does.
            "SELECT chat.approve(gen_random_uuid(), 'c')",
            "SELECT chat.deny(gen_random_uuid(), 'c')",
            "SELECT FROM chat.pending_approvals",
        ] {
            refused(&mut tx, &member, statement).await;
        }
        for statement in [
            "SELECT chat.enqueue('{}')",
            "SELECT chat.cancel(gen_random_uuid())",
            "SELECT chat.approve(gen_random_uuid(), 'c')",
            "SELECT FROM chat.pending_approvals",
        ] {
            refused(&mut tx, &stranger, statement).await;
        }
        tx.execute(AssertSqlSafe(format!("SET LOCAL ROLE {member}")))
            .await
            .unwrap();
        // Types of the caller's own are not taken for those that are meant.
        for shadow in ["uuid", "jsonb", "timestamptz", "json"] {
            tx.execute(AssertSqlSafe(format!(
                "CREATE DOMAIN pg_temp.{shadow} AS bytea"
            )))
            .await
            .unwrap();
        }
        let called = "SELECT chat.enqueue($1::pg_catalog.text::pg_catalog.jsonb)";
        let id: Uuid = sqlx::query_scalar(called)
            .bind(full().to_string())
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        let cancelled: bool = sqlx::query_scalar("SELECT chat.cancel($1)")
            .bind(id)
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert!(cancelled);
        tx.rollback().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn every_function_has_a_comment_and_that_of_enqueue_lists_its_codes() {
    Ground::run(async |ground| {
        let silent = ground
            .rows("SELECT proname FROM pg_proc WHERE pronamespace = 'chat'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL")
            .await;
        assert_eq!(silent, Vec::<Value>::new());
        let comment: String = sqlx::query_scalar("SELECT obj_description('chat.enqueue'::regproc, 'pg_proc')")
            .fetch_one(&ground.pool)
            .await
            .unwrap();
        for code in [
            "JB001 invalid_job",
            "JB002 unsupported_version",
            "JB003 job_too_large",
            "JB004 job_id_conflict",
            "JB005 conversation_forbidden",
        ] {
            assert!(comment.contains(code), "{code}");
        }
    })
    .await;
}

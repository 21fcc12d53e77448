use std::time::Duration;

use sqlx::migrate::Migrator;

use super::{Store, StoreError};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Key of the advisory lock that is held while migrating: "chat" in ASCII.
const MIGRATION_LOCK: i64 = 0x6368_6174;
/// How long another process's migrations are waited for.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(250);

impl Store {
    /// Brings the schema up to date. Replicas that start together take turns; a replica older than
    /// the schema leaves it as it is, since migrations only ever add.
    ///
    /// # Errors
    /// A migration fails, or another process does not get done with them.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        // Polled rather than waited for: a session that waits in pg_advisory_lock holds a snapshot,
        // for which a CREATE INDEX CONCURRENTLY of the other one would wait for ever.
        let mut waited = Duration::ZERO;
        while !try_lock(&mut connection).await? {
            if waited >= PATIENCE {
                let seconds = waited.as_secs();
                return Err(StoreError::MigrationsBusy { seconds });
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
        let migrated = migrator().run(&mut *connection).await;
        sqlx::query!("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)
            .fetch_one(&mut *connection)
            .await?;
        Ok(migrated?)
    }

    /// Makes sure that this database serves the installation called `prefix`, and no other.
    ///
    /// # Errors
    /// It serves another one.
    pub async fn claim_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let theirs = sqlx::query_scalar!(
            r#"
            WITH mine AS (
                INSERT INTO chat.installation (prefix) VALUES ($1)
                ON CONFLICT (only_row) DO NOTHING RETURNING prefix
            )
            SELECT prefix AS "prefix!" FROM mine UNION ALL SELECT prefix FROM chat.installation LIMIT 1
            "#,
            prefix
        )
        .fetch_optional(&self.pool)
        .await?;
        match theirs {
            Some(theirs) if theirs != prefix => Err(StoreError::OtherPrefix {
                theirs,
                ours: prefix.to_owned(),
            }),
            // None: another replica of ours was first, this very moment.
            Some(_) | None => Ok(()),
        }
    }
}

fn migrator() -> Migrator {
    let mut migrator = Migrator {
        migrations: MIGRATOR.migrations.clone(),
        ..Migrator::DEFAULT
    };
    migrator.set_ignore_missing(true).set_locking(false);
    // Of our own name, since the database may hold another program's migrations too.
    migrator.dangerous_set_table_name("_chat_worker_migrations");
    migrator
}

async fn try_lock(connection: &mut sqlx::PgConnection) -> Result<bool, StoreError> {
    let locked = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_lock($1) AS "locked!""#,
        MIGRATION_LOCK
    );
    Ok(locked.fetch_one(connection).await?)
}

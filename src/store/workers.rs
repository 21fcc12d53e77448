use sqlx::PgExecutor;

use super::{Store, StoreError};
use crate::ids::WorkerId;

/// A worker process, as it introduces itself.
#[derive(Clone, Debug)]
pub struct Registration {
    /// A fresh id.
    pub id: WorkerId,
    /// The machine's name.
    pub host: String,
    /// Jobs that it takes in hand at once.
    pub concurrency: u32,
}

impl Store {
    /// Writes a worker's row, or says in it that the worker is alive.
    ///
    /// # Errors
    /// The database fails.
    pub async fn register(&self, worker: &Registration) -> Result<(), StoreError> {
        enroll(&self.pool, worker).await
    }

    /// Says that a worker has stopped in good order.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sign_off(&self, worker: WorkerId) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE chat.workers SET stopped_at = now() WHERE id = $1",
            worker.0
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Says that a worker is alive; its row is written anew should somebody have deleted it.
pub(super) async fn enroll(
    connection: impl PgExecutor<'_>,
    worker: &Registration,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO chat.workers (id, host, pid, version, concurrency, presence) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (id) DO UPDATE SET heartbeat_at = now()
        "#,
        worker.id.0,
        worker.host,
        super::record::number(std::process::id()),
        env!("CARGO_PKG_VERSION"),
        super::record::number(worker.concurrency),
        super::presence::presence_key(worker.id)
    )
    .execute(connection)
    .await?;
    Ok(())
}

use crate::fault::Fault;

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused, or could not be reached.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The migrations could not be applied.
    #[error("the migrations: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// Another process held the migrations for too long.
    #[error(
        "another process has been migrating for {seconds} s; look at pg_locks for advisory locks"
    )]
    MigrationsBusy {
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// The database belongs to another installation.
    #[error(
        "this database serves CHAT_PREFIX={theirs}, this worker has CHAT_PREFIX={ours}; one database serves one prefix"
    )]
    OtherPrefix {
        /// The database's prefix.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// A statement was not answered: the connection may be dead.
    #[error("the database does not answer")]
    NoAnswer,
    /// The worker's own session with the database is gone.
    #[error("the worker's own session with the database is gone")]
    SessionLost,
    /// A row holds what no worker writes.
    #[error("{table} of job {job}: {what}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// The job.
        job: String,
        /// What is wrong.
        what: String,
    },
    /// `DATABASE_URL` is not readable. The text may hold a password, so it is not shown.
    #[error(
        "DATABASE_URL is no Postgres URL; expected postgres://user:password@host:5432/database"
    )]
    Url,
}

impl StoreError {
    /// What may be done about it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Database(error) if is_passing(error) => Fault::Retry { after: None },
            Self::SessionLost | Self::NoAnswer => Fault::Retry { after: None },
            Self::Database(_)
            | Self::Migrate(_)
            | Self::MigrationsBusy { .. }
            | Self::OtherPrefix { .. }
            | Self::Damaged { .. }
            | Self::Url => Fault::Permanent,
        }
    }

    /// Whether the database refuses what it was given, so that it would refuse it again: values
    /// that it cannot hold (SQLSTATE classes 22, 23 and 54), or a row that no worker wrote. Whatever
    /// else it says (read-only after a failover, no disk, no connection) passes. So does a unique
    /// violation: somebody was first, and who looks again sees that.
    #[must_use]
    pub fn is_about_data(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default();
                !error.is_unique_violation()
                    && ["22", "23", "54"]
                        .iter()
                        .any(|class| code.starts_with(class))
            }
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }
            ),
            Self::Damaged { .. } => true,
            Self::Migrate(_)
            | Self::MigrationsBusy { .. }
            | Self::OtherPrefix { .. }
            | Self::SessionLost
            | Self::NoAnswer
            | Self::Url => false,
        }
    }

    /// Whether a unique constraint was in the way.
    pub(super) fn is_unique_violation(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.is_unique_violation(),
            Self::Database(_)
            | Self::Migrate(_)
            | Self::MigrationsBusy { .. }
            | Self::OtherPrefix { .. }
            | Self::SessionLost
            | Self::NoAnswer
            | Self::Damaged { .. }
            | Self::Url => false,
        }
    }
}

/// Whether the same statement may succeed a little later: the connection broke, the server starts
/// or stops, or two transactions were in each other's way (SQLSTATE classes of the `PostgreSQL`
/// manual, appendix A).
fn is_passing(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Database(error) = error {
        let code = error.code().unwrap_or_default();
        return ["08", "40", "53", "57P"]
            .iter()
            .any(|class| code.starts_with(class));
    }
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed
    )
}

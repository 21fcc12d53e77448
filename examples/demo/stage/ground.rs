use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokio::time::timeout;
use url::Url;

use super::Place;

const PATIENCE: Duration = Duration::from_secs(15);
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// A database and a prefix on the broker that belong to this run alone. [`Ground::close`] removes
/// both.
pub(crate) struct Ground {
    /// The database's name.
    pub(crate) database: String,
    /// The database's URL.
    pub(crate) database_url: String,
    /// First part of every queue's name.
    pub(crate) prefix: String,
    /// Connections to the database.
    pub(crate) pool: PgPool,
    /// A connection to the broker.
    pub(crate) broker: Connection,
    admin: PgConnectOptions,
    files: TempDir,
}

impl Ground {
    /// Creates the database `chat_<what>_<id>` and connects to both services.
    pub(crate) async fn open(place: &Place, what: &str) -> anyhow::Result<Self> {
        // Only for `amqps:`; installed already is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let id = format!("{:08x}", fastrand::u32(..));
        let broker = connect_broker(&place.amqp_url).await?;
        let database = format!("chat_{what}_{id}");
        let mut url = Url::parse(&place.database_url).context("DATABASE_URL is no URL")?;
        let admin = PgConnectOptions::from_url(&url).context("DATABASE_URL")?;
        create(&admin, &database).await?;
        url.set_path(&database);
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(admin.clone().database(&database));
        Ok(Self {
            database_url: url.to_string(),
            prefix: format!("{what}-{id}"),
            database,
            pool,
            broker,
            admin,
            files: tempfile::tempdir()?,
        })
    }

    /// A directory for files, removed at the end.
    pub(crate) fn directory(&self) -> &Path {
        self.files.path()
    }

    /// Host and port of the database, without its password.
    pub(crate) fn host(&self) -> String {
        match self.admin.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.admin.get_host(), self.admin.get_port()),
        }
    }

    /// A connection to another database of the same server.
    pub(crate) async fn connect_admin(&self) -> anyhow::Result<PgConnection> {
        Ok(self.admin.connect().await?)
    }

    /// The name of a queue or exchange.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.prefix)
    }

    /// Writes an `MCP_CONFIG` file.
    pub(crate) fn write_mcp_config(&self, servers: &serde_json::Value) -> anyhow::Result<String> {
        let path = self.directory().join("mcp.json");
        std::fs::write(&path, json!({ "mcpServers": servers }).to_string())?;
        Ok(path.display().to_string())
    }

    /// Drops the database, deletes the queues and exchanges, removes the files.
    ///
    /// # Errors
    /// What could not be removed.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let queues = self.delete_queues();
        let deleted = timeout(PATIENCE, queues)
            .await
            .map_err(|elapsed| anyhow!(elapsed));
        let dropped = timeout(PATIENCE, self.drop_database())
            .await
            .map_err(|elapsed| anyhow!(elapsed));
        deleted
            .flatten()
            .with_context(|| format!("the queues {}.* could not be deleted", self.prefix))?;
        dropped
            .flatten()
            .with_context(|| format!("the database {} could not be dropped", self.database))
    }

    async fn delete_queues(&self) -> anyhow::Result<()> {
        let channel = self.broker.create_channel().await?;
        for queue in ["jobs", "results", "jobs.dead", "control", "limit"] {
            let options = QueueDeleteOptions::default();
            channel
                .queue_delete(self.name(queue).into(), options)
                .await?;
        }
        for exchange in ["dlx", "events"] {
            let options = ExchangeDeleteOptions::default();
            channel
                .exchange_delete(self.name(exchange).into(), options)
                .await?;
        }
        Ok(self.broker.close(200, "bye".into()).await?)
    }

    async fn drop_database(&self) -> anyhow::Result<()> {
        self.pool.close().await;
        let mut connection = self.admin.connect().await?;
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await?;
        Ok(connection.close().await?)
    }
}

async fn connect_broker(url: &str) -> anyhow::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name("chat-stage".into());
    // The library's error quotes no URL, the parser's own would.
    match timeout(PATIENCE, Connection::connect(url, properties)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => bail!("AMQP_URL: RabbitMQ cannot be reached: {error}"),
        Err(_elapsed) => bail!("AMQP_URL: RabbitMQ does not answer"),
    }
}

async fn create(admin: &PgConnectOptions, database: &str) -> anyhow::Result<()> {
    let connected = timeout(PATIENCE, admin.connect()).await;
    let mut connection = connected
        .context("DATABASE_URL: PostgreSQL does not answer")?
        .context("DATABASE_URL: PostgreSQL cannot be reached")?;
    let sql = format!("CREATE DATABASE {database}");
    let created = sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await;
    if let Err(sqlx::Error::Database(error)) = &created
        && error.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE)
    {
        bail!(
            "the role \"{}\" of DATABASE_URL may not create databases, and this needs one of its own: \
             ALTER ROLE \"{}\" CREATEDB, or name a role that may",
            admin.get_username(),
            admin.get_username()
        );
    }
    created.with_context(|| format!("CREATE DATABASE {database}"))?;
    Ok(connection.close().await?)
}

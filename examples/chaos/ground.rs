//! What a run has for itself: a database, a prefix on the broker, files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use serde_json::json;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::time::timeout;
use url::Url;

use crate::arguments::Arguments;

/// How long a connection, or a statement on it, may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a worker that is told to stop lets jobs go on: less than many of them take.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// The servers are thrown away with all that is in them, so nothing of this is cleared up but the
/// files; and those stay if something was not as it should be.
pub(crate) struct Ground {
    /// Connections to the run's database.
    pub(crate) pool: PgPool,
    /// The first part of every queue's name.
    pub(crate) prefix: String,
    database_url: String,
    amqp_url: String,
    worker: PathBuf,
    tool_server: PathBuf,
    files: TempDir,
}

impl Ground {
    /// Creates the database and both queues for results.
    pub(crate) async fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let id = format!("chaos_{:08x}", fastrand::u32(..));
        let victims = &arguments.victims;
        let mut url = Url::parse(&victims.database_url).context("VICTIM_DATABASE_URL")?;
        let mut admin = PgConnection::connect(url.as_str()).await?;
        let create = format!("CREATE DATABASE {id}");
        admin.execute(AssertSqlSafe(create)).await?;
        admin.close().await?;
        url.set_path(&id);
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(PATIENCE)
            .connect_lazy(url.as_str())?;
        let ground = Self {
            pool,
            prefix: id.replace('_', "-"),
            database_url: url.to_string(),
            amqp_url: victims.amqp_url.clone(),
            worker: arguments.worker()?,
            tool_server: arguments.tool_server()?,
            files: tempfile::Builder::new().prefix("chat-chaos-").tempdir()?,
        };
        ground.declare_results().await?;
        Ok(ground)
    }

    /// The queue of jobs.
    pub(crate) fn jobs(&self) -> String {
        format!("{}.jobs", self.prefix)
    }

    /// The queues of results: the installation's, and one that jobs name.
    pub(crate) fn results(&self) -> [String; 2] {
        [format!("{}.results", self.prefix), self.replies()]
    }

    /// What jobs name as `reply_to`.
    pub(crate) fn replies(&self) -> String {
        format!("chat.reply.{}", self.prefix)
    }

    /// A connection to the broker and a channel with confirms.
    pub(crate) async fn connect(&self) -> anyhow::Result<(Connection, Channel)> {
        let properties = ConnectionProperties::default().with_connection_name("chaos".into());
        let opening = async {
            let connection = Connection::connect(&self.amqp_url, properties).await?;
            let channel = connection.create_channel().await?;
            let confirms = ConfirmSelectOptions::default();
            channel.confirm_select(confirms).await?;
            anyhow::Ok((connection, channel))
        };
        timeout(PATIENCE, opening).await?
    }

    /// Messages that wait in a queue.
    pub(crate) async fn waiting_in(&self, queue: &str) -> anyhow::Result<u32> {
        let (connection, channel) = self.connect().await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let looking = channel.queue_declare(queue.into(), passive, FieldTable::default());
        let count = timeout(PATIENCE, looking).await??.message_count();
        connection.close(200, "bye".into()).await?;
        Ok(count)
    }

    /// The worker's program.
    pub(crate) fn worker(&self) -> &Path {
        &self.worker
    }

    /// Where files are.
    pub(crate) fn directory(&self) -> &Path {
        self.files.path()
    }

    /// The file to which the tool servers add a line for each call.
    pub(crate) fn effects(&self) -> PathBuf {
        self.directory().join("effects")
    }

    /// Leaves the files where they are.
    pub(crate) fn keep_files(&mut self) -> &Path {
        self.files.disable_cleanup(true);
        self.files.path()
    }

    /// All that a worker finds in its environment.
    pub(crate) fn settings(&self, model_url: &str) -> anyhow::Result<BTreeMap<&str, String>> {
        let mut settings: BTreeMap<_, _> = [
            ("DATABASE_URL", self.database_url.clone()),
            ("AMQP_URL", self.amqp_url.clone()),
            ("CHAT_PREFIX", self.prefix.clone()),
            ("CHAT_HTTP_ADDR", "127.0.0.1:0".to_owned()),
            // Few, so that now and then all slots are taken and jobs are handed over.
            ("CHAT_CONCURRENCY", "5".to_owned()),
            ("CHAT_DB_CONNECTIONS", "5".to_owned()),
            ("CHAT_DRAIN_SECS", DRAIN.as_secs().to_string()),
            // More than the longest freeze, so that no answer is given up that has come.
            ("CHAT_MODEL_TIMEOUT_SECS", "60".to_owned()),
            ("OPENAI_BASE_URL", model_url.to_owned()),
            ("MCP_CONFIG", self.write_mcp_config()?),
            ("NO_COLOR", "1".to_owned()),
        ]
        .into();
        for name in ["PATH", "HOME"] {
            let value = chat_worker::config::environment(name);
            settings.insert(name, value.unwrap_or_default());
        }
        Ok(settings)
    }

    fn write_mcp_config(&self) -> anyhow::Result<String> {
        let env =
            json!({"CALC_EFFECTS": self.effects(), "CALC_LOG": self.directory().join("calc.log")});
        let calc = json!({"command": self.tool_server, "env": env, "required": true});
        let path = self.directory().join("mcp.json");
        std::fs::write(&path, json!({"mcpServers": {"calc": calc}}).to_string())?;
        Ok(path.display().to_string())
    }

    async fn declare_results(&self) -> anyhow::Result<()> {
        let (connection, channel) = self.connect().await?;
        let mut arguments = FieldTable::default();
        for (name, value) in [("x-queue-type", "quorum"), ("x-overflow", "reject-publish")] {
            arguments.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        for queue in self.results() {
            let durable = QueueDeclareOptions::durable();
            let declaring =
                channel.queue_declare(queue.as_str().into(), durable, arguments.clone());
            declaring.await.with_context(|| queue.clone())?;
        }
        Ok(connection.close(200, "bye".into()).await?)
    }
}

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chat_worker::config::environment;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::database::Database;
use crate::services;
use crate::stub_model::{Reply, Script, StubModel};

/// The model server's key. It must turn up nowhere.
pub(crate) const API_KEY: &str = "sk-it-0123456789-secret";

/// What an installation is like before it starts.
pub(crate) struct Setup {
    prefix: String,
    directory: TempDir,
    script: Option<Script>,
    settings: BTreeMap<String, String>,
    servers: Map<String, Value>,
    pub(super) replicas: usize,
    pub(super) unready: bool,
}

impl Setup {
    /// One worker without tools, and the model that adds two numbers.
    pub(crate) fn new() -> Self {
        Self {
            prefix: format!("it-{}", uuid::Uuid::new_v4().simple()),
            directory: tempfile::tempdir().expect("a directory"),
            script: Some(Script::arithmetic()),
            settings: BTreeMap::new(),
            servers: Map::new(),
            replicas: 1,
            unready: false,
        }
    }

    /// The model says these, one after the other.
    pub(crate) fn replies(self, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.script(Script::queue(replies))
    }

    /// The model answers each request so.
    pub(crate) fn model(self, reply: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        self.script(Script::closure(reply))
    }

    fn script(mut self, script: Script) -> Self {
        self.script = Some(script);
        self
    }

    /// A setting of the workers.
    pub(crate) fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Whether workers are told to panic.
    pub(super) fn may_panic(&self) -> bool {
        let trap = self.settings.get("CHAT_FAILPOINT");
        trap.is_some_and(|trap| trap.contains("=panic"))
    }

    /// So many workers.
    pub(crate) fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Workers need not be ready: a server of theirs will not start.
    pub(crate) fn unready(mut self) -> Self {
        self.unready = true;
        self
    }

    /// The tool server of `examples/calc_server.rs` as `calc`.
    pub(crate) fn calc(self) -> Self {
        self.calc_with(&json!({}))
    }

    /// The same with more in its entry of `MCP_CONFIG`.
    pub(crate) fn calc_with(self, more: &Value) -> Self {
        let mut entry = json!({
            "command": example("calc_server"),
            "env": {"CALC_LOG": self.file("calc.log"), "CALC_START_LOG": self.file("starts.log")},
        });
        for (name, value) in more.as_object().expect("an object") {
            entry[name] = value.clone();
        }
        self.server("calc", entry)
    }

    /// A tool server in `MCP_CONFIG`.
    pub(crate) fn server(mut self, name: &str, entry: Value) -> Self {
        self.servers.insert(name.to_owned(), entry);
        self
    }

    /// Has the workers know these models, in the TOML of `CHAT_MODEL_CONFIG`.
    pub(crate) fn models(self, toml: &str) -> Self {
        let path = self.file("models.toml");
        std::fs::write(&path, toml).expect("CHAT_MODEL_CONFIG");
        self.set("CHAT_MODEL_CONFIG", path)
    }

    /// The path of a file below this test's directory.
    pub(crate) fn file(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn start_model(&mut self) -> StubModel {
        StubModel::start(self.script.take().expect("one start"))
    }

    /// All that a worker finds in its environment.
    pub(super) fn settings(
        &self,
        database: &Database,
        model: &StubModel,
    ) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = [
            ("AMQP_URL", needed(services::BROKER)),
            ("DATABASE_URL", database.url()),
            ("CHAT_DB_CONNECTIONS", "3".to_owned()),
            ("CHAT_PREFIX", self.prefix.clone()),
            ("CHAT_HTTP_ADDR", "127.0.0.1:0".to_owned()),
            ("OPENAI_BASE_URL", model.base_url()),
            ("OPENAI_API_KEY", API_KEY.to_owned()),
            ("NO_COLOR", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for name in ["PATH", "HOME"] {
            all.insert(name.to_owned(), environment(name).unwrap_or_default());
        }
        if !self.servers.is_empty() {
            let path = self.directory().join("mcp.json");
            let text = json!({ "mcpServers": self.servers }).to_string();
            std::fs::write(&path, text).expect("MCP_CONFIG");
            all.insert("MCP_CONFIG".to_owned(), self.file("mcp.json"));
        }
        all.extend(self.settings.clone());
        all
    }
}

/// A variable that says where a service is.
pub(super) fn needed(name: &str) -> String {
    environment(name).expect(services::NEEDS)
}

/// The path of an example's program.
pub(crate) fn example(name: &str) -> String {
    let worker = Path::new(env!("CARGO_BIN_EXE_chat-worker"));
    let path: PathBuf = worker.with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --examples`",
        path.display()
    );
    path.to_str().expect("a path in UTF-8").to_owned()
}

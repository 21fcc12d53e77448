//! The settings: read once, from flags and the environment, checked all together.
//!
//! Every field of the `*Settings` structs is text, so that clap never stops at the first wrong
//! one; `parse` turns them into typed `*Config`s and notes each problem. Nothing else in the crate
//! reads the environment. May import the leaves only.

mod broker;
mod expand;
mod fields;
mod jobs;
mod model;
mod problems;
mod secret;
mod store;
mod telemetry;
mod tools;
mod worker;

pub use broker::{BrokerConfig, BrokerSettings};
pub use jobs::{JobsConfig, JobsSettings, OnIterationLimit};
pub use model::{
    Api, Azure, MaxTokensField, ModelConfig, ModelOption, ModelProfile, ModelSettings, Profiles,
    ProviderConfig,
};
pub use problems::Problems;
pub use secret::Secret;
pub use store::{StoreConfig, StoreSettings};
pub use telemetry::{LogFormat, TelemetryConfig, TelemetrySettings};
pub use tools::{
    AuthMethod, ClientKey, Elicitation, HostConfig, HttpConfig, INHERITED, Isolation, OauthConfig,
    OnInterrupt, PoolConfig, PrivateKey, Protocol, ProtocolEra, ServerConfig, SigningAlgorithm,
    StdioConfig, ToolsConfig, ToolsSettings, Transport,
};
pub use worker::{WorkerConfig, WorkerSettings};

/// Looks a variable of the environment up, for `${NAME}` in `MCP_CONFIG` and `CHAT_MODEL_CONFIG`.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
///
/// The one place where it is read apart from clap.
#[expect(
    clippy::disallowed_methods,
    reason = "the configuration is the one reader of the environment"
)]
#[must_use]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// All settings of a worker, as text.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    #[command(flatten)]
    broker: BrokerSettings,
    #[command(flatten)]
    store: StoreSettings,
    #[command(flatten)]
    model: ModelSettings,
    #[command(flatten)]
    tools: ToolsSettings,
    #[command(flatten)]
    jobs: JobsSettings,
    #[command(flatten)]
    worker: WorkerSettings,
    #[command(flatten)]
    telemetry: TelemetrySettings,
}

/// All settings of a worker, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The broker and the names on it.
    pub broker: BrokerConfig,
    /// The database.
    pub store: StoreConfig,
    /// The model server.
    pub model: ModelConfig,
    /// The tool servers.
    pub tools: ToolsConfig,
    /// Limits and texts of jobs.
    pub jobs: JobsConfig,
    /// The process itself.
    pub worker: WorkerConfig,
    /// Logs.
    pub telemetry: TelemetryConfig,
}

impl Settings {
    /// The settings checked.
    ///
    /// # Errors
    /// Every problem there is, in one go; no secret stands in the texts.
    pub fn parse(&self, lookup: Lookup<'_>) -> Result<Config, Problems> {
        let mut problems = Problems::default();
        let broker = self.broker.parse(&mut problems);
        let store = self.store.parse(&mut problems);
        let model = self.model.parse(lookup, &mut problems);
        let tools = self.tools.parse(lookup, &mut problems);
        let jobs = self.jobs.parse(&mut problems);
        let worker = self.worker.parse(&mut problems);
        let telemetry = self.telemetry.parse(&mut problems);
        problems.none_or(move || {
            Some(Config {
                broker: broker?,
                store: store?,
                model: model?,
                tools: tools?,
                jobs: jobs?,
                worker: worker?,
                telemetry: telemetry?,
            })
        })
    }
}

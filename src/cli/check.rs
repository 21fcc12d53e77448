use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::output::{self, Screen};
use super::text::one_line;
use super::{failure, init_quiet_logs, told_to_stop, tools};
use crate::broker::Publisher;
use crate::config::{
    BrokerConfig, Config, ModelConfig, Settings, StoreConfig, ToolsConfig, environment,
};
use crate::ids::JobId;
use crate::model::{Model, ModelError};
use crate::store::Store;
use crate::tools::{Selection, Toolbox};

/// How long each check may take.
const LIMIT: Duration = Duration::from_secs(15);

/// The arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    settings: Settings,
}

/// How one thing does.
struct Finding {
    what: String,
    found: Result<String, String>,
}

impl Finding {
    fn new(what: &str, found: Result<String, impl Display>) -> Self {
        let found = found.map_err(|error| error.to_string());
        Self {
            what: what.to_owned(),
            found,
        }
    }
}

/// Checks everything that the worker needs.
pub(super) async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = match args.settings.parse(&environment) {
        Ok(config) => config,
        Err(problems) => {
            let many = problems.list().len();
            let text = format!("{many} problem(s), listed below; nothing else was checked");
            print(&[Finding::new("configuration", Err(text))])?;
            return Err(problems.into());
        }
    };
    init_quiet_logs()?;
    let findings = Box::pin(findings(&config)).await;
    print(&findings)?;
    let failed = findings.iter().any(|finding| finding.found.is_err());
    Ok(ExitCode::from(u8::from(failed)))
}

async fn findings(config: &Config) -> Vec<Finding> {
    let (broker, store, models, tools) = futures_util::join!(
        within(broker(&config.broker)).boxed(),
        within(store(&config.store)).boxed(),
        models(&config.model).boxed(),
        tool_servers(&config.tools).boxed(),
    );
    let servers = config.tools.servers.len();
    let text = format!("prefix {}, {servers} tool server(s)", config.broker.prefix);
    let mut findings = vec![
        Finding::new("configuration", Ok::<_, String>(text)),
        Finding::new("broker", broker),
        Finding::new("database", store),
    ];
    findings.extend(models);
    findings.extend(tools);
    findings
}

async fn within(check: impl Future<Output = Result<String, String>>) -> Result<String, String> {
    timeout(LIMIT, check).await.unwrap_or_else(|_elapsed| {
        let seconds = LIMIT.as_secs();
        Err(format!(
            "no answer within {seconds} s; check the address and the firewalls on the way"
        ))
    })
}

async fn broker(config: &BrokerConfig) -> Result<String, String> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let connected = Publisher::connect(config, "chat-worker check", &tasks, stop.clone()).await;
    stop.cancel();
    tasks.close();
    connected.map_err(|error| error.to_string())?;
    tasks.wait().await;
    let prefix = &config.prefix;
    Ok(format!(
        "connected; {prefix}.jobs and the other queues are there"
    ))
}

async fn store(config: &StoreConfig) -> Result<String, String> {
    let store = Store::connect(config).await.map_err(|error| {
        format!("{error}; is Postgres running, and is DATABASE_URL right (host, user, password, database)?")
    })?;
    let checked = async {
        let version = store.ping().await.map_err(|error| error.to_string())?;
        // Reads every table that a job has rows in; nobody has this id.
        match store.find_shown(JobId(Uuid::nil())).await {
            Ok(_) => Ok(format!("{}, migrated", short_version(&version))),
            Err(error) if failure::lacks_schema(&error) => Err(
                "connected, but the schema is missing or old; run `chat-worker migrate`, or `chat-worker run`".to_owned(),
            ),
            Err(error) => Err(format!("{error}; may this user read the schema chat?")),
        }
    };
    let checked = checked.await;
    store.close().await;
    checked
}

/// `PostgreSQL 17.2` of `PostgreSQL 17.2 on x86_64-…, compiled by …`.
fn short_version(version: &str) -> String {
    let words: Vec<_> = version.split_whitespace().take(2).collect();
    words.join(" ")
}

/// A finding a model, the default one first.
async fn models(config: &ModelConfig) -> Vec<Finding> {
    let model = match Model::connect(config) {
        Ok(model) => model,
        Err(error) => return vec![Finding::new("model", Err::<String, _>(error))],
    };
    let default = config.default_model.as_str();
    let others = config.names().into_iter().filter(|name| *name != default);
    let found = std::iter::once(default).chain(others).map(async |name| {
        let what = if name == default {
            "model".to_owned()
        } else {
            format!("model {name}")
        };
        let check = async { model.check(name).await.map_err(|error| hint(&error)) };
        Finding::new(&what, within(check).await)
    });
    futures_util::future::join_all(found).await
}

/// What to do, where the error itself does not say.
fn hint(error: &ModelError) -> String {
    let server = "check OPENAI_BASE_URL, or the model's base_url in CHAT_MODEL_CONFIG";
    match error {
        // A wrong key is no matter of the address.
        ModelError::Auth(_) => error.to_string(),
        ModelError::Client(_)
        | ModelError::Rejected(_)
        | ModelError::Quota(_)
        | ModelError::ContextTooLong(_)
        | ModelError::ContentFiltered(_)
        | ModelError::Unavailable { .. }
        | ModelError::Protocol { .. }
        | ModelError::NotPermitted
        | ModelError::Deadline { .. } => format!("{error}; {server}"),
    }
}

/// A finding a server.
async fn tool_servers(config: &ToolsConfig) -> Vec<Finding> {
    if config.servers.is_empty() {
        let none =
            "no servers are configured (MCP_SERVER_PATH, MCP_CONFIG); jobs run without tools";
        return vec![Finding::new("tools", Ok::<_, String>(none.to_owned()))];
    }
    let tasks = TaskTracker::new();
    let toolbox = Toolbox::start(&tools::none_required(config), &tasks);
    let selection = Selection::default();
    // What came of it stands in the health, also of those that are not there in time.
    tokio::select! {
        _offered = timeout(LIMIT, toolbox.offer(&selection)) => {}
        () = told_to_stop() => {}
    }
    let health = toolbox.health();
    toolbox.shutdown().await;
    let found = health.iter().map(|server| {
        let found = match tools::reason(server) {
            None => Ok(format!("{} tool(s)", server.tools)),
            Some(reason) => Err(format!(
                "{reason}; check this server in MCP_CONFIG or MCP_SERVER_PATH"
            )),
        };
        Finding::new(&format!("tools {}", server.name), found)
    });
    found.collect()
}

fn print(findings: &[Finding]) -> std::io::Result<()> {
    let screen = Screen::stdout();
    let width = findings.iter().map(|finding| finding.what.len()).max();
    let width = width.unwrap_or(0);
    for finding in findings {
        let (mark, text) = match (&finding.found, screen.terminal) {
            (Ok(text), true) => (screen.style().green().apply_to("✓"), text),
            (Ok(text), false) => (screen.style().apply_to("ok    "), text),
            (Err(text), true) => (screen.style().red().bold().apply_to("✗"), text),
            (Err(text), false) => (screen.style().apply_to("FAILED"), text),
        };
        let what = &finding.what;
        output::line(&format!("{mark}  {what:width$}  {}", one_line(text)))?;
    }
    Ok(())
}

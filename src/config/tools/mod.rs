//! Which tool servers there are: the settings, and the file that they may name.

mod defaults;
mod file;
mod oauth;
mod remote;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{Lookup, Problems, Secret};
pub use defaults::INHERITED;
use defaults::{Defaults, inherited};
pub use oauth::{AuthMethod, ClientKey, OauthConfig, PrivateKey, SigningAlgorithm};
pub use remote::HttpConfig;

/// Which tool servers there are, as text.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Tools")]
pub struct ToolsSettings {
    /// One MCP server over stdio, named `default`: its path, and arguments after it
    #[arg(long, env = "MCP_SERVER_PATH", value_name = "COMMAND")]
    mcp_server_path: Option<String>,
    /// A JSON file of MCP servers in the format that MCP hosts share (`mcpServers`)
    #[arg(long, env = "MCP_CONFIG", value_name = "FILE")]
    mcp_config: Option<String>,
    /// Who shares a process where a server does not say: `call`, `shared`, `job` or `user`
    #[arg(
        long,
        env = "CHAT_POOL_ISOLATION",
        value_name = "ISOLATION",
        default_value = "call"
    )]
    chat_pool_isolation: String,
    /// Bytes of a tool's result that are stored, where a server does not say
    #[arg(
        long,
        env = "CHAT_MAX_TOOL_RESULT_BYTES",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    chat_max_tool_result_bytes: String,
    /// Bytes of a tool's result that the model sees: its head and its tail
    #[arg(
        long,
        env = "CHAT_TOOL_RESULT_MODEL_BYTES",
        value_name = "BYTES",
        default_value = "65536"
    )]
    chat_tool_result_model_bytes: String,
}

/// Which tool servers there are.
#[derive(Clone, Debug, Default)]
pub struct ToolsConfig {
    /// The servers, in the order of their names.
    pub servers: Vec<ServerConfig>,
    /// Bytes of a result that the model sees.
    pub model_result_bytes: usize,
    /// What the worker gives its child processes.
    pub host: HostConfig,
}

/// What the worker gives its child processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// The program that is started as the guard: it ends the tool servers if this process is killed.
    /// It must know the command `guard-tools`, as this project's own does. None: nothing is guarded.
    pub guard: Option<PathBuf>,
    /// Where each process gets a directory of its own.
    pub temp_dir: PathBuf,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            guard: None,
            temp_dir: PathBuf::from("/tmp"),
        }
    }
}

/// One tool server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Its name, as jobs and rows say it: 1 to 32 characters of `A-Za-z0-9_-`.
    pub name: String,
    /// Whether its tools carry its name in front: all but the server of `MCP_SERVER_PATH`.
    pub prefixed: bool,
    /// How it is reached.
    pub transport: Transport,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// Which revisions of the protocol are spoken with it.
    pub era: ProtocolEra,
    /// What it is answered where it wants to ask a person.
    pub elicitation: Elicitation,
    /// How its processes are pooled.
    pub pool: PoolConfig,
    /// How long a call may go without an answer and without progress.
    pub timeout: Duration,
    /// How long a call may take all in all, whatever progress it makes.
    pub max_timeout: Duration,
    /// How long a process may take to start and to list its tools.
    pub start_timeout: Duration,
    /// Whether jobs fail when it cannot be reached; otherwise they go on without its tools.
    pub required: bool,
    /// Bytes of a result that are stored.
    pub max_result_bytes: usize,
    /// Bytes of a result's images and documents that are stored, before they are base64.
    pub max_media_bytes: usize,
    /// Globs of the server's own tool names that are offered; empty: all.
    pub allow: Vec<String>,
    /// Globs of the server's own tool names that are not offered; wins over `allow`.
    pub deny: Vec<String>,
    /// Globs of the server's own tool names that are not called before a person says so.
    pub approval: Vec<String>,
    /// What becomes of a call whose worker died, where the tool itself does not say that it is safe to repeat.
    pub on_interrupt: OnInterrupt,
}

impl ServerConfig {
    /// The longest answer that is read, in bytes: what is longer fails its call. Room for a result
    /// that is cut then, as JSON, and for what it shows, as base64.
    #[must_use]
    pub fn max_answer_bytes(&self) -> usize {
        const LEAST: usize = 4 * 1024 * 1024;
        let text = self.max_result_bytes.saturating_mul(2).max(LEAST);
        let media = self.max_media_bytes.div_ceil(3).saturating_mul(4);
        text.saturating_add(media)
    }
}

/// How a tool server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A child process, over its standard input and output.
    Stdio(StdioConfig),
    /// Streamable HTTP.
    Http(HttpConfig),
}

/// How the child process of a tool server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StdioConfig {
    /// The program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The variables that it gets beside TMPDIR: PATH, HOME, LANG and TERM as this process has
    /// them, and its own, which win.
    pub env: BTreeMap<String, Secret>,
    /// The directory it is started in; a fresh one, which is removed at its end, where none is
    /// given.
    pub cwd: Option<PathBuf>,
}

/// What is spoken with a tool server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The Model Context Protocol.
    Mcp,
    /// Lines of JSON, as the web route that this program replaces spoke them.
    Line,
}

/// Which revisions of the Model Context Protocol are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolEra {
    /// Those that the server speaks.
    Auto,
    /// Those that begin with `initialize`, up to 2025-11-25.
    Legacy,
    /// Those without a beginning, since 2026-07-28.
    Modern,
}

/// What a server is answered that wants to ask a person (`elicitation/create`): there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elicitation {
    /// No.
    Decline,
    /// A form's own defaults, where these are all that it must have; else no.
    Defaults,
}

/// How a server's processes are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The most processes at once.
    pub size: usize,
    /// Who shares a process.
    pub isolation: Isolation,
    /// Calls after which a process is replaced.
    pub max_calls: Option<u64>,
    /// Age at which a process is replaced.
    pub max_age: Option<Duration>,
}

/// Who shares a process of a tool server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// One call at a time; reused by all users.
    Call,
    /// One process serves all calls at once, whatever the pool's size: for servers that are known
    /// to keep nothing between calls.
    Shared,
    /// One job; the process is ended with it.
    Job,
    /// One user, whose processes are kept from job to job. When there are too many, the one goes
    /// whose user has not called for longest.
    User,
}

/// What becomes of a call that was under way when its worker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInterrupt {
    /// It is made again.
    Retry,
    /// The model is told that its outcome is unknown.
    Tell,
    /// The job fails.
    Fail,
}

impl ToolsSettings {
    /// The settings checked; problems are noted.
    ///
    /// No server at all is allowed: jobs then run without tools.
    pub fn parse(&self, lookup: Lookup<'_>, problems: &mut Problems) -> Option<ToolsConfig> {
        let isolation = parse_isolation("CHAT_POOL_ISOLATION", &self.chat_pool_isolation, problems);
        let max_result_bytes = problems.number(
            "CHAT_MAX_TOOL_RESULT_BYTES",
            &self.chat_max_tool_result_bytes,
            LEAST_RESULT_BYTES,
            MOST_RESULT_BYTES,
        );
        let model_result_bytes = problems.number(
            "CHAT_TOOL_RESULT_MODEL_BYTES",
            &self.chat_tool_result_model_bytes,
            LEAST_RESULT_BYTES,
            MOST_RESULT_BYTES,
        );
        let defaults = Defaults {
            isolation: isolation.unwrap_or(Isolation::Call),
            max_result_bytes: max_result_bytes.unwrap_or(MOST_RESULT_BYTES),
            env: inherited(lookup),
        };
        let mut servers = Vec::new();
        if let Some(command) = given(self.mcp_server_path.as_ref()) {
            servers.extend(parse_path(command, &defaults, problems));
        }
        if let Some(path) = given(self.mcp_config.as_ref()) {
            servers.extend(file::parse(path, &defaults, lookup, problems));
            let taken = given(self.mcp_server_path.as_ref()).is_some();
            if taken
                && servers
                    .iter()
                    .any(|server| server.prefixed && server.name == DEFAULT_NAME)
            {
                problems.note(
                    "MCP_CONFIG",
                    "/mcpServers/default: this name is the server of MCP_SERVER_PATH; rename it, or unset MCP_SERVER_PATH",
                );
            }
        }
        servers.sort_by(|one, other| one.name.cmp(&other.name));
        isolation?;
        max_result_bytes?;
        let mut host = HostConfig::default();
        if let Some(temp_dir) = lookup("TMPDIR").filter(|path| !path.is_empty()) {
            host.temp_dir = temp_dir.into();
        }
        Some(ToolsConfig {
            servers,
            model_result_bytes: model_result_bytes?,
            host,
        })
    }
}

/// The name of the server of `MCP_SERVER_PATH`.
const DEFAULT_NAME: &str = "default";
/// Room for the mark of a cut, and a little more.
const LEAST_RESULT_BYTES: usize = 256;
const MOST_RESULT_BYTES: usize = 64 * 1024 * 1024;
fn given(setting: Option<&String>) -> Option<&str> {
    setting
        .map(|text| text.trim())
        .filter(|text| !text.is_empty())
}

fn parse_path(text: &str, defaults: &Defaults, problems: &mut Problems) -> Option<ServerConfig> {
    let mut words = match words::split(text) {
        Ok(words) => words.into_iter(),
        Err(what) => {
            problems.note("MCP_SERVER_PATH", what);
            return None;
        }
    };
    let transport = Transport::Stdio(StdioConfig {
        command: words.next()?,
        args: words.collect(),
        env: defaults.env.clone(),
        cwd: None,
    });
    let mut server = defaults.server(DEFAULT_NAME, transport);
    server.prefixed = false;
    Some(server)
}

/// Reads who shares a process.
fn parse_isolation(setting: &str, text: &str, problems: &mut Problems) -> Option<Isolation> {
    problems.choice(
        setting,
        text,
        &[
            ("call", Isolation::Call),
            ("shared", Isolation::Shared),
            ("job", Isolation::Job),
            ("user", Isolation::User),
        ],
    )
}

#[cfg(test)]
mod tests;

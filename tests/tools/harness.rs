//! What the tests share: servers from the examples, a toolbox that ends with its test, and waiting
//! for what happens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_worker::chat::ToolOutcome;
use chat_worker::clock::Deadline;
use chat_worker::config::{
    Elicitation, HostConfig, Isolation, OnInterrupt, PoolConfig, Protocol, ProtocolEra, Secret,
    ServerConfig, StdioConfig, ToolsConfig, Transport, environment,
};
use chat_worker::ids::{ConversationId, JobId, UserId};
use chat_worker::tools::{CallMeta, Invocation, Listener, Offer, Selection, ServerHealth, Toolbox};
use tokio_util::task::TaskTracker;

/// A server that is started with `command` and `args`, with patience for a busy machine.
pub(crate) fn server(name: &str, command: &str, args: &[&str]) -> ServerConfig {
    let path = environment("PATH").expect("a PATH");
    ServerConfig {
        name: name.to_owned(),
        prefixed: true,
        transport: Transport::Stdio(StdioConfig {
            command: command.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), Secret::new(path))]),
            cwd: None,
        }),
        protocol: Protocol::Mcp,
        era: ProtocolEra::Auto,
        elicitation: Elicitation::Decline,
        pool: PoolConfig {
            size: 4,
            isolation: Isolation::Call,
            max_calls: None,
            max_age: None,
        },
        timeout: Duration::from_mins(1),
        max_timeout: Duration::from_mins(10),
        start_timeout: Duration::from_secs(30),
        required: false,
        max_result_bytes: 1024 * 1024,
        max_media_bytes: 10 * 1024 * 1024,
        allow: Vec::new(),
        deny: Vec::new(),
        approval: Vec::new(),
        on_interrupt: OnInterrupt::Tell,
    }
}

/// The server of `examples/calc_server.rs` under the name `calc`.
pub(crate) fn calc() -> ServerConfig {
    server("calc", &example("calc_server"), &[])
}

/// `server` with one more variable in its environment.
pub(crate) fn with_env(mut server: ServerConfig, name: &str, value: &str) -> ServerConfig {
    let Transport::Stdio(stdio) = &mut server.transport else {
        panic!("{} is no child", server.name)
    };
    stdio.env.insert(name.to_owned(), Secret::new(value));
    server
}

/// The path of an example's program.
pub(crate) fn example(name: &str) -> String {
    let test = std::env::current_exe().expect("the path of this test");
    let path: PathBuf = test
        .parent()
        .expect("deps")
        .with_file_name("examples")
        .join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
        .with_extension("rs");
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    // A run of this test alone builds no examples; an old one would fail in strange ways.
    let fresh = path.exists() && changed(&path) >= changed(&source);
    assert!(
        fresh,
        "{} is not built or is old: run `cargo build --examples`",
        path.display()
    );
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// For whom a call is made.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) job: JobId,
    user: UserId,
}

impl Caller {
    pub(crate) fn new(job: u128, user: &str) -> Self {
        Self {
            job: JobId(uuid::Uuid::from_u128(job)),
            user: UserId::new(user).expect("a user id"),
        }
    }
}

impl Default for Caller {
    fn default() -> Self {
        Self::new(1, "user-42")
    }
}

/// A toolbox whose processes end with it.
pub(crate) struct Tools {
    pub(crate) toolbox: Toolbox,
    tasks: TaskTracker,
}

impl Tools {
    pub(crate) fn start(servers: impl IntoIterator<Item = ServerConfig>) -> Self {
        let servers = servers.into_iter().collect();
        let tasks = TaskTracker::new();
        let config = ToolsConfig {
            servers,
            model_result_bytes: 65_536,
            host: HostConfig {
                guard: Some(env!("CARGO_BIN_EXE_chat-worker").into()),
                ..HostConfig::default()
            },
        };
        Self {
            toolbox: Toolbox::start(&config, &tasks),
            tasks,
        }
    }

    /// All tools.
    pub(crate) async fn offer(&self) -> Arc<Offer> {
        self.toolbox
            .offer(&Selection::default())
            .await
            .expect("an offer")
    }

    pub(crate) async fn call(&self, tool: &str, arguments: &str) -> ToolOutcome {
        let offer = self.offer().await;
        self.call_of(&offer, tool, arguments).await
    }

    pub(crate) async fn call_of(&self, offer: &Offer, tool: &str, arguments: &str) -> ToolOutcome {
        self.call_within(offer, tool, arguments, Duration::from_mins(1))
            .await
    }

    pub(crate) async fn call_within(
        &self,
        offer: &Offer,
        tool: &str,
        arguments: &str,
        within: Duration,
    ) -> ToolOutcome {
        let by = Caller::default();
        self.call_by(&by, offer, (tool, arguments), within).await
    }

    /// Makes a call for a job and its user.
    pub(crate) async fn call_by(
        &self,
        by: &Caller,
        offer: &Offer,
        asked: (&str, &str),
        within: Duration,
    ) -> ToolOutcome {
        self.call_heard(by, offer, asked, within, None).await
    }

    /// The same, with somebody who is told how far the tool is.
    pub(crate) async fn call_heard(
        &self,
        by: &Caller,
        offer: &Offer,
        (tool, arguments): (&str, &str),
        within: Duration,
        listener: Option<Listener<'_>>,
    ) -> ToolOutcome {
        let meta = CallMeta {
            job_id: by.job,
            user_id: &by.user,
            conversation_id: ConversationId(uuid::Uuid::from_u128(2)),
            idempotency_key: "1/2/3",
        };
        let deadline = Deadline::after(within);
        let invocation = Invocation {
            tool,
            arguments,
            meta,
            deadline,
            listener,
        };
        self.toolbox.call(offer, &invocation).await
    }

    pub(crate) fn health(&self) -> ServerHealth {
        self.toolbox.health().swap_remove(0)
    }

    /// The process id that the server itself says.
    pub(crate) async fn pid(&self) -> i32 {
        let outcome = self.call("calc__pid", "").await;
        outcome
            .text
            .parse()
            .unwrap_or_else(|_| panic!("no process id: {outcome:?}"))
    }

    /// Ends everything; nothing may be left running.
    pub(crate) async fn end(self) {
        self.toolbox.shutdown().await;
        self.tasks.close();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await;
        assert!(
            ended.is_ok(),
            "{} tasks outlive the toolbox",
            self.tasks.len()
        );
        let left: usize = self
            .toolbox
            .health()
            .iter()
            .map(|server| server.processes)
            .sum();
        assert_eq!(left, 0, "processes outlive the toolbox");
    }
}

/// Waits until `look` sees what the test waits for.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "this never came: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A file that processes write lines to.
pub(crate) struct Lines(tempfile::NamedTempFile);

impl Lines {
    pub(crate) fn new() -> Self {
        Self(tempfile::NamedTempFile::new().expect("a file"))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.path().to_str().expect("a path in UTF-8")
    }

    pub(crate) fn read(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.path()).expect("the file");
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) async fn wait_for(&self, line: &str) {
        eventually(line, async || {
            self.read().iter().any(|found| found == line).then_some(())
        })
        .await;
    }
}

/// Whether a process of this id runs; one that only waits to be reaped does not.
pub(crate) fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    state.flatten().is_some_and(|state| state != 'Z')
}

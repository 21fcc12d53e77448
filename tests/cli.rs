//! The built program, as people and scripts run it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use chat_worker::broker::Publisher;
use chat_worker::config::{BrokerConfig, Secret, environment};
use futures_util::StreamExt as _;
use globset::GlobSet;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};
use sqlx::postgres::PgListener;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const LONG: Duration = Duration::from_mins(1);
/// Stands where passwords and keys do.
const SECRET: &str = "hunter2xyz";
const NEEDS: &str = "needs RabbitMQ and PostgreSQL: run `cargo xtask test`, or `eval \"$(cargo xtask env)\"` after `cargo xtask up`";

/// What a run of the program came to.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// All that it printed, with white space as single spaces.
    fn words(&self) -> String {
        let both = format!("{} {}", self.out, self.err);
        both.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Runs the program with these variables and no others, in a directory of its own.
async fn run_in(
    directory: &std::path::Path,
    args: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> Ran {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_chat-worker"));
    command.args(args).env_clear().current_dir(directory);
    command.envs(variables.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that does not read has closed it.
    stdin.write_all(input.as_bytes()).await.ok();
    drop(stdin);
    let ended = timeout(LONG, child.wait_with_output());
    let ended = ended.await.expect("it ends").unwrap();
    Ran {
        code: ended.status.code().expect("it ends by itself"),
        out: String::from_utf8(ended.stdout).unwrap(),
        err: String::from_utf8(ended.stderr).unwrap(),
    }
}

async fn run(args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    run_in(directory.path(), args, variables, "").await
}

#[tokio::test]
async fn help_shows_every_setting_with_its_default() {
    let help = run(&["run", "--help"], &[]).await;
    assert_eq!(help.code, 0);
    let words = help.words();
    for (setting, default) in [
        ("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"),
        ("CHAT_PREFIX", "chat"),
        (
            "CHAT_REPLY_TO_ALLOW",
            "amq.gen-*,amq.rabbitmq.reply-to.*,<prefix>.reply.*",
        ),
        ("DATABASE_URL", "postgres://"),
        ("DATABASE_DIRECT_URL", "the database URL"),
        ("CHAT_DB_CONNECTIONS", "10"),
        ("OPENAI_API_KEY", ""),
        ("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        ("OPENAI_ORG_ID", ""),
        ("OPENAI_PROJECT_ID", ""),
        ("OPENAI_HEADERS", ""),
        ("OPENAI_API_VERSION", ""),
        ("CHAT_MODEL_CONFIG", ""),
        ("CHAT_API", "auto"),
        ("CHAT_MODEL", "gpt-4o-mini"),
        ("CHAT_MODELS", ""),
        ("CHAT_MODEL_TIMEOUT_SECS", "120"),
        ("MCP_SERVER_PATH", ""),
        ("MCP_CONFIG", ""),
        ("CHAT_POOL_ISOLATION", "call"),
        ("CHAT_MAX_TOOL_RESULT_BYTES", "1048576"),
        (
            "CHAT_SYSTEM_PROMPT",
            "Eres un asistente MCP. Usa herramientas cuando sea pertinente. userId={user_id}",
        ),
        (
            "CHAT_UNFINISHED_REPLY",
            "No se pudo obtener respuesta final.",
        ),
        ("CHAT_ON_ITERATION_LIMIT", "reply"),
        ("CHAT_MAX_ITERATIONS", "3"),
        ("CHAT_MAX_ATTEMPTS", "5"),
        ("CHAT_MAX_JOB_BYTES", "1048576"),
        ("CHAT_CONTEXT_TOKENS", "0"),
        ("CHAT_COMPACT", "false"),
        ("CHAT_TRUST_AMQP_USER", "false"),
        ("CHAT_CONCURRENCY", "64"),
        ("CHAT_DRAIN_SECS", "25"),
        ("CHAT_HTTP_ADDR", "127.0.0.1:9464"),
        ("LOG_FORMAT", "text"),
        ("RUST_LOG", "info"),
    ] {
        assert!(words.contains(&format!("[env: {setting}")), "{setting}");
        let flag = format!("--{}", setting.to_lowercase().replace('_', "-"));
        let entry = words.split(&format!("{flag} <")).nth(1);
        let entry = entry.unwrap_or_else(|| panic!("no flag {flag}"));
        let entry = entry.split(" --").next().unwrap();
        assert!(
            default.is_empty()
                || entry.contains(&format!("[default: {default}"))
                || entry.contains(&format!("[default: \"{default}\"")),
            "{setting}: {entry}"
        );
    }
}

#[tokio::test]
async fn help_shows_no_secret_of_the_environment() {
    let url = format!("amqp://u:{SECRET}@h/%2f");
    let variables = [
        ("AMQP_URL", url.as_str()),
        ("DATABASE_URL", SECRET),
        ("DATABASE_DIRECT_URL", SECRET),
        ("OPENAI_API_KEY", SECRET),
        ("OPENAI_HEADERS", SECRET),
    ];
    for command in [
        "run",
        "check",
        "enqueue",
        "show",
        "migrate",
        "tools",
        "cancel",
        "approve",
        "deny",
        "dead list",
        "dead show",
        "dead replay",
        "dead drop",
    ] {
        let args: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = run(&args, &variables).await;
        assert_eq!(help.code, 0, "{command}");
        assert!(!help.words().contains(SECRET), "{command}");
    }
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_named_at_once_and_no_secret() {
    let (amqp, postgres) = (
        format!("http://u:{SECRET}@h"),
        format!("mysql://u:{SECRET}@h/x"),
    );
    let key = format!("{SECRET} é");
    let variables = [
        ("AMQP_URL", amqp.as_str()),
        ("DATABASE_URL", postgres.as_str()),
        ("OPENAI_API_KEY", key.as_str()),
        ("CHAT_MAX_ITERATIONS", "none"),
        ("CHAT_HTTP_ADDR", "here"),
        ("LOG_FORMAT", "xml"),
        ("MCP_CONFIG", "/nowhere.json"),
    ];
    for command in ["run", "check"] {
        let ran = run(&[command], &variables).await;
        assert_eq!(ran.code, 2, "{}", ran.err);
        for (setting, _) in variables {
            assert!(ran.err.contains(&format!("- {setting}: ")), "{}", ran.err);
        }
        assert!(!ran.words().contains(SECRET), "{}", ran.words());
    }
}

#[tokio::test]
async fn a_broken_dot_env_is_named_without_its_content() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(".env");
    std::fs::write(&file, format!("OK=1\nOPENAI_API_KEY='{SECRET}\n")).unwrap();
    let ran = run_in(directory.path(), &["schema", "job"], &[], "").await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains(".env: OPENAI_API_KEY"), "{}", ran.err);
    assert!(!ran.words().contains(SECRET), "{}", ran.words());
    std::fs::write(&file, "CHAT_MAX_ITERATIONS=zero\n").unwrap();
    let ran = run_in(directory.path(), &["run"], &[], "").await;
    assert!(ran.err.contains("CHAT_MAX_ITERATIONS"), "{}", ran.err);
}

#[tokio::test]
async fn wrong_usage_ends_with_two() {
    for args in [
        &["fly"][..],
        &[],
        &["enqueue"],
        &["enqueue", ""],
        &["enqueue", "--user", "two words", "hi"],
        &["enqueue", "--json", "hi"],
        &["enqueue", "--file", "/nowhere.jsonl"],
        &["enqueue", "--file", "a.jsonl", "hi"],
        &["enqueue", "--via", "pigeon", "hi"],
        &["enqueue", "--via", "sql", "--user", "two words", "hi"],
        &["show", "seven"],
        &["cancel"],
        &["cancel", "seven"],
        &["cancel", JOB, "--reason", &"x".repeat(1001)],
        &["approve", JOB],
        &["approve", "seven", "call_1"],
        &["deny", JOB, "call_1", "--by", &"x".repeat(1001)],
        &["deny", JOB, "call_1", "--reason", &"x".repeat(1001)],
        &["dead", "fly"],
        &["dead", "list", "--limit", "0"],
        &["dead", "show"],
        &["dead", "show", "0189"],
        &["dead", "replay"],
        &["dead", "replay", "--all", JOB],
        &["dead", "replay", "0189"],
        &["dead", "drop"],
        &["dead", "drop", "--all", JOB],
        &["dead", "drop", "--all", "--older-than", "1d"],
        &["dead", "drop", "--older-than", "1d", JOB],
        &["dead", "drop", "--older-than", "soon"],
        &["schema", "events"],
    ] {
        let ran = run(args, &[]).await;
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
    }
}

#[tokio::test]
async fn of_the_way_that_is_not_taken_no_setting_needs_to_be_right() {
    let variables = [("AMQP_URL", "http://h"), ("DATABASE_URL", "mysql://h/x")];
    for (via, named, other) in [
        ("amqp", "- AMQP_URL: ", "DATABASE_URL"),
        ("sql", "- DATABASE_URL: ", "AMQP_URL"),
    ] {
        let ran = run(&["enqueue", "--via", via, "hi"], &variables).await;
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains(named), "{}", ran.err);
        assert!(!ran.err.contains(other), "{}", ran.err);
    }
}

#[tokio::test]
async fn the_job_schema_takes_the_documented_job_and_no_unknown_field() {
    let ran = run(&["schema", "job"], &[]).await;
    let schema: Value = serde_json::from_str(&ran.out).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut job = json!({
        "version": 1,
        "job_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "conversation_id": "01890a5d-ac96-774b-bcce-b302099a8058",
        "user_id": "user-42",
        "messages": [{"role": "user", "content": "What is 20 plus 22?"}],
        "model": "gpt-4o-mini",
        "max_iterations": 3,
        "tools": {"servers": ["calc"], "allow": ["calc__*"], "deny": [], "choice": "auto"},
        "options": {"temperature": 0.2, "top_p": 1, "max_output_tokens": 800, "seed": 7, "stop": ["END"],
                    "reasoning_effort": "low", "parallel_tool_calls": true, "response_format": {"type": "json_object"}},
        "budget": {"total_tokens": 20000, "tool_calls": 50},
        "stream": false,
        "deadline": "2026-01-01T00:10:00Z",
        "on_busy": "enqueue",
        "metadata": {"ticket": 991}
    });
    assert!(validator.is_valid(&job), "{:?}", validator.validate(&job));
    job["user"] = "typo".into();
    assert!(!validator.is_valid(&job));
}

#[tokio::test]
async fn the_result_schema_takes_a_result() {
    let ran = run(&["schema", "result"], &[]).await;
    let schema: Value = serde_json::from_str(&ran.out).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut result = result_of(&Uuid::nil().to_string());
    assert!(validator.is_valid(&result));
    result["status"] = "maybe".into();
    assert!(!validator.is_valid(&result));
}

/// A server of the line dialect, in shell.
const LINE_SERVER: &str = r#"while read -r line; do printf '%s\n' '{"tools":[{"name":"add","description":"Adds.\nSlowly."}]}'; done"#;

#[tokio::test]
async fn tools_are_listed_though_another_server_fails() {
    let directory = tempfile::tempdir().unwrap();
    let servers = json!({"mcpServers": {
        "calc": {"command": "sh", "args": ["-c", LINE_SERVER], "protocol": "line"},
        "gone": {"command": "/nowhere/server", "required": true},
    }});
    std::fs::write(directory.path().join("mcp.json"), servers.to_string()).unwrap();
    let variables = [("MCP_CONFIG", "mcp.json"), ("PATH", "/usr/bin:/bin")];
    let ran = run_in(directory.path(), &["tools"], &variables, "").await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(
        ran.words()
            .starts_with("calc__add calc tell when cut Adds. note: the same processes serve all users here: calc (call)"),
        "{}",
        ran.words()
    );
    assert!(ran.err.contains("the tool server gone: "), "{}", ran.err);
    let ran = run_in(directory.path(), &["tools", "--json"], &variables, "").await;
    let listed: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(listed[0]["name"], "calc__add");
    assert_eq!(listed[0]["tool"], "add");
    assert_eq!(listed[0]["server"], "calc");
    assert_eq!(listed[0]["description"], "Adds.\nSlowly.");
    assert!(listed[0]["schema"].is_object());
}

#[tokio::test]
async fn check_says_of_each_thing_how_it_does() {
    let variables = [
        ("AMQP_URL", "amqp://u:hunter2xyz@127.0.0.1:9/%2f"),
        ("DATABASE_URL", "postgres://u:hunter2xyz@127.0.0.1:9/x"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1"),
        ("OPENAI_API_KEY", SECRET),
    ];
    let ran = run(&["check"], &variables).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    let starts = [
        "ok      configuration",
        "FAILED  broker",
        "FAILED  database",
        "FAILED  model",
        "ok      tools",
    ];
    for (line, start) in ran.out.lines().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    assert_eq!(ran.out.lines().count(), starts.len(), "{}", ran.out);
    assert!(!ran.words().contains(SECRET), "{}", ran.words());
}

/// A result as a worker would send it.
fn result_of(job: &str) -> Value {
    json!({
        "version": 1, "job_id": job, "conversation_id": Uuid::nil(), "user_id": "cli", "turn": 1,
        "success": true, "status": "completed", "finish_reason": "answered",
        "message": {"role": "assistant", "content": "The answer is 42"},
        "iterations": 2, "tool_calls": 1,
        "usage": {"input_tokens": 310, "cached_tokens": 0, "output_tokens": 24, "reasoning_tokens": 0, "total_tokens": 334},
        "model": "gpt-4o-mini-2024-07-18", "attempt": 1,
        "received_at": "2026-01-01T00:00:00Z", "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:01Z",
        "metadata": null,
    })
}

/// A prefix of its own on the broker; its queues are deleted at the end.
struct Ground {
    url: String,
    prefix: String,
    connection: Connection,
    channel: Channel,
}

impl Ground {
    async fn new() -> Self {
        let url = environment("AMQP_URL").expect(NEEDS);
        let connection = Connection::connect(&url, ConnectionProperties::default());
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let prefix = format!("test-{}", Uuid::new_v4());
        Self {
            url,
            prefix,
            connection,
            channel,
        }
    }

    async fn run(&self, args: &[&str], input: &str) -> Ran {
        let variables = [("AMQP_URL", &*self.url), ("CHAT_PREFIX", &*self.prefix)];
        let directory = tempfile::tempdir().unwrap();
        run_in(directory.path(), args, &variables, input).await
    }

    /// Declares what the program would: a consumer that comes while it does so may hit a queue
    /// that is not ready.
    async fn declare(&self) {
        let config = BrokerConfig {
            url: Secret::new(&self.url),
            prefix: self.prefix.clone(),
            reply_to_allow: GlobSet::empty(),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let publisher = Publisher::connect(&config, "test", &tasks, stop.clone()).await;
        publisher.unwrap();
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }

    async fn queue_exists(&self, name: &str) -> bool {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.connection.create_channel().await.unwrap();
        let name = format!("{}.{name}", self.prefix);
        let asked = channel.queue_declare(name.as_str().into(), options, FieldTable::default());
        asked.await.is_ok()
    }

    /// The next `many` jobs, in order; `answer` makes the result of each that wants one.
    async fn take(&self, many: usize, answer: impl Fn(&Value) -> Value) -> Vec<Delivery> {
        let queue = format!("{}.jobs", self.prefix);
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = self.channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            options,
            FieldTable::default(),
        );
        let mut consumer = consumer.await.unwrap();
        let mut jobs = Vec::new();
        while jobs.len() < many {
            let next = timeout(LONG, consumer.next()).await.expect("a job comes");
            let job = next.unwrap().unwrap();
            if let Some(reply_to) = job.properties.reply_to() {
                let body: Value = serde_json::from_slice(&job.data).unwrap();
                let mut body = answer(&body);
                body["job_id"] = job
                    .properties
                    .message_id()
                    .as_ref()
                    .unwrap()
                    .as_str()
                    .into();
                let body = body.to_string();
                let properties = BasicProperties::default()
                    .with_type("chat.result".into())
                    .with_correlation_id(job.properties.correlation_id().clone().unwrap());
                let sent = self.channel.basic_publish(
                    "".into(),
                    reply_to.clone(),
                    BasicPublishOptions::default(),
                    body.as_bytes(),
                    properties,
                );
                sent.await.unwrap();
            }
            jobs.push(job);
        }
        jobs
    }

    async fn end(self) {
        let channel = self.connection.create_channel().await.unwrap();
        for queue in ["jobs", "results", "jobs.dead", "control"] {
            let name = format!("{}.{queue}", self.prefix);
            let deleted = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default());
            deleted.await.unwrap();
        }
        for exchange in ["dlx", "events"] {
            let name = format!("{}.{exchange}", self.prefix);
            let deleted =
                channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default());
            deleted.await.unwrap();
        }
        self.connection.close(200, "done".into()).await.unwrap();
    }
}

fn completed(_job: &Value) -> Value {
    result_of("")
}

#[tokio::test]
async fn a_job_is_sent_as_documented_and_its_id_printed() {
    let ground = Ground::new().await;
    let args = [
        "enqueue",
        "--model",
        "m",
        "--system",
        "Be brief.",
        "Hi",
        "there",
    ];
    let ran = ground.run(&args, "").await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let jobs = ground.take(1, completed).await;
    let (properties, id) = (&jobs[0].properties, ran.out.trim());
    let text = |text: &Option<lapin::types::ShortString>| text.as_ref().unwrap().to_string();
    assert_eq!(text(properties.message_id()), id);
    assert_eq!(text(properties.kind()), "chat.job");
    assert_eq!(text(properties.content_type()), "application/json");
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert!(properties.timestamp().is_some());
    let body: Value = serde_json::from_slice(&jobs[0].data).unwrap();
    assert_eq!(
        body,
        json!({"version": 1, "job_id": id, "user_id": "cli", "model": "m", "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}]})
    );
    ground.end().await;
}

#[tokio::test]
async fn who_waits_gets_the_reply_alone_on_standard_output() {
    let ground = Ground::new().await;
    ground.declare().await;
    let (ran, _) = tokio::join!(
        ground.run(&["enqueue", "--wait", "-"], "What is it?"),
        ground.take(1, completed)
    );
    assert_eq!((ran.code, ran.out.as_str()), (0, "The answer is 42\n"));
    assert!(ran.err.contains("is sent"), "{}", ran.err);
    ground.end().await;
}

#[tokio::test]
async fn who_waits_for_a_job_that_fails_is_told_on_standard_error() {
    let ground = Ground::new().await;
    let failed = |_: &Value| {
        let mut result = result_of("");
        result["success"] = false.into();
        result["status"] = "failed".into();
        result["error"] = json!({"code": "model_auth", "message": "no\u{1b}[2Jkey"});
        result.as_object_mut().unwrap().remove("message");
        result
    };
    ground.declare().await;
    let (ran, _) = tokio::join!(
        ground.run(&["enqueue", "--wait", "hi"], ""),
        ground.take(1, failed)
    );
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(
        ran.err.contains("model_auth: no\\u{1b}[2Jkey"),
        "{}",
        ran.err
    );
    let ran = ground.run(&["enqueue", "--wait", "--timeout", "1", "hi"], "");
    let ran = ran.await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("chat-worker show"), "{}", ran.err);
    ground.end().await;
}

#[tokio::test]
async fn a_file_with_a_bad_line_sends_nothing() {
    let ground = Ground::new().await;
    let good = r#"{"user_id":"u","messages":[{"role":"user","content":"x"}]}"#;
    let bad = r#"{"user_id":"u","messages":[{"role":"user","content":7}]}"#;
    let file = format!("{good}\n\n{bad}\nnope\n{good}\n");
    let ran = ground.run(&["enqueue", "--file", "-"], &file).await;
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    let words = ran.words();
    assert!(
        words.contains("line 3: invalid_job: /messages/0/content"),
        "{words}"
    );
    assert!(words.contains("line 4: invalid_json"), "{words}");
    assert!(
        !ground.queue_exists("jobs").await,
        "it did not even connect"
    );
    ground.run(&["enqueue", "hi"], "").await;
    ground.end().await;
}

#[tokio::test]
async fn a_file_of_jobs_is_sent_in_its_order() {
    let ground = Ground::new().await;
    let lines: Vec<_> = (0..1000)
        .map(|number| {
            format!(r#"{{"user_id":"u{number}","messages":[{{"role":"user","content":"x"}}]}}"#)
        })
        .collect();
    let ran = ground
        .run(&["enqueue", "--file", "-"], &lines.join("\n"))
        .await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("1000 jobs sent"), "{}", ran.err);
    let jobs = ground.take(1000, completed).await;
    let sent: Vec<_> = jobs
        .iter()
        .map(|job| String::from_utf8_lossy(&job.data))
        .collect();
    assert_eq!(sent, lines);
    let ids = jobs
        .iter()
        .map(|job| job.properties.message_id().as_ref().unwrap().as_str());
    assert_eq!(ran.out.lines().collect::<Vec<_>>(), ids.collect::<Vec<_>>());
    ground.end().await;
}

#[tokio::test]
async fn results_of_a_file_come_as_lines_of_json() {
    let ground = Ground::new().await;
    let lines: Vec<_> = (0..150)
        .map(|number| {
            format!(r#"{{"user_id":"u{number}","messages":[{{"role":"user","content":"x"}}]}}"#)
        })
        .collect();
    let file = lines.join("\n");
    let echo = |job: &Value| {
        let mut result = result_of("");
        result["user_id"] = job["user_id"].clone();
        result
    };
    ground.declare().await;
    let (ran, _) = tokio::join!(
        ground.run(&["enqueue", "--file", "-", "--wait"], &file),
        ground.take(150, echo)
    );
    assert_eq!(ran.code, 0, "{}", ran.err);
    let results = ran
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let users: HashMap<_, _> = results
        .map(|result| (result["user_id"].to_string(), result["status"].clone()))
        .collect();
    assert_eq!(users.len(), 150);
    ground.end().await;
}

/// A database of its own, dropped at the end.
struct Database {
    admin: sqlx::PgPool,
    name: String,
    url: String,
}

impl Database {
    async fn new() -> Self {
        let url = environment("DATABASE_URL").expect(NEEDS);
        let admin = sqlx::PgPool::connect(&url).await.unwrap();
        let name = format!("cli_{}", Uuid::new_v4().simple());
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&admin)
            .await
            .unwrap();
        let mut url = url::Url::parse(&url).unwrap();
        url.set_path(&name);
        let url = url.to_string();
        Self { admin, name, url }
    }

    async fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "").await
    }

    async fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let directory = tempfile::tempdir().unwrap();
        run_in(
            directory.path(),
            args,
            &[("DATABASE_URL", &self.url)],
            input,
        )
        .await
    }

    async fn end(self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let dropped = sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&self.admin);
        dropped.await.unwrap();
    }
}

const JOB: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
/// A job with one round and one call, whose texts try to act on the terminal.
const ROWS: &str = r#"
    INSERT INTO chat.conversations (id, user_id) VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 'user-42');
    INSERT INTO chat.jobs (id, conversation_id, turn, user_id, status, attempt, request, request_hash, model, finish_reason,
            reply, input_tokens, output_tokens, received_at, started_at, finished_at)
        VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', '01890a5d-ac96-774b-bcce-b302099a8057', 1, 'user-42', 'completed', 1, '{}', '',
            'gpt-4o-mini', 'answered', E'It is\n42\x1b[31m', 310, 24,
            '2026-01-01 00:00:00Z', '2026-01-01 00:00:00.5Z', '2026-01-01 00:00:03Z');
    INSERT INTO chat.iterations (job_id, number, attempt, model, message, finish_reason, input_tokens, output_tokens, started_at, finished_at)
        VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 1, 1, 'gpt-4o-mini', '{}', 'tool_calls', 150, 12,
            '2026-01-01 00:00:00.5Z', '2026-01-01 00:00:01.7Z');
    INSERT INTO chat.tool_calls (job_id, iteration, position, call_id, offered_as, server, tool, arguments, status, result, attempt, started_at, finished_at)
        VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 1, 1, 'c1', 'calc__add', 'calc', 'add', '{"a": 20, "b": 22.000000000000000000001}',
            'succeeded', E'42\x1b[2J␛0000', 1, '2026-01-01 00:00:01.71Z', '2026-01-01 00:00:01.75Z');
"#;

#[tokio::test]
async fn show_says_what_to_do_until_there_is_a_job_to_show() {
    let database = Database::new().await;
    let ran = database.run(&["show", JOB]).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("chat-worker migrate"), "{}", ran.err);
    for _twice in 0..2 {
        let ran = database.run(&["migrate"]).await;
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (0, "the schema is up to date\n"),
            "{}",
            ran.err
        );
    }
    let ran = database.run(&["show", JOB]).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(
        ran.err.contains(&format!("there is no job {JOB}")),
        "{}",
        ran.err
    );
    database.end().await;
}

#[tokio::test]
async fn show_draws_the_run_and_nothing_acts_on_the_terminal() {
    let database = Database::new().await;
    database.run(&["migrate"]).await;
    let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
    sqlx::raw_sql(ROWS).execute(&pool).await.unwrap();
    let ran = database.run(&["show", JOB]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r#"
    job 01890a5d-ac96-774b-bcce-b302099a8057  completed (answered)
      user          user-42
      conversation  01890a5d-ac96-774b-bcce-b302099a8057, turn 1
      model         gpt-4o-mini
      received      2026-01-01 00:00:00.000 UTC
      started       2026-01-01 00:00:00.500 UTC  after 500 ms
      finished      2026-01-01 00:00:03.000 UTC  in 2.50 s
      result        not published yet
      attempt       1
      tokens        310 in, 24 out

             +0 ms       1.20 s  model gpt-4o-mini  150 in, 12 out, tool_calls
           +1.21 s        40 ms  tool  calc/add  succeeded  {"a": 20, "b": 22.000000000000000000001} → 42\u{1b}[2J\u{0}

    reply
      It is
      42\u{1b}[31m
    "#);
    let ran = database.run(&["show", "--json", JOB]).await;
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    let call = &shown["iterations"][0]["tool_calls"][0];
    assert_eq!(call["arguments"]["a"], 20);
    assert!(ran.out.contains("22.000000000000000000001"), "{}", ran.out);
    assert_eq!(call["result"], "42\u{1b}[2J\0");
    pool.close().await;
    database.end().await;
}

/// A migrated database, and whoever ends the jobs that are handed in there.
struct Ending {
    pool: sqlx::PgPool,
    listener: PgListener,
}

impl Ending {
    async fn at(database: &Database) -> Self {
        let ran = database.run(&["migrate"]).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
        let mut listener = PgListener::connect_with(&pool).await.unwrap();
        listener.listen("chat_worker").await.unwrap();
        Self { pool, listener }
    }

    /// Ends jobs as `columns` say, until `many` have come.
    async fn end_jobs(&mut self, many: u64, columns: &'static str) {
        let update = format!(
            "UPDATE chat.jobs SET attempt = 1, wait_reason = NULL, finished_at = now(), {columns}
            WHERE finished_at IS NULL"
        );
        let mut ended = 0;
        while ended < many {
            let told = timeout(LONG, self.listener.recv());
            told.await.expect("a job comes").unwrap();
            let updated = sqlx::query(sqlx::AssertSqlSafe(update.clone())).execute(&self.pool);
            ended += updated.await.unwrap().rows_affected();
        }
    }
}

#[tokio::test]
async fn a_job_that_is_sent_over_sql_stands_in_the_table_and_its_id_is_printed() {
    let database = Database::new().await;
    let Ending { pool, .. } = Ending::at(&database).await;
    let args = [
        "enqueue",
        "--via",
        "sql",
        "--user",
        "user-42",
        "--system",
        "Be brief.",
        "Hi",
        "there",
    ];
    let ran = database.run(&args).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let row: (Uuid, String, String, String, Value) = sqlx::query_as(
        "SELECT id, status::text, wait_reason::text, user_id, request::text::jsonb FROM chat.jobs",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let id = row.0.to_string();
    assert_eq!(ran.out.trim(), id);
    assert_eq!(
        (row.1.as_str(), row.2.as_str(), row.3.as_str()),
        ("waiting", "enqueued", "user-42")
    );
    assert_eq!(
        row.4,
        json!({"version": 1, "job_id": id, "user_id": "user-42", "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}]})
    );
    database.end().await;
}

#[tokio::test]
async fn what_the_database_refuses_is_said_as_it_says_it() {
    let database = Database::new().await;
    let ran = database.run(&["enqueue", "--via", "sql", "hi"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("chat-worker migrate"), "{}", ran.err);
    database.run(&["migrate"]).await;
    let sent = async |text: &str| {
        database
            .run(&["enqueue", "--via", "sql", "--job-id", JOB, text])
            .await
    };
    for _twice in 0..2 {
        let ran = sent("hi").await;
        assert_eq!((ran.code, ran.out.trim()), (0, JOB), "{}", ran.err);
    }
    let ran = sent("ho").await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let said = "error: job_id_conflict: this job_id was used before with other content\n";
    assert_eq!(ran.err, said);
    let ran = database
        .run_with(&["enqueue", "--via", "sql", "-"], "a\0b")
        .await;
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("jsonb holds no NUL"), "{}", ran.err);
    database.end().await;
}

#[tokio::test]
async fn who_waits_over_sql_is_told_what_the_row_says() {
    let database = Database::new().await;
    let mut ending = Ending::at(&database).await;
    let args = ["enqueue", "--via", "sql", "--wait", "What is it?"];
    let completed = "status = 'completed', finish_reason = 'answered', reply = 'It is ␛241b 42'";
    let (ran, ()) = tokio::join!(database.run(&args), ending.end_jobs(1, completed));
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "It is ␛ 42\n"),
        "{}",
        ran.err
    );
    let args = ["enqueue", "--via", "sql", "--wait", "--json", "hi"];
    let failed = "status = 'failed', error_code = 'model_auth', error_message = 'no key'";
    let (ran, ()) = tokio::join!(database.run(&args), ending.end_jobs(1, failed));
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("is failed: model_auth: no key"),
        "{}",
        ran.err
    );
    let result: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(result["error"]["code"], "model_auth");
    let args = ["enqueue", "--via", "sql", "--wait", "--timeout", "1", "hi"];
    let ran = database.run(&args).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("no result within 1 s"), "{}", ran.err);
    assert!(ran.err.contains("chat-worker show"), "{}", ran.err);
    database.end().await;
}

/// Lines of jobs, each of a user of its own.
fn lines_of_jobs(many: usize) -> Vec<String> {
    let line = |number| {
        format!(r#"{{"user_id":"u{number}","messages":[{{"role":"user","content":"x"}}]}}"#)
    };
    (0..many).map(line).collect()
}

#[tokio::test]
async fn a_file_over_sql_is_sent_in_its_order_and_no_further_than_to_what_is_refused() {
    let database = Database::new().await;
    let Ending { pool, .. } = Ending::at(&database).await;
    let ids = async || {
        let ids = sqlx::query_scalar::<_, Uuid>("SELECT id FROM chat.jobs ORDER BY due_at");
        let ids = ids.fetch_all(&pool).await.unwrap();
        ids.iter().map(Uuid::to_string).collect::<Vec<_>>()
    };
    let args = ["enqueue", "--via", "sql", "--file", "-"];
    let mut lines = lines_of_jobs(250);
    let ran = database.run_with(&args, &lines.join("\n")).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("250 jobs sent"), "{}", ran.err);
    assert_eq!(ran.out.lines().collect::<Vec<_>>(), ids().await);

    let taken = format!(r#""job_id":"{}","messages""#, ids().await[0]);
    lines[120] = lines[120].replace(r#""messages""#, &taken);
    let ran = database.run_with(&args, &lines.join("\n")).await;
    assert_eq!((ran.code, ran.out.lines().count()), (1, 100));
    assert!(
        ran.err
            .contains("100 of 250 jobs are stored; jobs with a job_id can be sent again: line 121: job_id_conflict: "),
        "{}",
        ran.err
    );
    assert_eq!(ids().await.len(), 350);

    lines[7] = lines[7].replace('x', r"\ud800");
    let ran = database.run_with(&args, &lines.join("\n")).await;
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(
        ran.err.contains("line 8: jsonb holds no NUL"),
        "{}",
        ran.err
    );
    assert_eq!(ids().await.len(), 350);
    database.end().await;
}

#[tokio::test]
async fn results_of_a_file_over_sql_come_as_lines_of_json() {
    let database = Database::new().await;
    let mut ending = Ending::at(&database).await;
    let args = ["enqueue", "--via", "sql", "--file", "-", "--wait"];
    let file = lines_of_jobs(150).join("\n");
    let completed = "status = 'completed', finish_reason = 'answered', reply = user_id";
    let (ran, ()) = tokio::join!(
        database.run_with(&args, &file),
        ending.end_jobs(150, completed)
    );
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.err.contains("150 results, 0 of jobs that failed"),
        "{}",
        ran.err
    );
    let mut users: Vec<_> = ran
        .out
        .lines()
        .map(|line| {
            let result: Value = serde_json::from_str(line).unwrap();
            assert_eq!(result["message"]["content"], result["user_id"]);
            result["user_id"].to_string()
        })
        .collect();
    users.sort();
    users.dedup();
    assert_eq!(users.len(), 150);
    database.end().await;
}

//! A small tool server over stdio for tests and demonstrations: sums, and everything that can go
//! wrong with a tool.
//!
//! Settings, all optional, from the environment: `CALC_LOG` (the file that `append` writes to and
//! where calls that sleep, are cancelled or end the server leave a line), `CALC_START_LOG` (gets a
//! line with the process id at each start), `CALC_EFFECTS` (gets a line at each call: the time in
//! microseconds, the tool, the idempotency key), `CALC_REFUSE` (as long as this file exists, the
//! server ends at once with an error), `CALC_ERA=modern` (no `initialize`, only `server/discover`).

use std::borrow::Cow;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    Implementation, JsonObject, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam,
    ProtocolVersion, ServerCapabilities, ServerConfig, SubscriptionFilter, Tool, ToolAnnotations,
    ToolListChangedNotification,
};
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use rmcp::{ServerHandler, ServiceExt as _};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(path) = setting("CALC_START_LOG") {
        append_line(&path, &std::process::id().to_string())?;
    }
    if setting("CALC_REFUSE").is_some_and(|path| std::path::Path::new(&path).exists()) {
        return Err("calc is told to refuse to start".into());
    }
    let service = Calc::default()
        .serve(rmcp::transport::stdio_pipes())
        .await?;
    service.waiting().await?;
    Ok(())
}

/// What was learnt since the start.
#[derive(Default)]
struct Calc {
    /// Tools, by name.
    learnt: Mutex<Vec<String>>,
    /// Texts, whoever's they are.
    remembered: Mutex<Vec<String>>,
    /// Told of each.
    more: Notify,
}

impl ServerHandler for Calc {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("calc", "1"))
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        if setting("CALC_ERA").as_deref() == Some("modern") {
            Cow::Borrowed(&[ProtocolVersion::V_2026_07_28])
        } else {
            Cow::Borrowed(ProtocolVersion::KNOWN_VERSIONS)
        }
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut tools = tools();
        let learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        tools.extend(
            learnt
                .iter()
                .map(|name| tool(name, "Learnt since the start", &json!({}))),
        );
        Ok(ListToolsResult::with_all_items(tools))
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    /// Since the revision of 2026-07-28 changes are told to who listens.
    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        loop {
            tokio::select! {
                () = self.more.notified() => {
                    let changed = ToolListChangedNotification::default();
                    context.sink().send(changed.into()).await.ok();
                }
                () = context.cancelled() => return Ok(()),
            }
        }
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if let Some(path) = setting("CALC_EFFECTS") {
            note_effect(&path, &request.name, &context).map_err(|error| {
                ErrorData::internal_error(format!("CALC_EFFECTS: {error}"), None)
            })?;
        }
        let arguments = request.arguments.unwrap_or_default();
        let result = match request.name.as_ref() {
            "add" => said(number(&arguments, "a") + number(&arguments, "b")),
            "multiply" => said(number(&arguments, "a") * number(&arguments, "b")),
            "fail" => CallToolResult::error(vec![ContentBlock::text("it failed, as it should")]),
            "sleep" | "doze" => sleep(&arguments, &context).await,
            "big" => said("x".repeat(whole(&arguments, "bytes"))),
            "die" => die(),
            "revenge" => revenge(),
            "append" => append(&arguments),
            "echo_meta" => said(json!(context.meta)),
            "pid" => said(std::process::id()),
            "env" => said(names_of_variables()),
            "orphan" => orphan(),
            "remember" => {
                let mut texts = self
                    .remembered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                texts.push(text(&arguments, "text"));
                said(texts.join(" "))
            }
            "learn" => {
                let name = text(&arguments, "name");
                self.learnt
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(name);
                // The list is read again anyway when the next process starts.
                context.peer.notify_tool_list_changed().await.ok();
                self.more.notify_waiters();
                said("learnt")
            }
            other => return Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        };
        Ok(result.into())
    }
}

fn tools() -> Vec<Tool> {
    let sum = json!({"a": {"type": "number"}, "b": {"type": "number"}});
    let safe = || ToolAnnotations::new().read_only(true).idempotent(true);
    vec![
        tool("add", "Adds two numbers", &sum).annotate(safe()),
        tool("multiply", "Multiplies two numbers", &sum).annotate(safe()),
        tool("fail", "Always fails", &json!({})),
        optional(
            "sleep",
            "Takes its time, and says how far it is after each of so many steps",
            &json!({"ms": {"type": "integer"}, "steps": {"type": "integer"}}),
        ),
        tool(
            "doze",
            "Takes its time, and may be called again",
            &json!({"ms": {"type": "integer"}}),
        )
        .annotate(ToolAnnotations::new().idempotent(true)),
        tool(
            "revenge",
            "Kills the process that started the server, and may be called again",
            &json!({}),
        )
        .annotate(ToolAnnotations::new().idempotent(true)),
        tool("big", "Says a lot", &json!({"bytes": {"type": "integer"}})),
        tool("die", "Ends the server during the call", &json!({})),
        optional(
            "append",
            "Appends a line to CALC_LOG",
            &json!({"line": {"type": "string"}}),
        ),
        tool("echo_meta", "Says the call's _meta", &json!({})),
        tool("pid", "Says the server's process id", &json!({})),
        tool(
            "env",
            "Says the names of the server's variables",
            &json!({}),
        ),
        tool(
            "orphan",
            "Starts a process that holds the server's pipes, and ends",
            &json!({}),
        ),
        tool(
            "remember",
            "Remembers a text, and says all that it was told since its start",
            &json!({"text": {"type": "string"}}),
        ),
        tool(
            "learn",
            "Learns a tool of this name",
            &json!({"name": {"type": "string"}}),
        ),
    ]
}

/// A tool that needs all of `properties`.
fn tool(name: &str, description: &str, properties: &Value) -> Tool {
    let required: Vec<_> = properties
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    let schema = json!({"type": "object", "properties": properties, "required": required});
    Tool::new(name.to_owned(), description.to_owned(), object(schema))
}

fn optional(name: &str, description: &str, properties: &Value) -> Tool {
    let schema = json!({"type": "object", "properties": properties});
    Tool::new(name.to_owned(), description.to_owned(), object(schema))
}

fn object(value: Value) -> JsonObject {
    if let Value::Object(object) = value {
        object
    } else {
        JsonObject::new()
    }
}

fn said(text: impl Display) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text.to_string())])
}

async fn sleep(arguments: &JsonObject, context: &RequestContext<RoleServer>) -> CallToolResult {
    let ms = u64::try_from(whole(arguments, "ms")).unwrap_or(u64::MAX);
    let steps = u32::try_from(whole(arguments, "steps")).unwrap_or(u32::MAX);
    note("sleeping");
    let sleeps = async {
        let step = Duration::from_millis(ms) / steps.max(1);
        for number in 1..=steps.max(1) {
            tokio::time::sleep(step).await;
            if steps > 0 {
                tell(number, steps, context).await;
            }
        }
    };
    tokio::select! {
        () = sleeps => said(format!("slept {ms} ms")),
        () = context.ct.cancelled() => {
            note("cancelled");
            said("cancelled")
        }
    }
}

/// Says how far a call is, to who asked to be told.
async fn tell(number: u32, steps: u32, context: &RequestContext<RoleServer>) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    let progress = ProgressNotificationParam::new(token, f64::from(number))
        .with_total(f64::from(steps))
        .with_message(format!("step {number}"));
    context.peer.notify_progress(progress).await.ok();
}

#[expect(
    clippy::disallowed_methods,
    reason = "to end in the middle of a call is this tool's purpose"
)]
fn die() -> CallToolResult {
    note("died");
    std::process::exit(7)
}

fn revenge() -> CallToolResult {
    use rustix::process::{Signal, getppid, kill_process};
    match getppid().map(|parent| kill_process(parent, Signal::KILL)) {
        Some(Ok(())) => said("killed"),
        failed => CallToolResult::error(vec![ContentBlock::text(format!("{failed:?}"))]),
    }
}

/// Leaves a process behind that keeps the pipes open, as a shell around a server may.
fn orphan() -> CallToolResult {
    match std::process::Command::new("sleep").arg("600").spawn() {
        Ok(child) => {
            note(&child.id().to_string());
            die()
        }
        Err(error) => CallToolResult::error(vec![ContentBlock::text(error.to_string())]),
    }
}

fn append(arguments: &JsonObject) -> CallToolResult {
    let Some(path) = setting("CALC_LOG") else {
        return CallToolResult::error(vec![ContentBlock::text("CALC_LOG is not set")]);
    };
    match append_line(&path, &text(arguments, "line")) {
        Ok(()) => said("appended"),
        Err(error) => CallToolResult::error(vec![ContentBlock::text(error.to_string())]),
    }
}

/// Leaves a line in `CALC_LOG`, if there is one.
fn note(line: &str) {
    if let Some(path) = setting("CALC_LOG") {
        append_line(&path, line).ok();
    }
}

/// Before anything of the call is done, so that no call is missed.
#[expect(
    clippy::disallowed_methods,
    reason = "a program of its own, with a clock of its own"
)]
fn note_effect(
    path: &str,
    tool: &str,
    context: &RequestContext<RoleServer>,
) -> std::io::Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = now.unwrap_or_default().as_micros();
    let meta = json!(context.meta);
    let key = meta.get("chat-worker/idempotencyKey");
    let key = key.and_then(Value::as_str);
    append_line(path, &format!("{micros} {tool} {}", key.unwrap_or("none")))
}

/// One write, so that lines of several processes do not mix.
fn append_line(path: &str, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

fn number(arguments: &JsonObject, name: &str) -> f64 {
    arguments
        .get(name)
        .and_then(Value::as_f64)
        .unwrap_or(f64::NAN)
}

fn whole(arguments: &JsonObject, name: &str) -> usize {
    let number = arguments.get(name).and_then(Value::as_u64);
    number
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or(0)
}

fn text(arguments: &JsonObject, name: &str) -> String {
    arguments
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program of its own, with settings of its own"
)]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "to say what it can see is this tool's purpose"
)]
fn names_of_variables() -> String {
    let mut names: Vec<_> = std::env::vars().map(|(name, _)| name).collect();
    names.sort();
    names.join(" ")
}

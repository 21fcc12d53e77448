//! The client that the public conformance suite of the Model Context Protocol drives: the worker's
//! own toolbox, configured as by `MCP_CONFIG`, against the server whose address is the last argument.
//!
//! It lists the server's tools and calls what `MCP_CONFORMANCE_CONTEXT` names, or else every tool
//! once with arguments made from its schema. The suite's server judges what it sees.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use chat_worker::clock::Deadline;
use chat_worker::config::{Problems, ToolsConfig, ToolsSettings, environment};
use chat_worker::ids::{ConversationId, JobId, UserId};
use chat_worker::tools::{CallMeta, Invocation, Offer, Selection, ServerState, Toolbox};
use clap::Parser as _;
use serde_json::{Map, Value, json};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// The suite kills its shell after 30 s and not what the shell has started.
const LIMIT: Duration = Duration::from_secs(25);

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    tools: ToolsSettings,
    /// The server's address
    url: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let context = environment("MCP_CONFORMANCE_CONTEXT").filter(|text| !text.is_empty());
    let context = context.map(|text| serde_json::from_str::<Value>(&text));
    let context = context.transpose()?.unwrap_or_default();
    let url = std::env::args().next_back().context("no address")?;
    let tasks = TaskTracker::new();
    let toolbox = Toolbox::start(&config(&url, &context)?, &tasks);
    let done = tokio::time::timeout(LIMIT, play(&toolbox, &context)).await;
    toolbox.shutdown().await;
    done.context("it took too long")?
}

/// One server as a user would configure it.
fn config(url: &str, context: &Value) -> anyhow::Result<ToolsConfig> {
    let mut server = json!({"url": url, "elicitation": "defaults", "timeout_secs": 20});
    if let (Some(server), Some(id)) = (server.as_object_mut(), context.get("client_id")) {
        let oauth = match context.get("private_key_pem") {
            Some(_) => json!({"client_id": id, "private_key": "${private_key_pem}",
                "signing_algorithm": context.get("signing_algorithm")}),
            None => json!({"client_id": id, "client_secret": "${client_secret}"}),
        };
        server.insert("oauth".to_owned(), oauth);
    }
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(
        json!({"mcpServers": {"suite": server}})
            .to_string()
            .as_bytes(),
    )?;
    let path = file.path().to_str().context("a path that is no text")?;
    let arguments = Arguments::try_parse_from(["conformance_client", "--mcp-config", path, url])?;
    let lookup = |name: &str| Some(context.get(name)?.as_str()?.to_owned());
    let mut problems = Problems::default();
    let config = arguments.tools.parse(&lookup, &mut problems);
    Ok(problems.none_or(|| config)?)
}

async fn play(toolbox: &Toolbox, context: &Value) -> anyhow::Result<()> {
    let offer = toolbox.offer(&Selection::default()).await?;
    for health in toolbox.health() {
        ensure!(health.state == ServerState::Ready, "{:?}", health.state);
    }
    for (tool, arguments) in calls(&offer, context)? {
        let user_id = UserId::new("conformance").context("no user id")?;
        let id = Uuid::now_v7();
        let meta = CallMeta {
            job_id: JobId(id),
            user_id: &user_id,
            conversation_id: ConversationId(id),
            idempotency_key: "1",
        };
        let invocation = Invocation {
            tool: &tool,
            arguments: &arguments.to_string(),
            meta,
            deadline: Deadline::after(LIMIT),
            listener: None,
        };
        let outcome = toolbox.call(&offer, &invocation).await;
        eprintln!("{tool} {arguments}: {:?} {}", outcome.status, outcome.text);
    }
    Ok(())
}

/// What is to be called, by the names that a model would say.
fn calls(offer: &Offer, context: &Value) -> anyhow::Result<Vec<(String, Value)>> {
    let offered: Vec<_> = offer
        .specs()
        .iter()
        .filter_map(|spec| Some((spec.name.clone(), offer.find(&spec.name)?)))
        .collect();
    if let Some(wanted) = context.get("toolCalls").and_then(Value::as_array) {
        return wanted
            .iter()
            .map(|call| {
                let name = call["name"].as_str().context("a call without a name")?;
                let found = offered.iter().find(|(_, route)| route.tool() == name);
                let (tool, _) = found.with_context(|| format!("{name} is not offered"))?;
                Ok((tool.clone(), call["arguments"].clone()))
            })
            .collect();
    }
    let focal = offered
        .iter()
        .find(|(_, route)| route.tool() != "json_schema_echo");
    let schema = |name: &str| {
        offered
            .iter()
            .find(|(tool, _)| tool == name)
            .map(|(_, route)| route.input_schema().clone())
    };
    let arguments = |name: &str, tool: &str| match focal {
        // It tells the suite what became of the other tool's schema on its way.
        Some((_, focal)) if tool == "json_schema_echo" => json!({"schema": focal.input_schema()}),
        Some(_) | None => example(&schema(name).unwrap_or_default()),
    };
    Ok(offered
        .iter()
        .map(|(name, route)| (name.clone(), arguments(name, route.tool())))
        .collect())
}

/// Something that fits a plain schema.
fn example(schema: &Value) -> Value {
    let first = schema.pointer("/enum/0").or_else(|| schema.get("const"));
    if let Some(value) = schema.get("default").or(first) {
        return value.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => json!("text"),
        Some("number" | "integer") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("null") => Value::Null,
        Some(_) | None => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let members = properties.into_iter().flatten();
            Value::Object(
                members
                    .map(|(name, schema)| (name.clone(), example(schema)))
                    .collect::<Map<_, _>>(),
            )
        }
    }
}

use std::process::ExitCode;
use std::sync::Arc;

use console::measure_text_width;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::task::TaskTracker;

use super::guard::guarded;
use super::output::{self, Screen};
use super::text::one_line;
use super::{checked, init_quiet_logs, told_to_stop};
use crate::config::{Isolation, ToolsConfig, ToolsSettings, environment};
use crate::tools::{Offer, RetryClass, Selection, ServerHealth, ServerState, Toolbox};

/// The arguments of `tools`.
#[derive(Debug, clap::Args)]
pub(super) struct ToolsArgs {
    /// Print a JSON array of name, description, schema, server, tool and whether it needs approval
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tools: ToolsSettings,
}

/// A tool as `--json` prints it.
#[derive(Serialize)]
struct ListedTool<'a> {
    name: &'a str,
    description: &'a str,
    schema: &'a RawValue,
    server: &'a str,
    tool: &'a str,
    needs_approval: bool,
}

/// Lists what the model will see.
pub(super) async fn run(args: &ToolsArgs) -> anyhow::Result<ExitCode> {
    let config = checked(|problems| args.tools.parse(&environment, problems))?;
    init_quiet_logs()?;
    let (offer, health) = ask(&config).await?;
    if args.json {
        output::json(&serde_json::to_string_pretty(&listed(&offer))?)?;
    } else {
        for line in table(&offer, Screen::stdout()) {
            output::line(&line)?;
        }
    }
    if health.is_empty() {
        output::say("no tool servers are configured (MCP_SERVER_PATH, MCP_CONFIG)");
    }
    if let Some(warning) = shared_by_users(&config) {
        output::say(&warning);
    }
    let mut code = ExitCode::SUCCESS;
    if let Some(too_many) = offer.too_many() {
        output::complain(too_many);
        code = ExitCode::FAILURE;
    }
    for server in &health {
        if let Some(facts) = facts(server) {
            output::say(&facts);
        }
        for warning in &server.warnings {
            output::complain(&format!("the tool server {}: {warning}", server.name));
        }
        if let Some(reason) = reason(server) {
            output::complain(&format!("the tool server {}: {reason}", server.name));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Which servers serve all users with the same processes, if some do.
fn shared_by_users(config: &ToolsConfig) -> Option<String> {
    let shared = config.servers.iter().filter_map(|server| {
        let isolation = match server.pool.isolation {
            Isolation::Call => "call",
            Isolation::Shared => "shared",
            Isolation::Job | Isolation::User => return None,
        };
        Some(format!("{} ({isolation})", server.name))
    });
    let shared: Vec<_> = shared.collect();
    (!shared.is_empty()).then(|| {
        format!(
            "note: the same processes serve all users here: {}. What such a server remembers between calls, one user's call can show another's; if it does remember, give it \"pool\": {{\"isolation\": \"job\"}} or \"user\"",
            shared.join(", ")
        )
    })
}

/// What a server says of itself: its name here, what it is reached by, what is spoken with it, who it
/// says it is, and how many tools it lists.
fn facts(server: &ServerHealth) -> Option<String> {
    let about = server.about.as_ref()?;
    let spoken = match about.protocol.as_str() {
        "line" => "line".to_owned(),
        revision => format!("MCP {revision}"),
    };
    let who = about.server.as_ref().map(|who| format!(", {who}"));
    Some(format!(
        "{}: {}, {spoken}{}, {} tools",
        server.name,
        server.transport,
        who.unwrap_or_default(),
        server.tools
    ))
}

/// Why the tools of a server cannot be used, if they cannot.
pub(super) fn reason(server: &ServerHealth) -> Option<String> {
    match &server.state {
        ServerState::Ready => None,
        ServerState::Starting => Some("it has not started in time".to_owned()),
        ServerState::Down { reason, last_words } if last_words.is_empty() => Some(reason.clone()),
        ServerState::Down { reason, last_words } => Some(format!(
            "{reason}; last on its standard error: {last_words}"
        )),
    }
}

/// Starts every server, asks what there is, and ends every process again.
async fn ask(config: &ToolsConfig) -> anyhow::Result<(Arc<Offer>, Vec<ServerHealth>)> {
    let tasks = TaskTracker::new();
    let toolbox = Toolbox::start(&none_required(config), &tasks);
    let selection = Selection::default();
    let offered = tokio::select! {
        offered = toolbox.offer(&selection) => offered.map_err(anyhow::Error::from),
        () = told_to_stop() => Err(anyhow::anyhow!("interrupted")),
    };
    let health = toolbox.health();
    toolbox.shutdown().await;
    Ok((offered?, health))
}

/// The same servers, guarded, none of which keeps the others from being listed.
pub(super) fn none_required(config: &ToolsConfig) -> ToolsConfig {
    let mut config = guarded(config.clone());
    for server in &mut config.servers {
        server.required = false;
    }
    config
}

fn listed(offer: &Offer) -> Vec<ListedTool<'_>> {
    let specs = offer.specs().iter();
    specs
        .filter_map(|spec| {
            let route = offer.find(&spec.name)?;
            Some(ListedTool {
                name: &spec.name,
                description: &spec.description,
                schema: &spec.schema,
                server: route.server(),
                tool: route.tool(),
                needs_approval: route.needs_approval(),
            })
        })
        .collect()
}

/// A line a tool: name, server, what becomes of an interrupted call, whether it needs approval,
/// description.
fn table(offer: &Offer, screen: Screen) -> Vec<String> {
    let specs = offer.specs();
    let rows: Vec<_> = specs
        .iter()
        .filter_map(|spec| Some((spec, offer.find(&spec.name)?)))
        .collect();
    let widest = |of: &dyn Fn(usize) -> usize| (0..rows.len()).map(of).max().unwrap_or(0);
    let names = widest(&|at| rows.get(at).map_or(0, |(spec, _)| spec.name.len()));
    let servers = widest(&|at| rows.get(at).map_or(0, |(_, route)| route.server().len()));
    rows.iter()
        .map(|(spec, route)| {
            let name = screen
                .style()
                .bold()
                .apply_to(format!("{:names$}", spec.name));
            let approval = if route.needs_approval() {
                "needs approval  "
            } else {
                ""
            };
            let about = spec.description.trim().lines().next().unwrap_or_default();
            let head = format!(
                "{name}  {:servers$}  {:<17}{}",
                route.server(),
                interrupted(route.retry()),
                screen.style().yellow().apply_to(approval)
            );
            let left = screen.width.saturating_sub(measure_text_width(&head) + 2);
            let about = one_line(about);
            let about = if screen.terminal {
                console::truncate_str(&about, left, "…").into_owned()
            } else {
                about
            };
            format!("{head}  {about}").trim_end().to_owned()
        })
        .collect()
}

/// What becomes of a call that was under way when its worker died.
fn interrupted(class: RetryClass) -> &'static str {
    match class {
        RetryClass::Safe => "repeat when cut",
        RetryClass::Tell => "tell when cut",
        RetryClass::Fail => "fail when cut",
    }
}

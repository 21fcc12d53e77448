use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::super::expand::expand;
use super::super::fields::{Fields, Members, escape};
use super::super::{Lookup, Problems, Secret};
use super::defaults::{Defaults, MAX_TIMEOUTS};
use super::{
    Elicitation, Isolation, LEAST_RESULT_BYTES, MOST_RESULT_BYTES, OnInterrupt, Protocol,
    ProtocolEra, ServerConfig, StdioConfig, Transport, parse_isolation, remote,
};

pub(super) const SETTING: &str = "MCP_CONFIG";
const DAY: u64 = 86_400;
/// More than providers take in one request.
const MOST_MEDIA_BYTES: u64 = 64 * 1024 * 1024;

/// Reads the file at `path`: `{"mcpServers": {"<name>": {…}}}`.
pub(super) fn parse(
    path: &str,
    defaults: &Defaults,
    lookup: Lookup<'_>,
    problems: &mut Problems,
) -> Vec<ServerConfig> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.note(SETTING, format!("cannot read {path:?}: {error}"));
            return Vec::new();
        }
    };
    parse_text(&text, defaults, lookup, problems)
}

fn parse_text(
    text: &str,
    defaults: &Defaults,
    lookup: Lookup<'_>,
    problems: &mut Problems,
) -> Vec<ServerConfig> {
    let root = match serde_json::from_str::<Members>(text) {
        Ok(Members(root)) => root,
        Err(error) => {
            problems.note(SETTING, format!("expected a JSON object: {error}"));
            return Vec::new();
        }
    };
    let mut servers = Vec::new();
    let mut found = false;
    for (name, value) in root {
        match name.as_str() {
            "mcpServers" if !found => {
                found = true;
                match serde_json::from_str::<Members>(value.get()) {
                    Ok(Members(members)) => servers = members,
                    Err(error) => {
                        problems.note(SETTING, format!("/mcpServers: expected an object: {error}"));
                    }
                }
            }
            "mcpServers" => problems.note(SETTING, "/mcpServers: stands there twice"),
            "$schema" => {}
            other => problems.note(SETTING, format!("/{}: unknown field", escape(other))),
        }
    }
    if !found {
        problems.note(SETTING, "/mcpServers: missing");
    }
    parse_servers(&servers, defaults, lookup, problems)
}

fn parse_servers(
    servers: &[(String, Box<serde_json::value::RawValue>)],
    defaults: &Defaults,
    lookup: Lookup<'_>,
    problems: &mut Problems,
) -> Vec<ServerConfig> {
    let mut parsed = Vec::new();
    for (index, (name, body)) in servers.iter().enumerate() {
        let pointer = format!("/mcpServers/{}", escape(name));
        if servers.iter().take(index).any(|(other, _)| other == name) {
            problems.note(
                SETTING,
                format!("{pointer}: a server of this name stands there already"),
            );
        }
        if !is_name(name) {
            problems.note(
                SETTING,
                format!(
                    "{pointer}: expected a name of 1 to 32 characters of A-Z, a-z, 0-9, _ and -"
                ),
            );
        }
        let body = serde_json::from_str::<Value>(body.get()).unwrap_or_default();
        let fields = Fields::new(SETTING, pointer, body, problems);
        parsed.extend(parse_server(name, fields, defaults, lookup));
    }
    parsed
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=32).contains(&name.len()) && name.bytes().all(plain)
}

fn parse_server(
    name: &str,
    mut fields: Fields<'_>,
    defaults: &Defaults,
    lookup: Lookup<'_>,
) -> Option<ServerConfig> {
    if fields.flag("disabled") == Some(true) {
        return None;
    }
    let remote = remote::is_remote(&mut fields);
    let transport = if remote {
        remote::parse(&mut fields, lookup)
    } else {
        parse_child(&mut fields, defaults, lookup)
    };
    let mut server = defaults.server(name, transport);
    let protocols = [("mcp", Protocol::Mcp), ("line", Protocol::Line)];
    if let Some(protocol) = fields.choice("protocol", &protocols) {
        server.protocol = protocol;
    }
    parse_manners(&mut fields, &mut server);
    parse_pool(&mut fields, &mut server);
    if remote {
        if server.protocol == Protocol::Line {
            fields.note(
                "protocol",
                "lines are spoken with a `command` only: expected \"mcp\"",
            );
        }
        if server.pool.isolation == Isolation::Call {
            // A session is no process: it takes calls side by side, as its server does.
            server.pool.isolation = Isolation::Shared;
        }
    } else if server.protocol == Protocol::Line && server.pool.isolation == Isolation::Shared {
        fields.note(
            "protocol",
            "lines answer one call at a time: expected the isolation \"call\", \"job\" or \"user\"",
        );
    }
    parse_limits(&mut fields, &mut server);
    server.allow = parse_globs("allow", &mut fields);
    server.deny = parse_globs("deny", &mut fields);
    server.approval = parse_globs("approval", &mut fields);
    fields.finish();
    Some(server)
}

fn parse_child(fields: &mut Fields<'_>, defaults: &Defaults, lookup: Lookup<'_>) -> Transport {
    let command = fields.text("command").unwrap_or_default();
    if command.trim().is_empty() {
        fields.note("command", "expected the program to start");
    }
    let command = expanded("command", &command, fields, lookup);
    let args: Vec<_> = fields.texts("args").unwrap_or_default();
    let args = args
        .iter()
        .enumerate()
        .map(|(index, arg)| expanded(&format!("args/{index}"), arg, fields, lookup))
        .collect();
    let cwd = fields.text("cwd");
    let cwd = cwd.map(|cwd| expanded("cwd", &cwd, fields, lookup).into());
    let mut env = defaults.env.clone();
    env.extend(parse_env(fields, lookup));
    Transport::Stdio(StdioConfig {
        command,
        args,
        env,
        cwd,
    })
}

fn parse_env(fields: &mut Fields<'_>, lookup: Lookup<'_>) -> BTreeMap<String, Secret> {
    let Some(value) = fields.take("env") else {
        return BTreeMap::new();
    };
    let Value::Object(variables) = value else {
        fields.note("env", "expected an object of texts");
        return BTreeMap::new();
    };
    let mut env = BTreeMap::new();
    for (name, value) in variables {
        let at = format!("env/{}", escape(&name));
        if name.is_empty() || name.contains(['=', '\0']) {
            fields.note(&at, "no name of a variable");
        } else if let Value::String(text) = value {
            env.insert(name, Secret::new(expanded(&at, &text, fields, lookup)));
        } else {
            fields.note(&at, "expected a text");
        }
    }
    env
}

pub(super) fn expanded(
    at: &str,
    text: &str,
    fields: &mut Fields<'_>,
    lookup: Lookup<'_>,
) -> String {
    let expanded = expand(text, lookup).and_then(|expanded| {
        // The system would refuse it at every start.
        let clean = !expanded.contains('\0');
        clean
            .then_some(expanded)
            .ok_or_else(|| "holds a NUL".to_owned())
    });
    expanded.unwrap_or_else(|what| {
        fields.note(at, what);
        String::new()
    })
}

fn parse_manners(fields: &mut Fields<'_>, server: &mut ServerConfig) {
    let eras = [
        ("auto", ProtocolEra::Auto),
        ("legacy", ProtocolEra::Legacy),
        ("modern", ProtocolEra::Modern),
    ];
    if let Some(era) = fields.choice("protocol_era", &eras) {
        server.era = era;
    }
    let policies = [
        ("decline", Elicitation::Decline),
        ("defaults", Elicitation::Defaults),
    ];
    if let Some(policy) = fields.choice("elicitation", &policies) {
        server.elicitation = policy;
    }
}

fn parse_pool(fields: &mut Fields<'_>, server: &mut ServerConfig) {
    let Some(value) = fields.take("pool") else {
        return;
    };
    let pointer = fields.pointer("pool");
    let mut pool = Fields::new(SETTING, pointer, value, fields.problems());
    if let Some(size) = pool.number("size", 1, 1000) {
        server.pool.size = usize::try_from(size).unwrap_or(usize::MAX);
    }
    if let Some(text) = pool.text("isolation") {
        let setting = format!("{SETTING}: {}", pool.pointer("isolation"));
        if let Some(isolation) = parse_isolation(&setting, &text, pool.problems()) {
            server.pool.isolation = isolation;
        }
    }
    server.pool.max_calls = pool.number("max_calls", 1, u64::MAX);
    let max_age = pool.number("max_age_secs", 1, 365 * DAY);
    server.pool.max_age = max_age.map(Duration::from_secs);
    pool.finish();
}

fn parse_limits(fields: &mut Fields<'_>, server: &mut ServerConfig) {
    if let Some(secs) = fields.number("timeout_secs", 1, DAY) {
        server.timeout = Duration::from_secs(secs);
        server.max_timeout = server.timeout.saturating_mul(MAX_TIMEOUTS);
    }
    if let Some(secs) = fields.number("max_timeout_secs", 1, DAY) {
        server.max_timeout = Duration::from_secs(secs);
        if server.max_timeout < server.timeout {
            fields.note(
                "max_timeout_secs",
                format!(
                    "expected at least the {} of timeout_secs, which is how long a call may go without progress",
                    server.timeout.as_secs()
                ),
            );
        }
    }
    if let Some(secs) = fields.number("start_timeout_secs", 1, 3600) {
        server.start_timeout = Duration::from_secs(secs);
    }
    server.required = fields.flag("required").unwrap_or(false);
    let bytes = fields.number(
        "max_result_bytes",
        u64::try_from(LEAST_RESULT_BYTES).unwrap_or(u64::MAX),
        u64::try_from(MOST_RESULT_BYTES).unwrap_or(u64::MAX),
    );
    if let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
        server.max_result_bytes = bytes;
    }
    let media = fields.number("max_media_bytes", 0, MOST_MEDIA_BYTES);
    if let Some(bytes) = media.and_then(|bytes| usize::try_from(bytes).ok()) {
        server.max_media_bytes = bytes;
    }
    let choices = [
        ("retry", OnInterrupt::Retry),
        ("tell", OnInterrupt::Tell),
        ("fail", OnInterrupt::Fail),
    ];
    if let Some(on_interrupt) = fields.choice("on_interrupt", &choices) {
        server.on_interrupt = on_interrupt;
    }
}

fn parse_globs(field: &str, fields: &mut Fields<'_>) -> Vec<String> {
    let globs = fields.texts(field).unwrap_or_default();
    for (index, glob) in globs.iter().enumerate() {
        if let Err(error) = globset::Glob::new(glob) {
            fields.note(&format!("{field}/{index}"), error);
        }
    }
    globs
}

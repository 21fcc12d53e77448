//! What the program itself says of its settings and codes.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use chat_worker::config::{Config, ModelConfig, ModelProfile, ProviderConfig, Settings};
use clap::Parser as _;

use super::page::Page;
use super::world;

/// Each setting with its default.
pub(crate) type Defaults = BTreeMap<String, Option<String>>;

/// The settings and defaults of README.md.
pub(crate) fn settings_of_page(page: &Page) -> Defaults {
    let rows = page.rows("## Settings");
    let settings = rows.into_iter().map(|row| match row.as_slice() {
        [name, default, meaning] if !meaning.is_empty() => {
            let default = match default.as_str() {
                "none" => None,
                "empty" => Some(String::new()),
                text => Some(text.trim_matches('`').to_owned()),
            };
            (name.trim_matches('`').to_owned(), default)
        }
        row => panic!("expected a name, a default and a meaning: {row:?}"),
    });
    settings.collect()
}

/// The settings and defaults of `chat-worker run --help`.
pub(crate) fn settings_of_program() -> Defaults {
    let mut help = Command::new(env!("CARGO_BIN_EXE_chat-worker"));
    // Without the settings of whoever runs this.
    let help = help
        .args(["run", "--help"])
        .env_clear()
        .current_dir(std::env::temp_dir());
    let output = help.output().expect("chat-worker run --help");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let words: Vec<_> = text.split_whitespace().collect();
    let text = words.join(" ");
    // `--flag <VALUE> what it means [env: NAME=] [default: x]`, the last two in any order.
    let options = text.split(" --").filter(|option| option.contains("[env: "));
    let setting = |option: &str| {
        let name = between(option, "[env: ", "]").expect("an environment variable");
        let default = between(option, "[default: ", "]");
        let default = default.map(|text| text.trim_matches(['"', '`']).to_owned());
        (name.trim_end_matches('=').to_owned(), default)
    };
    options.map(setting).collect()
}

/// The settings that `.env.example` has as comments.
pub(crate) fn settings_of_env_example() -> Vec<String> {
    let text = std::fs::read_to_string(world::root().join(".env.example")).expect(".env.example");
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='));
    let mut names: Vec<_> = lines
        .map(|(name, _)| name.to_owned())
        .filter(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        })
        .collect();
    names.sort();
    names
}

/// The texts of an enum in the result's JSON Schema, sorted.
pub(crate) fn texts_of_schema(name: &str) -> Vec<String> {
    let schema = serde_json::to_value(chat_worker::wire::result_schema()).expect("JSON");
    let definition = schema
        .pointer(&format!("/$defs/{name}"))
        .expect("a definition");
    let variants = definition
        .get("oneOf")
        .and_then(serde_json::Value::as_array)
        .expect("variants");
    let texts = variants
        .iter()
        .filter_map(|variant| variant.get("const")?.as_str());
    let mut texts: Vec<_> = texts.map(str::to_owned).collect();
    texts.sort();
    assert!(!texts.is_empty());
    texts
}

/// Reads a file of tool servers as the worker does.
pub(crate) fn read_mcp_config(text: &str) {
    #[derive(clap::Parser)]
    struct Run {
        #[command(flatten)]
        settings: Settings,
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("a file");
    let path = file.path().to_str().expect("UTF-8");
    let run = Run::parse_from([
        "run",
        "--mcp-config",
        path,
        "--openai-api-key",
        "key",
        "--mcp-server-path",
        "",
    ]);
    let config: Config = run
        .settings
        .parse(&|name| Some(format!("value of {name}")))
        .unwrap_or_else(|problems| panic!("{problems}"));
    let servers = serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let servers = servers
        .pointer("/mcpServers")
        .and_then(serde_json::Value::as_object);
    assert_eq!(config.tools.servers.len(), servers.expect("servers").len());
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// Reads a file of models as a worker would.
pub(crate) fn read_model_config(text: &str) {
    let profile = ModelProfile::at(ProviderConfig::new("http://127.0.0.1:1/v1", None));
    let config = ModelConfig::new("gpt-4o-mini", profile, Duration::from_secs(1));
    let config = config
        .with_file(text, &|name| Some(format!("value-of-{name}")))
        .unwrap_or_else(|problems| panic!("{problems}"));
    let known = config.names();
    let fallbacks = known
        .iter()
        .flat_map(|name| &config.profile(name).fallbacks);
    assert!(fallbacks.count() > 0, "the example shows fallbacks");
}

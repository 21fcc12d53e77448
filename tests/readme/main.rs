//! README.md is run: every snippet of it works, and its tables say what the program says.
//!
//! Fences of `sh`, `python`, `js`, `sql` and `json` are checked here; those of `console`, `text`
//! and `ini` are for the eye only.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod page;
mod strangers;
mod tables;
mod world;

use chat_worker::wire::{JobResult, decode, decode_control};

use page::Page;

#[test]
fn the_messages_shown_are_messages() {
    let mut kinds = Vec::new();
    for text in Page::read().all("json") {
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        if value.get("mcpServers").is_some() {
            tables::read_mcp_config(&text);
            kinds.push("servers");
        } else if value.get("status").is_some() {
            let result: JobResult = serde_json::from_str(&text).expect("a result");
            let again = serde_json::to_value(result).expect("JSON");
            assert_eq!(
                again, value,
                "the result shown is not what the worker writes"
            );
            kinds.push("result");
        } else if value.get("type").is_some() {
            decode_control(text.as_bytes(), 1 << 20).unwrap_or_else(|failure| panic!("{failure}"));
            kinds.push("control");
        } else {
            decode(text.as_bytes(), 1 << 20)
                .unwrap_or_else(|refused| panic!("{}", refused.failure));
            kinds.push("job");
        }
    }
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        ["control", "control", "job", "result", "servers", "servers"]
    );
}

#[test]
fn the_file_of_models_shown_is_one() {
    let shown = Page::read().all("toml");
    let [file] = shown.as_slice() else {
        panic!("expected one file of TOML, got {}", shown.len());
    };
    tables::read_model_config(file);
}

#[test]
fn the_settings_shown_are_those_of_the_program() {
    let shown = tables::settings_of_page(&Page::read());
    let real = tables::settings_of_program();
    assert_eq!(
        shown, real,
        "left: README.md, right: chat-worker run --help"
    );
}

#[test]
fn the_example_of_an_environment_names_every_setting() {
    let shown = tables::settings_of_env_example();
    let real: Vec<_> = tables::settings_of_program().into_keys().collect();
    assert_eq!(
        shown, real,
        "left: .env.example, right: chat-worker run --help"
    );
}

#[test]
fn the_error_codes_and_finish_reasons_shown_are_those_of_the_schema() {
    let page = Page::read();
    assert_eq!(
        page.first_column("### Error codes"),
        tables::texts_of_schema("ErrorCode")
    );
    assert_eq!(
        page.first_column("### The result"),
        tables::texts_of_schema("FinishReason")
    );
}

#[test]
fn the_pages_that_are_linked_are_there() {
    let page = Page::read();
    for link in page.links() {
        if let Some(anchor) = link.strip_prefix('#') {
            let is_there = page.anchors().iter().any(|there| there == anchor);
            assert!(is_there, "README.md links to {link}, which is not there");
            continue;
        }
        let path = world::root().join(&link);
        assert!(
            path.exists(),
            "README.md links to {link}, which is not there"
        );
    }
}

#[test]
fn the_files_that_the_walkthroughs_name_are_there() {
    for page in ["docs/ARCHITECTURE.md", "docs/DATA_MODEL.md"] {
        let named = Page::at(page).source_files();
        assert!(!named.is_empty(), "{page} names no file");
        for name in named {
            let places = [world::root(), world::root().join("src")];
            let there = places.iter().any(|place| place.join(&name).exists());
            assert!(there, "{page} names {name}, which is not there");
        }
    }
}

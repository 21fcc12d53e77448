//! README.md is run: every snippet of it works, and its tables say what the program says.
//!
//! Fences of `sh`, `python`, `js`, `sql` and `json` are checked here; those of `console`, `text`
//! and `ini` are for the eye only.

#![expect(
    clippy::expect_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod page;
mod tables;
mod world;

use std::process::Command;

use chat_worker::wire::{JobResult, decode};
use sqlx::{Column as _, Row as _};

use page::Page;
use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_snippet_asks_and_reads_its_answer() {
    let world = World::open().await;
    let program = Page::read().only("python");
    let ran = world.run(
        Command::new(world::python_with_pika())
            .arg("-c")
            .arg(program),
    );
    assert_eq!(ran.trim(), "question-1 The answer is 42");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_snippet_asks_and_reads_its_answer() {
    let world = World::open().await;
    let directory = world::node_with_amqplib();
    let file = directory.join(format!("readme-{}.mjs", std::process::id()));
    std::fs::write(&file, Page::read().only("js")).expect("a file for the snippet");
    let ran = world.run(Command::new("node").arg(&file));
    std::fs::remove_file(&file).expect("the file of the snippet");
    assert!(ran.contains("{ ticket: 991 } The answer is 42"), "{ran}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_snippets_and_then_the_queries_work() {
    let world = World::open().await;
    let page = Page::read();
    let mut said = Vec::new();
    for snippet in page.all("sh") {
        world.needs(
            "psql",
            "the PostgreSQL client (Debian: apt-get install postgresql-client)",
        );
        said.push(world.run(Command::new("bash").args(["-euo", "pipefail", "-c", &snippet])));
    }
    assert!(
        said.iter()
            .any(|text| text.starts_with("The answer is 42\n")),
        "{said:#?}"
    );
    assert!(
        said.iter()
            .any(|text| text.contains("completed (answered)")),
        "{said:#?}"
    );
    let results =
        std::fs::read_to_string(world.directory.join("results.jsonl")).expect("results");
    assert_eq!(results.lines().count(), 3);
    for line in results.lines() {
        let result: JobResult = serde_json::from_str(line).expect("a result");
        assert!(result.success, "{line}");
    }

    // One that fails, for the query that looks for such.
    let late = r#"{"user_id":"late","messages":[{"role":"user","content":"x"}],"deadline":"2020-01-01T00:00:00Z"}"#;
    world.enqueue_to_fail(late);
    let queries = page.all("sql");
    assert!(queries.len() >= 5, "the page promises queries");
    for query in queries {
        let rows = world.query(&query).await;
        assert!(!rows.is_empty(), "no row:\n{query}");
        let columns: Vec<_> = rows
            .first()
            .map(|row| {
                row.columns()
                    .iter()
                    .map(|column| column.name().to_owned())
                    .collect()
            })
            .unwrap_or_default();
        if columns == ["user_id", "status", "reply", "error_code"] {
            let replies: Vec<String> = rows.iter().map(|row| row.get("reply")).collect();
            assert_eq!(
                replies,
                ["The answer is 40", "The answer is 41", "The answer is 42"]
            );
        }
    }
    world.close().await;
}

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
        } else {
            decode(text.as_bytes(), 1 << 20)
                .unwrap_or_else(|refused| panic!("{}", refused.failure));
            kinds.push("job");
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["job", "result", "servers"]);
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
    for link in Page::read().links() {
        let path = world::root().join(&link);
        assert!(
            path.exists(),
            "README.md links to {link}, which is not there"
        );
    }
}

//! The snippets, run with the programs that they are written for. Left out of the suite where these
//! are not installed.

use std::process::Command;

use chat_worker::wire::JobResult;
use sqlx::{Column as _, Row as _};

use super::page::Page;
use super::world::{self, World};

#[tokio::test(flavor = "multi_thread")]
async fn the_python_snippets_ask_and_read_the_answer_whole_and_as_it_comes() {
    let world = World::open().await;
    let programs = Page::read().all("python");
    let said: Vec<_> = programs
        .into_iter()
        .map(|program| {
            let mut python = Command::new(world::python_with_pika());
            world.run(python.arg("-c").arg(program))
        })
        .collect();
    let [reply, events] = said.as_slice() else {
        panic!("a program that asks and one that listens: {said:?}");
    };
    assert_eq!(reply.trim(), "question-1 The answer is 42");
    assert!(events.ends_with("]\nThe answer is 42\n"), "{events}");
    world.close();
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
    world.close();
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
    let sent_in_a_transaction = "SELECT FROM tickets AS t JOIN chat.jobs AS j ON j.id = t.job_id
        WHERE j.status = 'completed' AND j.reply = 'The answer is 42'";
    world.row_comes(sent_in_a_transaction).await;
    let results = std::fs::read_to_string(world.directory.join("results.jsonl")).expect("results");
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
    for query in Page::at("docs/OPERATIONS.md").all("sql") {
        world.query(&query).await;
    }
    world.close();
}

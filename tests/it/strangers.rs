//! Jobs with programs of others: these tests are left out where npm or node is not installed.

use std::path::Path;

use serde_json::json;

use crate::npm::installed;
use crate::scenario::{Setup, call, puppet};

#[tokio::test]
async fn the_reference_servers_of_npm_are_used_by_a_job() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("present.txt"), "a file of mine").unwrap();
    let path = directory.path().to_str().unwrap();
    let node = |main: &Path, argument: &str| json!({"command": "node", "args": [main, argument]});
    let everything = node(&installed("server-everything").await, "stdio");
    let filesystem = node(&installed("server-filesystem").await, path);
    let setup = Setup::new()
        .server("everything", everything)
        .server("files", filesystem)
        .model(puppet);
    setup
        .run(async |s| {
            let file = format!("{path}/present.txt");
            let result = s
                .answer(&call(&[
                    ("everything__echo", json!({"message": "hello"})),
                    ("files__read_text_file", json!({"path": file})),
                ]))
                .await;
            assert_eq!(
                result["message"]["content"], "Echo: hello\na file of mine",
                "{result}"
            );
            let rows = s
                .rows("SELECT server, tool, status FROM chat.tool_calls ORDER BY position")
                .await;
            assert_eq!(
                rows,
                [
                    json!({"server": "everything", "tool": "echo", "status": "succeeded"}),
                    json!({"server": "files", "tool": "read_text_file", "status": "succeeded"}),
                ]
            );
        })
        .await;
}

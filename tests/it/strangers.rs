//! Jobs with programs of others: these tests are left out where npm, node or python3 is not installed.

use std::any::Any;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::npm::installed;
use crate::pypi;
use crate::scenario::{Setup, call, example, puppet, with};

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

/// The reference server over HTTP, for as long as this is there, and its address.
async fn everything_over_http() -> (Box<dyn Any>, String) {
    let main = installed("server-everything").await;
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let mut process = tokio::process::Command::new("node")
        .arg(main)
        .arg("streamableHttp")
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap();
        if line.expect("it ended").contains("listening on port") {
            break;
        }
    }
    // A pipe that nobody holds would end it when it says more.
    let held = Box::new((process, lines));
    (held, format!("http://127.0.0.1:{port}/mcp"))
}

#[tokio::test]
async fn servers_of_every_kind_in_one_file_are_all_listed_and_used_in_one_conversation() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("present.txt"), "a file of mine").unwrap();
    let path = directory.path().to_str().unwrap();
    let made = std::process::Command::new("git")
        .args(["init", "--quiet", path])
        .status();
    assert!(made.unwrap().success(), "this test needs git on the PATH");
    let node = async |package: &str, arguments: &[&str]| {
        let main = installed(package).await.to_str().unwrap().to_owned();
        let args: Vec<_> = [main.as_str()]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        json!({"command": "node", "args": args, "required": true, "start_timeout_secs": 120})
    };
    let python = |requirement: &str, name: &str, arguments: &[&str]| {
        json!({"command": pypi::program(requirement, name), "args": arguments,
               "required": true, "start_timeout_secs": 120})
    };
    let mut memory = node("server-memory", &[]).await;
    memory["env"] = json!({"MEMORY_FILE_PATH": format!("{path}/memory.json")});
    let (_web, url) = everything_over_http().await;
    let line = json!({"command": example("line_server"), "protocol": "line", "required": true});
    let setup = Setup::new()
        .server("everything", node("server-everything", &["stdio"]).await)
        .server("files", node("server-filesystem", &[path]).await)
        .server("memory", memory)
        .server(
            "time",
            python("mcp-server-time==2026.10.19", "mcp-server-time", &[]),
        )
        .server(
            "git",
            python(
                "mcp-server-git==2026.10.19",
                "mcp-server-git",
                &["--repository", path],
            ),
        )
        .server("web", json!({"url": url, "required": true}))
        .server("old", line)
        .model(puppet);
    setup
        .run(async |s| {
            let wanted = [
                ("everything__echo", json!({"message": "hello"})),
                ("everything__get-tiny-image", json!({})),
                ("files__read_text_file", json!({"path": format!("{path}/present.txt")})),
                ("memory__read_graph", json!({})),
                ("time__get_current_time", json!({"timezone": "UTC"})),
                ("git__git_status", json!({"repo_path": path})),
                ("web__echo", json!({"message": "over there"})),
                ("old__upper", json!({"text": "quiet"})),
            ];
            let (listed, facts) = s.command_aloud(&["tools"]).await;
            for (name, _) in &wanted {
                assert!(listed.lines().any(|line| line.starts_with(name)), "{name}: {listed}");
            }
            for said in [
                "everything: stdio, MCP 2025-11-25, mcp-servers/everything",
                "files: stdio, MCP 2025-11-25, ",
                "memory: stdio, MCP 2025-11-25, ",
                "time: stdio, MCP 2025-11-25, ",
                "git: stdio, MCP 2025-11-25, ",
                "web: http, MCP 2025-11-25, mcp-servers/everything",
                "old: stdio, line, 5 tools",
            ] {
                assert!(facts.contains(said), "{said}: {facts}");
            }

            let result = s.answer(&call(&wanted)).await;
            assert_eq!(result["status"], "completed", "{result}");
            assert_eq!(result["warnings"], json!(null), "{result}");
            let texts = result["message"]["content"].as_str().unwrap();
            for text in ["Echo: hello", "[image: image/png, ", "a file of mine", "entities", "UTC", "No commits yet", "Echo: over there", "QUIET"] {
                assert!(texts.contains(text), "{text}: {texts}");
            }
            let rows = s
                .rows("SELECT server, status, json_array_length(media) AS shown FROM chat.tool_calls ORDER BY position")
                .await;
            let row = |server: &str, shown: Option<u8>| json!({"server": server, "status": "succeeded", "shown": shown});
            let mut expected: Vec<_> = ["everything", "everything", "files", "memory", "time", "git", "web", "old"]
                .map(|server| row(server, None))
                .into();
            expected[1] = row("everything", Some(1));
            assert_eq!(rows, expected);
            // The image is shown after all results, and again in the next turn.
            let next = with(call(&[("old__upper", json!({"text": "again"}))]), "conversation_id", result["conversation_id"].clone());
            assert_eq!(s.answer(&next).await["message"]["content"], "AGAIN");
            for prompt in s.model.requests().iter().skip(1).map(|request| &request.body["messages"]) {
                let messages = prompt.as_array().unwrap();
                let at = messages.iter().position(|message| message["content"][1]["type"] == "image_url").unwrap();
                assert_eq!(messages[at - 1]["role"], "tool");
                assert_eq!(messages[at]["role"], "user");
                let url = messages[at]["content"][1]["image_url"]["url"].as_str().unwrap();
                assert!(url.starts_with("data:image/png;base64,iVBOR"), "{url:.50}");
            }
            let line = s.row("SELECT content FROM chat.transcript WHERE tool_name = 'get-tiny-image'").await;
            assert!(line["content"].as_str().unwrap().contains("[image: image/png, "), "{line}");
        })
        .await;
}

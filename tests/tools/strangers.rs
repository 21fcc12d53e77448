//! Servers as others publish them: these tests are left out where npm or node is not installed.

use chat_worker::chat::OutcomeStatus;
use chat_worker::config::ServerConfig;

use crate::harness::{Tools, eventually, server};
use crate::npm::installed;

/// A server of the `@modelcontextprotocol` packages, run by node itself: npx adds two processes.
async fn published(package: &str, args: &[&str]) -> ServerConfig {
    let main = installed(package).await;
    let mut all = vec![main.to_str().expect("a path in UTF-8")];
    all.extend(args);
    server("npm", "node", &all)
}

#[tokio::test]
async fn the_reference_server_for_everything_is_listed_and_called() {
    let tools = Tools::start([published("server-everything", &["stdio"]).await]);
    let outcome = tools.call("npm__echo", r#"{"message": "hello"}"#).await;
    assert_eq!(outcome.text, "Echo: hello", "{:?}", tools.health());
    let image = tools.call("npm__get-tiny-image", "{}").await;
    assert!(image.text.contains("[image: image/png, "), "{}", image.text);
    assert_eq!(image.media.len(), 1);
    assert_eq!(image.media[0].mime_type, "image/png");
    assert_eq!(
        tools.call("npm__echo", "{}").await.status,
        OutcomeStatus::Refused
    );
    // It lists more tools once it has been running for a moment, and says so.
    eventually("the late tools", async || {
        (tools.offer().await.specs().len() >= 13).then_some(())
    })
    .await;
    tools.end().await;
}

#[tokio::test]
async fn the_reference_server_for_files_lists_the_directory_it_is_given_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("present.txt"), "x").expect("a file");
    let path = directory.path().to_str().expect("a path in UTF-8");
    let tools = Tools::start([published("server-filesystem", &[path]).await]);
    let arguments = format!(r#"{{"path": "{path}"}}"#);
    let outcome = tools.call("npm__list_directory", &arguments).await;
    assert_eq!(outcome.text, "[FILE] present.txt", "{:?}", tools.health());
    let outcome = tools
        .call("npm__list_directory", r#"{"path": "/etc"}"#)
        .await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.text.contains("Access denied"), "{}", outcome.text);
    tools.end().await;
}

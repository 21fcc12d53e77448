//! Servers that bend the protocol, as a few lines of shell.

use chat_worker::chat::OutcomeStatus;
use chat_worker::config::ServerConfig;
use chat_worker::tools::ServerState;

use crate::harness::{Tools, server};

/// A server that answers the handshake with `version`, every list with `list`, every call with
/// `call`, and prints noise in between.
fn odd(version: &str, list: &str, call: &str) -> ServerConfig {
    let script = format!(
        r#"
        say() {{ printf '{{"jsonrpc":"2.0","id":%s,"result":%s}}\n' "$id" "$1"; }}
        while read -r line; do
            echo "debug: a line of noise"
            id=$(printf '%s' "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
            case "$line" in
                *'"initialize"'*) say '{{"protocolVersion":"{version}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"odd","version":"1"}}}}' ;;
                *tools/list*) say '{list}' ;;
                *tools/call*) say '{call}' ;;
            esac
        done"#
    );
    server("odd", "sh", &["-c", &script])
}

#[tokio::test]
async fn one_bad_tool_and_a_list_without_end_cost_nothing_else() {
    let list = r#"{"tools":[{"name":"good"},{"name":"bad","inputSchema":7},{"no":"name"}],"nextCursor":"again"}"#;
    let tools = Tools::start([odd("2024-11-05", list, "{}")]);
    let offer = tools.offer().await;
    let offered: Vec<_> = offer.specs().iter().map(|spec| &spec.name[..]).collect();
    assert_eq!(offered, ["odd__good"], "{:?}", tools.health());
    assert_eq!(tools.call("odd__good", "").await.text, "(no output)");
    tools.end().await;
}

#[tokio::test]
async fn content_of_an_unknown_kind_costs_nothing_else() {
    let call = r#"{"content":[{"type":"text","text":"said"},{"type":"hologram"},{"type":"image","data":"QUJD"}],"isError":true}"#;
    let tools = Tools::start([odd("2025-11-25", r#"{"tools":[{"name":"good"}]}"#, call)]);
    let outcome = tools.call("odd__good", "").await;
    assert_eq!(
        outcome.text,
        "Error: said\n{\"type\":\"hologram\"}\n[image: unknown type, 3 bytes, not shown]"
    );
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    tools.end().await;
}

#[tokio::test]
async fn a_protocol_version_that_nobody_knows_is_refused() {
    let tools = Tools::start([odd("2099-01-01", r#"{"tools":[]}"#, "{}")]);
    assert_eq!(tools.offer().await.missing(), ["odd"]);
    let ServerState::Down { reason, .. } = tools.health().state else {
        panic!("it is not down: {:?}", tools.health());
    };
    assert!(
        reason.contains("unknown protocol version 2099-01-01"),
        "{reason}"
    );
    tools.end().await;
}

//! What becomes of what servers list.

use std::fmt::Write as _;

use chat_worker::config::ServerConfig;
use chat_worker::tools::{Offer, Selection};

use crate::harness::{Tools, calc, eventually, with_env};
use crate::shell::shell;

/// A server that lists what is in the file at `path`.
fn lists(path: &str) -> ServerConfig {
    shell(&format!(r#"say "$(cat {path})""#), "say '{}'")
}

fn offered(offer: &Offer) -> Vec<&str> {
    offer.specs().iter().map(|spec| &spec.name[..]).collect()
}

/// What a model is told of the tools, byte for byte.
fn told(offer: &Offer) -> String {
    let mut told = String::new();
    for spec in &**offer.specs() {
        writeln!(told, "{} {} {}", spec.name, spec.description, spec.schema).expect("a line");
    }
    told
}

#[tokio::test]
async fn a_list_of_many_pages_is_read_to_its_end() {
    let list = r#"case "$line" in
        *'"cursor":"2"'*) say '{"tools":[{"name":"b"}],"nextCursor":"3"}' ;;
        *'"cursor":"3"'*) say '{"tools":[{"name":"c"}],"nextCursor":""}' ;;
        *) say '{"tools":[{"name":"a"}],"nextCursor":"2"}' ;;
    esac"#;
    let tools = Tools::start([shell(list, "say '{}'")]);
    let offer = tools.offer().await;
    assert_eq!(offered(&offer), ["shell__a", "shell__b", "shell__c"]);
    let health = tools.health();
    let about = health.about.expect("what it says of itself");
    assert_eq!(about.protocol, "2025-11-25");
    assert_eq!(about.server.as_deref(), Some("shell 1"));
    assert_eq!((health.transport, health.warnings.len()), ("stdio", 0));
    tools.end().await;
}

#[tokio::test]
async fn a_list_without_end_is_read_up_to_a_limit_and_said_to_be() {
    let list = r#"n=$((n + 1)); say '{"tools":[{"name":"t'$n'"}],"nextCursor":"c'$n'"}'"#;
    let tools = Tools::start([shell(list, "say '{}'")]);
    assert_eq!(tools.offer().await.specs().len(), 100);
    let warnings = tools.health().warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("only the first 100"),
        "{warnings:?}"
    );
    tools.end().await;
}

#[tokio::test]
async fn of_more_tools_than_models_take_the_first_are_offered_and_a_job_can_choose_the_others() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let many: Vec<_> = (0..150)
        .map(|number| format!(r#"{{"name":"t{number:03}"}}"#))
        .collect();
    let list = format!(r#"{{"tools":[{}]}}"#, many.join(","));
    std::fs::write(file.path(), list).expect("a list");
    let tools = Tools::start([lists(file.path().to_str().expect("a path"))]);
    let offer = tools.offer().await;
    assert_eq!(offer.specs().len(), 128);
    let said = offer.too_many().expect("a warning");
    assert!(
        said.contains("150 tools") && said.contains("shell__t128") && said.contains("allow"),
        "{said}"
    );
    let allow = ["shell__t1*".to_owned()];
    let selection = Selection {
        allow: &allow,
        ..Selection::default()
    };
    let offer = tools.toolbox.offer(&selection).await.expect("an offer");
    assert_eq!((offer.specs().len(), offer.too_many()), (50, None));
    assert!(offer.find("shell__t149").is_some());
    tools.end().await;
}

#[tokio::test]
async fn what_the_model_is_told_is_the_same_whatever_the_order_and_after_every_start() {
    let lists_of = [
        r#"{"tools":[{"name":"b","description":"B","inputSchema":{"type":"object","properties":{"y":{"type":"string"},"x":{"type":"array"}},"required":["x"]}},{"name":"a.a"},{"name":"a/a"}]}"#,
        r#"{"tools":[{"name":"a/a"},{"inputSchema":{"required":["x"],"properties":{"x":{"type":"array"},"y":{"type":"string"}},"type":"object"},"description":"B","name":"b"},{"name":"a.a"}]}"#,
    ];
    let mut seen = Vec::new();
    for list in lists_of {
        for _ in 0..2 {
            let tools = Tools::start([shell(&format!("say '{list}'"), "say '{}'"), calc()]);
            seen.push(told(&*tools.offer().await));
            tools.end().await;
        }
    }
    assert!(seen[0].contains("shell__b B {"), "{}", seen[0]);
    assert!(seen.iter().all(|told| *told == seen[0]), "{seen:#?}");
}

#[tokio::test]
async fn a_list_that_holds_for_a_while_is_read_again_then() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |name: &str| {
        let list = format!(r#"{{"tools":[{{"name":"{name}"}}],"ttlMs":100}}"#);
        std::fs::write(file.path(), list).expect("a list");
    };
    write("before");
    let tools = Tools::start([lists(file.path().to_str().expect("a path"))]);
    let job = tools.offer().await;
    assert_eq!(offered(&job), ["shell__before"]);
    write("after");
    eventually("the new list", async || {
        (offered(&*tools.offer().await) == ["shell__after"]).then_some(())
    })
    .await;
    assert_eq!(offered(&job), ["shell__before"], "a job's offer changed");
    tools.end().await;
}

#[tokio::test]
async fn a_server_of_the_newest_revision_is_listened_to() {
    let tools = Tools::start([with_env(calc(), "CALC_ERA", "modern")]);
    let outcome = tools.call("calc__learn", r#"{"name": "divide"}"#).await;
    assert_eq!(outcome.text, "learnt", "{:?}", tools.health());
    eventually("the new tool", async || {
        tools.offer().await.find("calc__divide").map(|_| ())
    })
    .await;
    let about = tools.health().about.expect("what it says of itself");
    assert_eq!(about.protocol, "2026-07-28");
    tools.end().await;
}

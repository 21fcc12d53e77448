//! The public conformance suites of the Model Context Protocol, against the worker's own client: left
//! out where npm or node is not installed.

use std::process::Output;
use std::time::Duration;

use tokio::process::Command;

use crate::harness::example;
use crate::npm::file_of;

/// The released suite, which ends with the revision of 2025-11-25, and the one that is coming.
const RELEASED: &str = "0.1.16";
const COMING: &str = "0.2.0-alpha.12";
/// The suites want a later node than distributions have.
const NODE: &str = "22";

/// Runs one scenario, which has to pass.
async fn passes(suite: &str, scenario: &str, more: &[&str]) {
    if let Err(said) = judge(suite, scenario, more).await {
        panic!("{suite} {scenario} {more:?}: {said}");
    }
}

/// What is wrong in one scenario. The suite's own figures say whether anything was looked at at all.
async fn judge(suite: &str, scenario: &str, more: &[&str]) -> Result<(), String> {
    let ran = run(suite, scenario, more).await;
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let figures = said.lines().find_map(|line| line.strip_prefix("Passed: "));
    let passed = figures.and_then(|figures| figures.split('/').next()?.parse::<u32>().ok());
    let good = ran.status.success() && passed >= Some(1);
    good.then_some(()).ok_or_else(|| said.into_owned())
}

async fn run(suite: &str, scenario: &str, more: &[&str]) -> Output {
    let results = tempfile::tempdir().expect("a directory");
    let main = file_of("@modelcontextprotocol/conformance", suite, "dist/index.js").await;
    let run = Command::new(file_of("node", NODE, "bin/node").await)
        .arg(main)
        .args(["client", "--command", &example("conformance_client")])
        .args(["--scenario", scenario])
        .args(more)
        .arg("-o")
        .arg(results.path())
        // Its colours would stand before its figures.
        .env("NO_COLOR", "1")
        .kill_on_drop(true)
        .output();
    let ran = tokio::time::timeout(Duration::from_mins(1), run).await;
    ran.expect("the suite did not end")
        .expect("the suite did not start")
}

#[tokio::test]
async fn the_released_suite_passes() {
    for scenario in [
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "auth/client-credentials-jwt",
        "auth/client-credentials-basic",
    ] {
        passes(RELEASED, scenario, &[]).await;
    }
}

#[tokio::test]
async fn the_coming_suite_passes() {
    for scenario in [
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
        "auth/client-credentials-jwt",
        "auth/client-credentials-basic",
    ] {
        passes(COMING, scenario, &[]).await;
    }
    for scenario in ["tools_call", "json-schema-2020-12-preservation"] {
        passes(COMING, scenario, &["--spec-version", "2026-07-28"]).await;
    }
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again_when_its_server_said() {
    for suite in [RELEASED, COMING] {
        // The suite itself allows 200 ms, by the clock of a machine that does other things as well.
        let mut last = Ok(());
        for _ in 0..3 {
            last = judge(suite, "sse-retry", &[]).await;
            if last.is_ok() {
                break;
            }
        }
        assert_eq!(last, Ok(()), "{suite}");
    }
}

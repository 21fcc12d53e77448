//! A tool call that was under way when its worker died.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::laws;
use crate::scenario::{Received, Scenario, Setup, call, eventually, puppet, runs};
use crate::watch::{calls_made, with_calc};

/// Has a worker die while a tool sleeps, and looks at what became of the job.
async fn die_during(tool: &str, server: Value, look: impl AsyncFnOnce(&Scenario, &str, Received)) {
    with_calc(Setup::new().model(puppet), &server)
        .run(async |s| {
            let job = s.send(&call(&[(tool, json!({"ms": 1500}))])).await;
            calls_made(s, 1).await;
            let worker = s.worker();
            worker.signal(Signal::KILL);
            worker.ended().await;
            let servers = s.lines("starts.log");
            s.start_worker().await;
            let result = s.result_of(&job).await;
            let answers = s.model.requests().len();
            laws::check(s, &job, std::slice::from_ref(&result), answers).await;
            look(s, &job, result).await;
            eventually("the end of the dead worker's tool servers", async || {
                let mut pids = servers.iter().map(|pid| pid.parse().expect("a pid"));
                pids.all(|pid| !runs(pid)).then_some(())
            })
            .await;
        })
        .await;
}

fn keys(s: &Scenario) -> Vec<String> {
    let effects = laws::effects(s).into_iter();
    effects.map(|effect| effect.key).collect()
}

fn said(result: &Received) -> String {
    result.json()["message"]["content"].to_string()
}

#[tokio::test]
async fn a_call_under_way_is_made_again_with_the_same_key_if_its_tool_is_idempotent() {
    die_during("calc__doze", json!({}), async |s, job, result| {
        assert_eq!(keys(s), [format!("{job}/1/1"), format!("{job}/1/1")]);
        assert!(said(&result).contains("slept 1500 ms"), "{result:?}");
        let call = s.tool_calls(job).await.remove(0);
        assert_eq!(
            (&call["status"], &call["attempt"]),
            (&json!("succeeded"), &json!(2))
        );
    })
    .await;
}

#[tokio::test]
async fn a_call_under_way_of_any_other_tool_is_not_made_again_and_the_model_is_told() {
    die_during("calc__sleep", json!({}), async |s, job, result| {
        assert_eq!(keys(s), [format!("{job}/1/1")]);
        let call = s.tool_calls(job).await.remove(0);
        assert_eq!(call["status"], "interrupted");
        assert!(!call["finished_at"].is_null(), "it was told: {call:#}");
        assert!(
            said(&result).contains("whether it had its effect is unknown"),
            "{result:?}"
        );
        assert_eq!(result.json()["status"], "completed");
    })
    .await;
}

#[tokio::test]
async fn a_call_under_way_is_made_again_where_the_configuration_says_so() {
    let server = json!({"on_interrupt": "retry"});
    die_during("calc__sleep", server, async |s, job, result| {
        assert_eq!(keys(s), [format!("{job}/1/1"), format!("{job}/1/1")]);
        assert!(said(&result).contains("slept 1500 ms"), "{result:?}");
    })
    .await;
}

#[tokio::test]
async fn a_call_under_way_fails_its_job_where_the_configuration_says_so() {
    let server = json!({"on_interrupt": "fail"});
    die_during("calc__sleep", server, async |s, job, result| {
        assert_eq!(keys(s), [format!("{job}/1/1")]);
        let result = result.json();
        assert_eq!(
            (&result["status"], &result["error"]["code"]),
            (&json!("failed"), &json!("tools_unavailable"))
        );
        let why = result["error"]["message"].as_str().unwrap();
        assert!(
            why.contains("calc__sleep") && why.contains("on_interrupt=fail"),
            "{why}"
        );
        let call = s.tool_calls(job).await.remove(0);
        assert_eq!(call["status"], "interrupted");
        let dead = s
            .row("SELECT job_id, error_code FROM chat.dead_letters")
            .await;
        assert_eq!(
            dead,
            json!({"job_id": job, "error_code": "tools_unavailable"})
        );
        assert_eq!(s.model.requests().len(), 1, "the model has no part in it");
    })
    .await;
}

/// What the configuration says of a call holds as well where its server cannot be started any more.
#[tokio::test]
async fn a_call_under_way_fails_its_job_though_its_server_is_away() {
    let setup = Setup::new().model(puppet);
    let gone = setup.file("gone.json");
    let entry = json!({"command": "/nowhere/calc_server", "on_interrupt": "fail"});
    let config = json!({"mcpServers": {"calc": entry}});
    std::fs::write(&gone, config.to_string()).expect("MCP_CONFIG");
    with_calc(setup, &json!({"on_interrupt": "fail"}))
        .run(async |s| {
            let job = s
                .send(&call(&[("calc__sleep", json!({"ms": 60_000}))]))
                .await;
            calls_made(s, 1).await;
            let worker = s.worker();
            worker.signal(Signal::KILL);
            worker.ended().await;
            s.start_worker_with(&[("MCP_CONFIG", &gone)]).await;
            let result = s.result_of(&job).await.json();
            let why = result["error"]["message"].as_str().unwrap_or_default();
            assert!(why.contains("on_interrupt=fail"), "{result}");
            assert_eq!(s.model.requests().len(), 1, "the model has no part in it");
        })
        .await;
}

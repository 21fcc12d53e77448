//! Tools as jobs meet them: what goes wrong is told to the model, and the processes outlive the jobs.

use serde_json::{Value, json};

use crate::scenario::{
    API_KEY, Scenario, Setup, ask, call, eventually, example, puppet, runs, said, with,
};
use crate::stub_model::Reply;

fn with_calc() -> Setup {
    Setup::new().calc().model(puppet)
}

/// The names of the tools in the last request to the model.
fn offered(s: &Scenario) -> Vec<String> {
    let request = s.model.requests().pop().unwrap();
    let tools = request.body["tools"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    tools
        .iter()
        .map(|tool| tool["function"]["name"].as_str().unwrap().to_owned())
        .collect()
}

fn text(result: &Value) -> String {
    result["message"]["content"]
        .as_str()
        .unwrap_or_else(|| panic!("no reply: {result}"))
        .to_owned()
}

#[tokio::test]
async fn what_goes_wrong_with_a_tool_is_told_to_the_model_and_the_job_goes_on() {
    with_calc()
        .run(async |s| {
            for (tool, arguments, status, told) in [
                (
                    "calc__subtract",
                    json!({"a": 1}),
                    "refused",
                    "calc__subtract",
                ),
                (
                    "no_such_server__add",
                    json!({}),
                    "refused",
                    "no_such_server__add",
                ),
                ("calc__add", json!("{\"a\": 1"), "refused", "JSON"),
                ("calc__add", json!("[1, 2]"), "refused", "object"),
                ("calc__add", json!("null and void"), "refused", "JSON"),
                ("calc__add", json!("[".repeat(50_000)), "refused", "JSON"),
                (
                    "calc__add",
                    json!(format!("{}{}", "[".repeat(9_000), "]".repeat(9_000))),
                    "refused",
                    "JSON",
                ),
                ("calc__add", json!({"a": 1}), "refused", "b"),
                ("calc__add", json!({"a": 1, "b": "two"}), "refused", "b"),
                (
                    "calc__fail",
                    json!({}),
                    "failed",
                    "Error: it failed, as it should",
                ),
                ("calc__die", json!({}), "failed", "stopped"),
                (
                    "calc__big",
                    json!({"bytes": 20_000_000}),
                    "failed",
                    "more than",
                ),
            ] {
                let result = s.answer(&call(&[(tool, arguments.clone())])).await;
                assert_eq!(
                    (&result["status"], &result["finish_reason"]),
                    (&json!("completed"), &json!("answered")),
                    "{tool} {arguments}"
                );
                let row = s
                    .tool_calls(result["job_id"].as_str().unwrap())
                    .await
                    .remove(0);
                assert_eq!(row["status"], status, "{tool} {arguments}: {row}");
                assert!(
                    text(&result).contains(told),
                    "{tool} {arguments}: {}",
                    text(&result)
                );
                assert_eq!(row["result"], text(&result));
                assert!(!row["finished_at"].is_null());
            }
            assert_eq!(
                text(
                    &s.answer(&call(&[("calc__add", json!({"a": 1, "b": 2}))]))
                        .await
                ),
                "3"
            );
        })
        .await;
}

#[tokio::test]
async fn one_bad_call_does_not_spoil_the_ones_beside_it() {
    with_calc().run(async |s| {
        let result = s.answer(&call(&[
            ("calc__add", json!({"a": 1, "b": 2})), ("calc__nothing", json!({})), ("calc__fail", json!({})), ("calc__add", json!({"a": 3, "b": 4})),
        ])).await;
        let lines = said(&s.last_prompt(), "tool");
        assert_eq!((lines[0].as_str(), lines[3].as_str(), result["tool_calls"].clone()), ("3", "7", json!(4)));
        let row = s.row("SELECT calls, failures FROM (SELECT sum(calls) AS calls, sum(failures) AS failures FROM chat.tool_stats_daily) AS t").await;
        assert_eq!(row, json!({"calls": 4, "failures": 2}));
    }).await;
}

#[tokio::test]
async fn of_a_large_result_the_model_sees_head_and_tail_and_the_record_more() {
    let setup = with_calc()
        .set("CHAT_MAX_TOOL_RESULT_BYTES", "2000")
        .set("CHAT_TOOL_RESULT_MODEL_BYTES", "600");
    setup
        .run(async |s| {
            let result = s
                .answer(&call(&[("calc__big", json!({"bytes": 100_000}))]))
                .await;
            let row = s
                .tool_calls(result["job_id"].as_str().unwrap())
                .await
                .remove(0);
            let stored = row["result"].as_str().unwrap();
            assert_eq!(
                (row["result_bytes"].as_u64(), &row["status"]),
                (Some(100_000), &json!("succeeded"))
            );
            assert!((1900..=2000).contains(&stored.len()), "{}", stored.len());
            assert!(
                stored.starts_with("xxx")
                    && stored.contains(" of 100000 bytes]")
                    && stored.ends_with("xxx"),
                "{stored}"
            );
            let seen = text(&result);
            assert!(
                seen.len() < 700
                    && seen.starts_with("xxx")
                    && seen.contains("left out here")
                    && seen.ends_with("xxx"),
                "{seen}"
            );
        })
        .await;
}

#[tokio::test]
async fn a_tool_that_takes_too_long_is_given_up() {
    Setup::new()
        .calc_with(&json!({"timeout_secs": 1}))
        .model(puppet)
        .run(async |s| {
            let result = s
                .answer(&call(&[
                    ("calc__sleep", json!({"ms": 60_000})),
                    ("calc__add", json!({"a": 1, "b": 1})),
                ]))
                .await;
            let rows = s.tool_calls(result["job_id"].as_str().unwrap()).await;
            assert_eq!(
                (&rows[0]["status"], &rows[1]["status"]),
                (&json!("failed"), &json!("succeeded"))
            );
            assert!(text(&result).contains("1.0 s"), "{}", text(&result));
        })
        .await;
}

#[tokio::test]
async fn a_job_chooses_its_tools() {
    let line = json!({"command": example("line_server"), "protocol": "line"});
    let calc = json!({"allow": ["add", "multiply", "fail"], "deny": ["fail"]});
    let setup = Setup::new()
        .calc_with(&calc)
        .server("line", line)
        .model(|_| Reply::text("yes"));
    setup
        .run(async |s| {
            let line = [
                "line__big",
                "line__die",
                "line__late",
                "line__pid",
                "line__upper",
            ];
            let calc = ["calc__add", "calc__multiply"];
            let all = [&calc[..], &line].concat();
            for (tools, expected) in [
                (json!({}), all.clone()),
                (json!({"servers": ["line"]}), line.to_vec()),
                (json!({"servers": []}), vec![]),
                (json!({"allow": ["calc__*"]}), calc.to_vec()),
                (
                    json!({"allow": ["*"], "deny": ["line__*", "*add"]}),
                    vec!["calc__multiply"],
                ),
                (json!({"servers": ["calc"], "allow": ["line__*"]}), vec![]),
                (json!({"servers": null, "choice": "auto"}), all),
            ] {
                s.answer(&with(ask("x"), "tools", tools.clone())).await;
                let mut names = offered(s);
                names.sort();
                assert_eq!(names, expected, "{tools}");
            }
        })
        .await;
}

#[tokio::test]
async fn a_job_may_forbid_tools_or_demand_one_in_its_first_call() {
    with_calc()
        .run(async |s| {
            let choice = |job, choice: &str| with(job, "tools", json!({ "choice": choice }));
            s.answer(&choice(ask("x"), "none")).await;
            assert_eq!(s.model.requests()[0].body["tool_choice"], "none");
            s.answer(&choice(
                call(&[("calc__add", json!({"a": 1, "b": 2}))]),
                "required",
            ))
            .await;
            let asked: Vec<_> = s.model.requests()[1..]
                .iter()
                .map(|request| request.body["tool_choice"].clone())
                .collect();
            assert_eq!(asked[0], "required");
            assert_ne!(asked[1], "required");
        })
        .await;
}

#[tokio::test]
async fn a_required_server_that_is_down_fails_the_job_and_another_is_left_out() {
    let broken = json!({"command": "/nowhere/at/all", "start_timeout_secs": 2});
    let setup = Setup::new()
        .calc()
        .set("CHAT_MAX_ATTEMPTS", "2")
        .server("broken", broken.clone())
        // The waits between more of them are longer than a test waits.
        .set("CHAT_MAX_ATTEMPTS", "2")
        .model(puppet)
        .unready();
    setup
        .run(async |s| {
            let result = s
                .answer(&call(&[("calc__add", json!({"a": 1, "b": 2}))]))
                .await;
            assert_eq!(
                (
                    text(&result).as_str(),
                    result["warnings"].as_array().unwrap().len()
                ),
                ("3", 1)
            );
            assert!(
                result["warnings"][0].as_str().unwrap().contains("broken"),
                "{result}"
            );
            let id = result["job_id"].as_str().unwrap();
            assert_eq!(s.job(id).await["warnings"], result["warnings"]);
            // Repeated, it says the same.
            let again = with(
                call(&[("calc__add", json!({"a": 1, "b": 2}))]),
                "job_id",
                id,
            );
            assert_eq!(s.answer(&again).await["warnings"], result["warnings"]);
            let named = s
                .answer(&with(ask("x"), "tools", json!({"servers": ["broken"]})))
                .await;
            assert_eq!(named["error"]["code"], "tools_unavailable", "{named}");
            assert!(
                named["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("broken")
            );
            let without = s
                .answer(&with(ask("x"), "tools", json!({"servers": ["calc"]})))
                .await;
            assert_eq!(
                (&without["status"], without.get("warnings")),
                (&json!("completed"), None)
            );
        })
        .await;
    let mut required = broken;
    required["required"] = json!(true);
    Setup::new()
        .server("broken", required)
        .set("CHAT_MAX_ATTEMPTS", "2")
        .unready()
        .run(async |s| {
            assert_eq!(
                s.answer(&ask("x")).await["error"]["code"],
                "tools_unavailable"
            );
            let (status, reasons) = s.worker().get("/readyz").await;
            assert!(
                status == 503 && reasons.contains("broken"),
                "{status} {reasons}"
            );
            assert_eq!(s.worker().get("/healthz").await.0, 200);
        })
        .await;
}

#[tokio::test]
async fn the_server_of_mcp_server_path_has_plain_names() {
    let setup = Setup::new()
        .model(puppet)
        .set("MCP_SERVER_PATH", format!("'{}'", example("calc_server")));
    setup
        .run(async |s| {
            let result = s.answer(&call(&[("add", json!({"a": 20, "b": 22}))])).await;
            assert_eq!(text(&result), "42");
            let row = s.row("SELECT server, tool FROM chat.tool_calls").await;
            assert_eq!(row, json!({"server": "default", "tool": "add"}));
        })
        .await;
}

#[tokio::test]
async fn a_server_of_the_line_dialect_answers() {
    let line = json!({"command": example("line_server"), "protocol": "line"});
    Setup::new()
        .server("line", line)
        .model(puppet)
        .run(async |s| {
            let result = s
                .answer(&call(&[
                    ("line__upper", json!({"text": "straße"})),
                    ("line__die", json!({})),
                ]))
                .await;
            assert!(text(&result).starts_with("STRASSE\n"), "{}", text(&result));
            let again = s
                .answer(&call(&[("line__upper", json!({"text": "again"}))]))
                .await;
            assert_eq!(text(&again), "AGAIN");
        })
        .await;
}

#[tokio::test]
async fn processes_are_kept_between_jobs_and_never_more_than_the_pool_holds() {
    with_calc()
        .run(async |s| {
            let pid = || call(&[("calc__pid", json!({}))]);
            let first = text(&s.answer(&pid()).await);
            for _ in 0..3 {
                assert_eq!(text(&s.answer(&pid()).await), first);
            }
            let mut ids = Vec::new();
            for _ in 0..100 {
                ids.push(
                    s.send(&call(&[
                        ("calc__sleep", json!({"ms": 5})),
                        ("calc__pid", json!({})),
                    ]))
                    .await,
                );
            }
            for id in ids {
                assert_eq!(s.result_of(&id).await.json()["tool_calls"], 2);
            }
            let starts = s.lines("starts.log");
            assert!((1..=4).contains(&starts.len()), "{starts:?}");
        })
        .await;
}

#[tokio::test]
async fn no_process_of_a_tool_server_outlives_its_worker() {
    with_calc()
        .run(async |s| {
            let both = [
                ("calc__sleep", json!({"ms": 50})),
                ("calc__sleep", json!({"ms": 50})),
            ];
            s.answer(&call(&both)).await;
            let pids: Vec<i32> = s
                .lines("starts.log")
                .iter()
                .map(|line| line.parse().unwrap())
                .collect();
            assert!(
                pids.len() >= 2 && pids.iter().all(|pid| runs(*pid)),
                "{pids:?}"
            );
            assert!(s.worker().stop().await.success());
            assert!(!pids.iter().any(|pid| runs(*pid)), "{pids:?}");
            // Nor one that is killed.
            let worker = s.start_worker().await;
            s.answer(&call(&[("calc__add", json!({"a": 1, "b": 2}))]))
                .await;
            worker.signal(rustix::process::Signal::KILL);
            worker.ended().await;
            let pids: Vec<i32> = s
                .lines("starts.log")
                .iter()
                .map(|line| line.parse().unwrap())
                .collect();
            eventually("the end of all processes", async || {
                (!pids.iter().any(|pid| runs(*pid))).then_some(())
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn a_process_sees_none_of_the_workers_secrets() {
    with_calc()
        .set("CALC_SECRET", "not given")
        .run(async |s| {
            let names = text(&s.answer(&call(&[("calc__env", json!({}))])).await);
            let names: Vec<_> = names.split(' ').collect();
            for name in &names {
                assert!(
                    [
                        "PATH",
                        "HOME",
                        "LANG",
                        "TMPDIR",
                        "TERM",
                        "CALC_LOG",
                        "CALC_START_LOG"
                    ]
                    .contains(name),
                    "{names:?}"
                );
            }
            assert!(names.contains(&"PATH"));
        })
        .await;
    // A secret that is given on purpose is in no row and no log.
    let given = json!({"env": {"TOKEN": "${OPENAI_API_KEY}"}});
    Setup::new()
        .calc_with(&given)
        .model(puppet)
        .run(async |s| {
            let names = text(&s.answer(&call(&[("calc__env", json!({}))])).await);
            assert!(names.contains("TOKEN") && !names.contains(API_KEY));
        })
        .await;
}

#[tokio::test]
async fn calls_say_on_whose_behalf_they_are_made() {
    with_calc()
        .run(async |s| {
            let result = s
                .answer(&call(&[
                    ("calc__add", json!({"a": 1, "b": 2})),
                    ("calc__echo_meta", json!({})),
                ]))
                .await;
            let id = result["job_id"].as_str().unwrap();
            let told = said(&s.last_prompt(), "tool").remove(1);
            let meta: Value = serde_json::from_str(&told).unwrap();
            assert_eq!(meta["chat-worker/idempotencyKey"], format!("{id}/1/2"));
            assert_eq!(
                (
                    &meta["chat-worker/jobId"],
                    &meta["chat-worker/userId"],
                    &meta["chat-worker/conversationId"]
                ),
                (&json!(id), &json!("user-42"), &json!(id))
            );
        })
        .await;
}

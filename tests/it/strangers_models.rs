//! Jobs with model servers of others, which know nothing of this program: `llmock` grades how a client
//! meets its faults, `aimock` speaks both of OpenAI's APIs. Left out where npm or Python is not installed.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::npm;
use crate::pypi;
use crate::scenario::{Setup, ask, eventually, with};

/// A model server of others, which ends with the test.
struct Emulator {
    _process: Child,
    address: String,
    http: reqwest::Client,
}

impl Emulator {
    /// Starts it; `ready` is a path that it answers.
    async fn start(mut command: Command, port: u16, ready: &str) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = quiet.kill_on_drop(true).spawn().expect("an emulator");
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let http = reqwest::Client::builder().no_proxy().build();
        let emulator = Self {
            _process: process,
            address: format!("http://127.0.0.1:{port}"),
            http: http.expect("a client"),
        };
        eventually("the emulator", async || {
            let asked = emulator.http.get(format!("{}{ready}", emulator.address));
            asked.send().await.ok().map(drop)
        })
        .await;
        emulator
    }

    async fn llmock() -> Self {
        let program = pypi::program("llmock==0.2.2", "llmock");
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["serve", "--log-level", "warning", "--port"]);
        // Whether who reads a stream stopped reading it can be seen only while there is more to come.
        command.args([&port.to_string(), "--stream-chunk-delay-ms", "200"]);
        command.stderr(Stdio::null());
        Self::start(command, port, "/_llmock/requests").await
    }

    async fn aimock(directory: &Path, fixtures: &Value) -> Self {
        let main = npm::file_of("@copilotkit/aimock", "1.43.0", "dist/aimock-cli.js").await;
        let port = free_port();
        let (said, config) = (directory.join("said.json"), directory.join("aimock.json"));
        std::fs::write(&said, json!({"fixtures": fixtures}).to_string()).expect("fixtures");
        let settings = json!({"port": port, "host": "127.0.0.1", "llm": {"fixtures": said}});
        std::fs::write(&config, settings.to_string()).expect("a configuration");
        let mut command = Command::new("node");
        command.arg(main).arg("--config").arg(config);
        command.env("AIMOCK_STRICT_TURN_INDEX", "1");
        Self::start(command, port, "/__aimock/journal").await
    }

    fn base_url(&self) -> String {
        format!("{}/v1", self.address)
    }

    async fn get(&self, path: &str) -> Value {
        let asked = self.http.get(format!("{}{path}", self.address));
        let answer = asked.send().await.expect("an answer");
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
    }

    async fn post(&self, path: &str, body: &Value) {
        let posted = self.http.post(format!("{}{path}", self.address));
        let posted = posted
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = posted.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

#[tokio::test]
async fn llmock_finds_no_fault_with_how_its_faults_are_met() {
    let llmock = Emulator::llmock().await;
    let setup = Setup::new()
        .calc()
        .set("OPENAI_BASE_URL", llmock.base_url())
        .set("CHAT_MODEL_IDLE_SECS", "2");
    let stream_fault = |kind| json!({"type": "stream_fault", "kind": kind, "after_chunks": 2, "stall_seconds": 20});
    let faults = [
        (
            json!({"type": "fail", "status": 429, "retry_after": 1.5, "times": 2}),
            false,
        ),
        (json!({"type": "fail", "status": 500, "times": 2}), false),
        (
            json!({"type": "fail", "status": 503, "retry_after": 1}),
            true,
        ),
        (
            json!({"type": "tool_fault", "kind": "malformed_arguments"}),
            false,
        ),
        (json!({"type": "tool_fault", "kind": "unknown_tool"}), true),
        (json!({"type": "delay", "seconds": 1.5}), false),
        (stream_fault("disconnect"), true),
        (stream_fault("truncate"), true),
        (stream_fault("malformed"), true),
        (stream_fault("stall"), true),
    ];
    setup
        .run(async |s| {
            for (number, (fault, streams)) in faults.iter().enumerate() {
                let behaviours = json!({"behaviors": [fault]});
                llmock.post("/_llmock/scenario", &behaviours).await;
                let job = ask(&format!("Add two numbers, please. This is case {number}."));
                let job = with(job, "tools", json!({"allow": ["calc__add"]}));
                let job = with(job, "max_iterations", 6);
                let result = s.answer(&with(job, "stream", *streams)).await;
                assert_eq!(result["status"], "completed", "{fault}: {result}");
            }
            let verdict = llmock.get("/_llmock/verdict").await;
            assert_eq!(verdict["passed"], true, "{verdict}");
            assert_eq!(verdict["findings"], json!([]), "{verdict}");
            obeys_retry_after(&llmock.get("/_llmock/requests").await);
        })
        .await;
}

/// After each answer that names a wait the same request comes again no sooner, and not much later.
fn obeys_retry_after(requests: &Value) {
    let requests = requests["requests"].as_array().expect("requests");
    let mut waits = 0;
    for (at, request) in requests.iter().enumerate() {
        let Some(asked) = request["retry_after"].as_f64() else {
            continue;
        };
        let mut later = requests.iter().skip(at + 1);
        let again = later
            .find(|later| later["fingerprint"] == request["fingerprint"])
            .expect("it is made again");
        let time = |request: &Value, field: &str| request[field].as_f64().expect("a time");
        let waited = time(again, "started_at") - time(request, "ended_at");
        // The second is for a machine that is busy.
        assert!(
            (asked..asked * 1.1 + 1.0).contains(&waited),
            "{waited} of {asked}"
        );
        waits += 1;
    }
    assert!(waits >= 3, "{waits}");
}

fn fixtures() -> Value {
    json!([
        {"match": {"userMessage": "20 plus 22", "hasToolResult": false},
         "response": {"toolCalls": [{"id": "call_1", "name": "calc__add", "arguments": {"a": 20, "b": 22}}]}},
        {"match": {"userMessage": "20 plus 22", "hasToolResult": true},
         "response": {"content": "The answer is 42"}},
        {"match": {"userMessage": "cut off"},
         "response": {"content": "This is all that", "finishReason": "length"}},
        {"match": {"userMessage": "broken"},
         "response": {"toolCalls": [{"id": "call_2", "name": "calc__add", "arguments": "{\"a\": 1, "}]}},
    ])
}

#[tokio::test]
async fn aimock_is_understood_over_both_apis_whole_and_piece_by_piece() {
    let directory = tempfile::tempdir().expect("a directory");
    let aimock = Emulator::aimock(directory.path(), &fixtures()).await;
    for api in ["chat", "responses"] {
        let setup = Setup::new()
            .calc()
            .set("OPENAI_BASE_URL", aimock.base_url())
            .set("CHAT_API", api);
        setup
            .run(async |s| {
                for streams in [false, true] {
                    let said = |text: &str| with(ask(text), "stream", streams);
                    // One failure first, which is waited out.
                    let down = json!({"status": 503, "body": {"message": "down"}});
                    aimock.post("/__aimock/error", &down).await;
                    let sum = s.answer(&said("What is 20 plus 22?")).await;
                    assert_eq!(
                        (&sum["message"]["content"], &sum["tool_calls"]),
                        (&json!("The answer is 42"), &json!(1)),
                        "{api}, {streams}: {sum}"
                    );
                    let cut = s.answer(&said("Will this be cut off?")).await;
                    assert_eq!(cut["finish_reason"], "length", "{api}, {streams}: {cut}");
                    assert_eq!(cut["message"]["content"], "This is all that");
                }
                let rows = s
                    .rows("SELECT DISTINCT tool, status, result FROM chat.tool_calls")
                    .await;
                let sum = json!({"tool": "add", "status": "succeeded", "result": "42"});
                assert_eq!(rows, [sum]);
            })
            .await;
    }
}

#[tokio::test]
async fn arguments_that_aimock_breaks_are_told_to_the_model_and_end_no_job() {
    let directory = tempfile::tempdir().expect("a directory");
    let aimock = Emulator::aimock(directory.path(), &fixtures()).await;
    let setup = Setup::new()
        .calc()
        .set("OPENAI_BASE_URL", aimock.base_url());
    setup
        .run(async |s| {
            let job = with(ask("Say something broken."), "max_iterations", 2);
            let result = s.answer(&job).await;
            assert_eq!(result["finish_reason"], "iteration_limit", "{result}");
            let call = s
                .row("SELECT status, result FROM chat.tool_calls WHERE iteration = 1")
                .await;
            assert_eq!(call["status"], "refused");
            let told = call["result"].as_str().expect("a text");
            assert!(told.contains("no JSON"), "{told}");
        })
        .await;
}

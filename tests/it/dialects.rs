//! The same conversations over both of OpenAI's APIs end with the same rows; and a model that is down
//! has another answer in its stead.

use serde_json::{Value, json};

use crate::scenario::{API_KEY, Scenario, Setup, ask, said, systems, with};
use crate::stub_model::{Reply, Script, StubModel};

const MODELS: &str = r#"
[models.primary]
fallbacks = ["second", "third"]
price = { input = 1, output = 1 }
[models.third]
price = { input = 1000000, output = 1000000 }
[models.narrow]
context_window = 2000
"#;

fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn calls(calls: &[Value]) -> Reply {
    Reply::message(&json!({"role": "assistant", "content": null, "tool_calls": calls}))
}

/// Answers by what the user said last; of a turn with results it tells them.
fn script(request: &Value) -> Reply {
    if request["model"] == "primary" || request["model"] == "second" {
        return Reply::error(503, "server_error", "overloaded", "Down");
    }
    let messages = request["messages"].as_array().unwrap();
    if systems(messages)[0].starts_with("You summarise") {
        return Reply::text("They spoke of rivers.");
    }
    let at = messages
        .iter()
        .rposition(|message| message["role"] == "user");
    let (question, since) = messages[at.unwrap()..].split_first().unwrap();
    let results = said(since, "tool");
    if !results.is_empty() {
        return Reply::text(results.join(" and "));
    }
    let add = |id: &str, a: i64| call(id, "calc__add", &json!({"a": a, "b": 1}).to_string());
    match question["content"].as_str().unwrap_or("a picture") {
        "one tool" => calls(&[add("call_1", 41)]),
        "parallel tools" => calls(&[add("call_1", 1), add("call_2", 2), add("call_3", 3)]),
        "broken arguments" => calls(&[call("call_1", "calc__add", "{\"a\": "), add("call_2", 2)]),
        "failing tool" => calls(&[
            call("call_1", "calc__fail", "{}"),
            call("call_2", "calc__nothing", "{}"),
        ]),
        "refusal" => {
            Reply::message(&json!({"role": "assistant", "content": null, "refusal": "I must not."}))
        }
        "length" => Reply::text("It goes on and").finish("length"),
        "structured" => Reply::text(r#"{"answer": 42}"#),
        "again" => Reply::text(format!("You said {} things.", said(messages, "user").len())),
        other => Reply::text(format!("So much for {other}.")),
    }
}

/// The jobs of all conversations, those of one in order.
fn conversations() -> Vec<Vec<Value>> {
    let format = json!({"response_format": {"type": "json_schema", "json_schema": {
        "name": "answer", "strict": true,
        "schema": {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"], "additionalProperties": false},
    }}});
    let picture = json!([
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
    ]);
    let of_picture =
        json!({"user_id": "user-42", "messages": [{"role": "user", "content": picture}]});
    let remembered = json!({"user_id": "user-42", "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "plain"},
    ]});
    let mut all = vec![
        vec![remembered],
        vec![ask("one tool")],
        vec![ask("parallel tools")],
        vec![ask("one tool"), ask("parallel tools"), ask("again")],
        vec![ask("refusal"), ask("again")],
        vec![ask("length"), ask("again")],
        vec![with(ask("structured"), "options", format)],
        vec![of_picture],
        vec![
            with(ask("one tool"), "stream", true),
            with(ask("streamed"), "stream", true),
        ],
        vec![ask("failing tool")],
        vec![ask("broken arguments"), ask("again")],
        vec![with(ask("one tool"), "model", "primary")],
        // One of these fits into four fifths of the window, and two do not.
        ["", "and ", "then "]
            .map(|start| ask(&format!("{start}{}", "the river ".repeat(240))))
            .map(|job| with(job, "model", "narrow"))
            .to_vec(),
    ];
    for (number, jobs) in all.iter_mut().enumerate() {
        let conversation = format!("018f0000-0000-7000-8000-{number:012}");
        for (turn, job) in jobs.iter_mut().enumerate() {
            job["conversation_id"] = conversation.clone().into();
            job["job_id"] = format!("018f0000-0000-7000-9000-{number:06}{turn:06}").into();
        }
    }
    all
}

/// What the rows say, without what no two runs have in common.
async fn rows(s: &Scenario) -> Vec<Value> {
    let mut all = Vec::new();
    for query in [
        "SELECT id, conversation_id, turn, status, finish_reason, reply, refusal, error_code, iterations, tool_calls, warnings, model FROM chat.jobs ORDER BY id",
        "SELECT job_id, number, content, refusal, finish_reason, tool_calls, model, requested_model, asked_model FROM chat.iterations ORDER BY job_id, number",
        "SELECT job_id, iteration, position, call_id, offered_as, server, tool, arguments, status, result FROM chat.tool_calls ORDER BY job_id, iteration, position",
        "SELECT conversation_id, job_id, content, up_to_turn FROM chat.summaries",
        "SELECT conversation_id, turn, position, role, content, tool_name, tool_call_id, tool_calls FROM chat.transcript ORDER BY conversation_id, turn, position",
    ] {
        all.extend(s.rows(query).await);
    }
    all
}

async fn converse(api: &str) -> (Vec<Value>, Vec<Value>) {
    let seen = std::sync::Mutex::new((Vec::new(), Vec::new()));
    let setup = Setup::new().calc().models(MODELS).model(script);
    setup
        .set("CHAT_API", api)
        .set("CHAT_MODEL", "gpt-5.5")
        .set("CHAT_MAX_ITERATIONS", "4")
        .set("CHAT_COMPACT", "true")
        .run(async |s| {
            let mut results = Vec::new();
            for jobs in conversations() {
                for job in jobs {
                    let result = s.answer(&job).await;
                    let kept = [
                        "job_id",
                        "status",
                        "finish_reason",
                        "message",
                        "parsed",
                        "iterations",
                        "tool_calls",
                        "warnings",
                        "model",
                    ];
                    let kept = kept.map(|field| (field.to_owned(), result[field].clone()));
                    results.push(Value::Object(kept.into_iter().collect()));
                }
            }
            let path = format!(
                "/v1/{}",
                if api == "chat" {
                    "chat/completions"
                } else {
                    api
                }
            );
            assert!(
                s.model
                    .requests()
                    .iter()
                    .all(|request| request.path == path)
            );
            *seen.lock().unwrap() = (results, rows(s).await);
        })
        .await;
    seen.into_inner().unwrap()
}

#[tokio::test]
async fn the_same_conversations_over_both_apis_end_with_the_same_rows() {
    let (chat, responses) = tokio::join!(converse("chat"), converse("responses"));
    for (one, other) in chat.0.iter().zip(&responses.0) {
        assert_eq!(one, other, "left: Chat Completions, right: Responses");
    }
    assert_eq!(chat.1.len(), responses.1.len());
    for (one, other) in chat.1.iter().zip(&responses.1) {
        assert_eq!(one, other, "left: Chat Completions, right: Responses");
    }
    // They are the conversations that they are meant to be.
    let finish = |reason: &str| {
        chat.0
            .iter()
            .filter(|result| result["finish_reason"] == reason)
            .count()
    };
    assert_eq!((finish("refused"), finish("length")), (1, 1));
    assert_eq!(chat.0.len(), finish("answered") + 2);
    let summary = |row: &&Value| row["up_to_turn"].is_u64();
    let summaries: Vec<_> = chat.1.iter().filter(summary).collect();
    assert_eq!(summaries.len(), 2, "{summaries:?}");
    assert_eq!(summaries[1]["content"], "They spoke of rivers.");
    assert!(
        chat.0
            .iter()
            .any(|result| result["parsed"] == json!({"answer": 42})),
        "{:#?}",
        chat.0
    );
}

#[tokio::test]
async fn a_model_that_stays_down_has_another_answer_in_its_stead_and_the_record_says_so() {
    Setup::new().calc().models(MODELS)
        .model(script)
        .run(async |s| {
            let result = s.answer(&with(ask("one tool"), "model", "primary")).await;
            assert_eq!(result["status"], "completed", "{result}");
            assert_eq!(result["message"]["content"], "42");
            let warning = "model \"primary\" did not answer; \"third\" answered in its stead";
            assert_eq!(result["warnings"], json!([warning]));
            assert_eq!(result["model"], "third-2024-07-18");
            let tokens = result["usage"]["total_tokens"].as_f64().unwrap();
            assert_eq!(result["usage"]["cost_usd"].as_f64(), Some(tokens), "at the price of the one that answered");
            for row in s.rows("SELECT requested_model, asked_model, model FROM chat.iterations").await {
                let expected = json!({"requested_model": "primary", "asked_model": "third", "model": "third-2024-07-18"});
                assert_eq!(row, expected);
            }
            // Three tries each for the two that are down; in the second round the third is asked first.
            let asked: Vec<_> = s.model.requests().iter().map(|request| request.body["model"].clone()).collect();
            let expected = ["primary", "primary", "primary", "second", "second", "second", "third", "third"];
            assert_eq!(asked, expected);
            let job = s.row("SELECT * FROM chat.jobs").await;
            assert_eq!((&job["attempt"], &job["failures"]), (&json!(1), &json!(0)));
        })
        .await;
}

#[tokio::test]
async fn what_one_that_stands_in_does_not_take_another_may() {
    let script = |request: &Value| {
        if request["model"] == "second" {
            return Reply::error(
                400,
                "invalid_request_error",
                "unsupported_value",
                "Not here",
            );
        }
        script(request)
    };
    Setup::new()
        .models(MODELS)
        .model(script)
        .run(async |s| {
            let result = s.answer(&with(ask("plain"), "model", "primary")).await;
            assert_eq!(result["status"], "completed", "{result}");
            assert_eq!(result["model"], "third-2024-07-18");
        })
        .await;
}

/// A model that is held back was not asked, and those that stand in for it were: that counts.
#[tokio::test]
async fn a_job_whose_model_is_held_back_and_whose_stand_ins_fail_has_failed() {
    let script = |request: &Value| {
        if request["model"] == "primary" {
            return Reply::error(429, "requests", "rate_limit_exceeded", "Slow down")
                .with_header("retry-after", "60");
        }
        Reply::error(500, "server_error", "", "Broken")
    };
    Setup::new()
        .models(MODELS)
        .model(script)
        .run(async |s| {
            let job = with(ask("x"), "model", "primary");
            for _ in 0..2 {
                let id = s.send(&job).await;
                let row = s.waits(&id, "retry").await;
                assert_eq!(row["failures"], 1, "{row}");
            }
            let requests = s.model.requests();
            let primary = requests
                .iter()
                .filter(|request| request.body["model"] == "primary");
            assert_eq!(primary.count(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_request_that_is_wrong_everywhere_is_not_sent_to_others() {
    Setup::new()
        .models(MODELS)
        .replies([Reply::error(
            400,
            "invalid_request_error",
            "unknown_parameter",
            "No",
        )])
        .run(async |s| {
            let result = s.answer(&with(ask("x"), "model", "primary")).await;
            assert_eq!(result["error"]["code"], "model_rejected", "{result}");
            assert_eq!(s.model.requests().len(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_key_or_an_account_that_is_no_good_lets_others_answer() {
    for (status, code) in [
        (401, "invalid_api_key"),
        (429, "insufficient_quota"),
        (404, "model_not_found"),
    ] {
        Setup::new()
            .models(MODELS)
            .replies([
                Reply::error(status, "invalid_request_error", code, "No"),
                Reply::text("Hi"),
            ])
            .run(async |s| {
                let result = s.answer(&with(ask("x"), "model", "primary")).await;
                assert_eq!(result["message"]["content"], "Hi", "{code}: {result}");
                assert_eq!(s.model.requests()[1].body["model"], "second");
            })
            .await;
    }
}

#[tokio::test]
async fn a_key_with_a_line_break_and_an_address_with_a_slash_work() {
    Setup::new()
        .replicas(0)
        .run(async |s| {
            let (key, url) = (format!("{API_KEY}\n"), format!("{}/", s.model.base_url()));
            let settings = [("OPENAI_API_KEY", key.as_str()), ("OPENAI_BASE_URL", &url)];
            s.start_worker_with(&settings).await;
            let result = s.answer(&ask("Hello")).await;
            assert_eq!(result["status"], "completed", "{result}");
            let request = &s.model.requests()[0];
            assert_eq!(request.path, "/v1/chat/completions");
            assert_eq!(
                request.headers["authorization"],
                format!("Bearer {API_KEY}")
            );
        })
        .await;
}

#[tokio::test]
async fn check_says_that_a_key_is_wrong_and_does_not_show_it() {
    let stub = StubModel::start(Script::arithmetic()).wants_key("sk-right-0123", false);
    let file = tempfile::NamedTempFile::new().unwrap();
    let table = format!(
        "[models.mine]\nbase_url = {:?}\napi_key_env = \"MY_KEY\"\n",
        stub.base_url()
    );
    std::fs::write(file.path(), table).unwrap();
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_chat-worker"))
        .arg("check")
        .env_clear()
        .current_dir(std::env::temp_dir())
        .envs([
            ("AMQP_URL", "amqp://127.0.0.1:9/%2f"),
            ("DATABASE_URL", "postgres://127.0.0.1:9/x"),
            ("OPENAI_BASE_URL", &stub.base_url()),
            ("OPENAI_API_KEY", API_KEY),
            ("CHAT_MODEL_CONFIG", file.path().to_str().unwrap()),
            ("MY_KEY", "sk-right-0123"),
        ])
        .output()
        .await
        .unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let out = String::from_utf8(ran.stdout).unwrap();
    let line = |start: &str| {
        let line = out.lines().find(|line| line.contains(start));
        line.unwrap_or_else(|| panic!("{start}: {out}"))
    };
    let model = line("  model  ");
    assert!(model.starts_with("FAILED"), "{model}");
    assert!(
        model.contains("did not accept the credentials") && model.contains("OPENAI_API_KEY"),
        "{model}"
    );
    assert!(line("model mine").starts_with("ok"), "{out}");
    let start = &API_KEY[..8];
    assert!(
        !out.contains(start) && !String::from_utf8_lossy(&ran.stderr).contains(start),
        "{out}"
    );
}

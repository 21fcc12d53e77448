//! What a job comes to: its result, its rows, and what the model was asked.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scenario::{Properties, Scenario, Setup, ask, said, systems, with};
use crate::stub_model::Reply;

const UNFINISHED: &str = "No se pudo obtener respuesta final.";

fn add(a: i64, b: i64) -> (&'static str, Value) {
    ("calc__add", json!({"a": a, "b": b}))
}

#[tokio::test]
async fn a_job_with_only_a_user_and_messages_gets_a_result_with_every_field_and_property() {
    Setup::new().calc().run(async |s| {
        let job = ask("What is 20 plus 22?");
        let body = job.to_string();
        s.send_bytes(body.as_bytes(), Properties::default()).await;
        let received = s.results().await.next().await;
        let result = received.json();
        let id = result["job_id"].as_str().unwrap();
        assert!(Uuid::parse_str(id).is_ok());
        let usage = &result["usage"];
        let tokens = |name: &str| usage[name].as_u64().unwrap();
        assert!(tokens("input_tokens") > 0 && tokens("output_tokens") > 0, "{usage}");
        assert_eq!(tokens("total_tokens"), tokens("input_tokens") + tokens("output_tokens"));
        let mut rest = result.clone();
        for time in ["received_at", "started_at", "finished_at"] {
            let text = rest.as_object_mut().unwrap().remove(time).unwrap();
            assert!(chrono::DateTime::parse_from_rfc3339(text.as_str().unwrap()).is_ok(), "{time}: {text}");
        }
        assert_eq!(rest, json!({
            "version": 1, "job_id": id, "conversation_id": id, "user_id": "user-42", "turn": 1,
            "success": true, "status": "completed", "finish_reason": "answered",
            "message": {"role": "assistant", "content": "The answer is 42"},
            "iterations": 2, "tool_calls": 1, "usage": usage,
            "model": "gpt-4o-mini-2024-07-18", "attempt": 1, "metadata": null,
        }));
        assert_eq!(usage.as_object().unwrap().len(), 5, "{usage}");
        let properties = &received.properties;
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "chat.result");
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(received.message_id(), id);
        assert_eq!(received.correlation_id(), id);
        assert_eq!(received.header("x-chat-status").as_deref(), Some("completed"));
        let traceparent = received.header("traceparent").unwrap();
        assert!(traceparent.starts_with("00-") && traceparent.len() == 55, "{traceparent}");
    }).await;
}

#[tokio::test]
async fn a_job_leaves_rows_in_every_table_and_reads_as_a_conversation() {
    Setup::new().calc().run(async |s| {
        let result = s.answer(&ask("What is 20 plus 22?")).await;
        let id = result["job_id"].as_str().unwrap();
        let conversation = s.row("SELECT * FROM chat.conversations").await;
        assert_eq!((&conversation["id"], &conversation["user_id"], &conversation["turns"]), (&json!(id), &json!("user-42"), &json!(1)));
        let job = s.row_where("SELECT * FROM chat.jobs", |job| !job["result_published_at"].is_null()).await;
        for (column, value) in [
            ("id", json!(id)), ("conversation_id", json!(id)), ("turn", json!(1)), ("user_id", json!("user-42")),
            ("status", json!("completed")), ("wait_reason", Value::Null), ("attempt", json!(1)), ("failures", json!(0)),
            ("model", json!("gpt-4o-mini-2024-07-18")), ("finish_reason", json!("answered")), ("reply", json!("The answer is 42")),
            ("error_code", Value::Null), ("iterations", json!(2)), ("tool_calls", json!(1)),
            ("input_tokens", result["usage"]["input_tokens"].clone()), ("output_tokens", result["usage"]["output_tokens"].clone()),
        ] {
            assert_eq!(job[column], value, "{column}");
        }
        assert_eq!(job["request"]["messages"], ask("What is 20 plus 22?")["messages"]);
        let iterations = s.rows("SELECT * FROM chat.iterations ORDER BY number").await;
        assert_eq!(iterations.len(), 2);
        assert_eq!(iterations[0]["finish_reason"], "tool_calls");
        assert_eq!(iterations[1]["content"], "The answer is 42");
        assert!(iterations[0]["response_id"].as_str().unwrap().starts_with("chatcmpl-"));
        let call = s.row("SELECT * FROM chat.tool_calls").await;
        for (column, value) in [
            ("iteration", json!(1)), ("position", json!(1)), ("server", json!("calc")), ("tool", json!("add")),
            ("arguments", json!({"a": 20, "b": 22})), ("status", json!("succeeded")), ("result", json!("42")), ("result_bytes", json!(2)),
        ] {
            assert_eq!(call[column], value, "{column}");
        }
        let attempt = s.row("SELECT * FROM chat.attempts").await;
        assert_eq!((&attempt["attempt"], &attempt["outcome"]), (&json!(1), &json!("completed")));
        assert!(!attempt["ended_at"].is_null());
        let worker = s.row("SELECT * FROM chat.workers").await;
        assert_eq!(worker["pid"], json!(s.worker().pid()));
        assert_eq!(worker["id"], attempt["worker_id"]);
        assert!(s.rows("SELECT * FROM chat.dead_letters").await.is_empty());

        let transcript = s.rows("SELECT turn, position, role, content, tool_name, tool_calls FROM chat.transcript ORDER BY conversation_id, turn, position").await;
        let lines: Vec<_> = transcript.iter().map(|line| (line["role"].as_str().unwrap(), line["content"].as_str())).collect();
        assert_eq!(lines, [
            ("user", Some("What is 20 plus 22?")), ("assistant", None), ("tool", Some("42")), ("assistant", Some("The answer is 42")),
        ]);
        assert_eq!(transcript[1]["tool_calls"][0]["arguments"], json!({"a": 20, "b": 22}));
        assert_eq!(transcript[2]["tool_name"], "add");
        let positions: Vec<_> = transcript.iter().map(|line| line["position"].as_u64().unwrap()).collect();
        assert_eq!(positions, [1, 2, 3, 4]);

        let summary = s.row("SELECT job_id, status, extract(epoch from run_time) AS run, extract(epoch from model_time) AS model, extract(epoch from tool_time) AS tool, extract(epoch from queue_wait) AS wait FROM chat.job_summary").await;
        assert_eq!((&summary["job_id"], &summary["status"]), (&json!(id), &json!("completed")));
        let seconds = |name: &str| summary[name].as_f64().unwrap();
        assert!(seconds("model") > 0.0 && seconds("tool") > 0.0 && seconds("wait") >= 0.0, "{summary}");
        let rest = seconds("run") - seconds("model") - seconds("tool");
        assert!(rest > -0.05, "{summary}");
    }).await;
}

#[tokio::test]
async fn the_providers_message_is_stored_and_replayed_as_it_was_sent() {
    let odd = r#"{"role":"assistant","zeta":1.50,"content":"Hm  é","reasoning_content":"secret ideas","alpha":{"b":1,"a":[1e2]},"tool_calls":[{"id":"c1","type":"function","function":{"name":"calc__add","arguments":"{ \"b\": 2,  \"a\": 1 }"}}]}"#;
    Setup::new()
        .calc()
        .replies([Reply::message_text(odd), Reply::text("3")])
        .run(async |s| {
            let result = s.answer(&ask("1 and 2?")).await;
            assert_eq!(result["message"]["content"], "3");
            let stored = s
                .row("SELECT message::text AS text FROM chat.iterations WHERE number = 1")
                .await;
            assert_eq!(stored["text"], odd);
            let asked = &s.model.requests()[1].text;
            for piece in [
                "\"reasoning_content\":\"secret ideas\"",
                "{ \\\"b\\\": 2,  \\\"a\\\": 1 }",
                "Hm  é",
            ] {
                assert!(asked.contains(piece), "{piece} in {asked}");
            }
            let arguments = s
                .row("SELECT arguments::text AS text FROM chat.tool_calls")
                .await;
            assert_eq!(arguments["text"], "{ \"b\": 2,  \"a\": 1 }");
        })
        .await;
}

#[tokio::test]
async fn calls_made_together_are_answered_in_the_order_in_which_they_were_asked() {
    let slow_first = [
        ("calc__sleep", json!({"ms": 400})),
        add(1, 1),
        add(2, 2),
        ("calc__pid", json!({})),
    ];
    Setup::new()
        .calc()
        .replies([Reply::calls(slow_first), Reply::text("done")])
        .run(async |s| {
            let result = s.answer(&ask("many")).await;
            assert_eq!(
                (&result["tool_calls"], &result["finish_reason"]),
                (&json!(4), &json!("answered"))
            );
            let prompt = s.last_prompt();
            let results = said(&prompt, "tool");
            assert_eq!(results[..3], ["slept 400 ms", "2", "4"]);
            let ids = |messages: &Value, field: &str| {
                messages
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|one| one[field].clone())
                    .collect::<Vec<_>>()
            };
            let asked = prompt
                .iter()
                .find(|message| message["role"] == "assistant")
                .unwrap();
            let answers: Vec<_> = prompt
                .iter()
                .filter(|message| message["role"] == "tool")
                .cloned()
                .collect();
            assert_eq!(
                ids(&asked["tool_calls"], "id"),
                ids(&answers.into(), "tool_call_id")
            );
            let rows = s.tool_calls(result["job_id"].as_str().unwrap()).await;
            let began = |row: usize| rows[row]["started_at"].as_str().unwrap();
            assert!(
                began(1) < rows[0]["finished_at"].as_str().unwrap(),
                "they ran one after the other"
            );
        })
        .await;
}

#[tokio::test]
async fn a_job_that_still_wants_tools_after_three_iterations_ends_with_the_unfinished_reply() {
    Setup::new().calc().model(|_| Reply::calls([add(1, 1)])).run(async |s| {
        let result = s.answer(&ask("for ever")).await;
        assert_eq!((&result["success"], &result["status"], &result["finish_reason"]), (&json!(true), &json!("completed"), &json!("iteration_limit")));
        assert_eq!(result["message"], json!({"role": "assistant", "content": UNFINISHED}));
        assert_eq!((&result["iterations"], &result["tool_calls"]), (&json!(3), &json!(2)));
        assert_eq!(s.model.requests().len(), 3);
        let last = s.row("SELECT role, content FROM chat.transcript ORDER BY turn DESC, position DESC LIMIT 1").await;
        assert_eq!(last, json!({"role": "assistant", "content": UNFINISHED}));
        // Calls that were asked for and never made do not stand in the way of the next turn.
        let conversation = result["conversation_id"].as_str().unwrap();
        s.model.push(Reply::text("done"));
        let next = s.answer(&with(ask("and now?"), "conversation_id", conversation)).await;
        assert_eq!(next["message"]["content"], "done");
        let of_its_own = s.answer(&with(ask("once"), "max_iterations", 1)).await;
        assert_eq!((&of_its_own["iterations"], &of_its_own["finish_reason"]), (&json!(1), &json!("iteration_limit")));
    }).await;
}

#[tokio::test]
async fn a_worker_told_to_have_an_answer_makes_the_last_call_without_tools() {
    let obedient = |request: &Value| match request["tool_choice"].as_str() {
        Some("none") => Reply::text("I could not do it all"),
        _ => Reply::calls([add(1, 1)]),
    };
    Setup::new()
        .calc()
        .model(obedient)
        .set("CHAT_ON_ITERATION_LIMIT", "answer")
        .run(async |s| {
            let result = s.answer(&ask("for ever")).await;
            assert_eq!(
                (&result["finish_reason"], &result["iterations"]),
                (&json!("answered"), &json!(3))
            );
            assert_eq!(result["message"]["content"], "I could not do it all");
        })
        .await;
}

#[tokio::test]
async fn a_spent_budget_ends_the_job_before_the_next_call() {
    Setup::new()
        .calc()
        .model(|_| Reply::calls([add(1, 1), add(2, 2)]))
        .run(async |s| {
            let job = with(ask("tokens"), "budget", json!({"total_tokens": 1}));
            let result = s.answer(&job).await;
            assert_eq!(
                (&result["status"], &result["finish_reason"]),
                (&json!("completed"), &json!("budget"))
            );
            assert_eq!(
                (
                    &result["message"]["content"],
                    &result["iterations"],
                    &result["tool_calls"]
                ),
                (&json!(UNFINISHED), &json!(1), &json!(0))
            );
            let job = with(ask("calls"), "budget", json!({"tool_calls": 3}));
            let result = s.answer(&job).await;
            assert_eq!(
                (
                    &result["finish_reason"],
                    &result["iterations"],
                    &result["tool_calls"]
                ),
                (&json!("budget"), &json!(2), &json!(3))
            );
            let calls = s.tool_calls(result["job_id"].as_str().unwrap()).await;
            let statuses: Vec<_> = calls
                .iter()
                .map(|call| call["status"].as_str().unwrap())
                .collect();
            assert_eq!(
                statuses,
                ["succeeded", "succeeded", "succeeded", "requested"]
            );
            let none = with(ask("no calls"), "budget", json!({"tool_calls": 0}));
            assert_eq!(s.answer(&none).await["tool_calls"], 0);
        })
        .await;
}

#[tokio::test]
async fn a_deadline_ends_a_job_before_it_begins_and_while_the_model_hangs() {
    Setup::new()
        .replies([Reply::never()])
        .run(async |s| {
            let late = s
                .answer(&with(ask("late"), "deadline", "2020-01-01T00:00:00Z"))
                .await;
            assert_failed(s, &late, "deadline_exceeded").await;
            assert_eq!(s.model.requests().len(), 0);
            let soon = s.row("SELECT now() + interval '1.5 s' AS at").await["at"].clone();
            let late = s.answer(&with(ask("hanging"), "deadline", soon)).await;
            assert_failed(s, &late, "deadline_exceeded").await;
            assert_eq!(s.model.requests().len(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_deadline_ends_a_job_while_a_tool_hangs() {
    Setup::new()
        .calc()
        .replies([Reply::calls([("calc__sleep", json!({"ms": 60_000}))])])
        .run(async |s| {
            let soon = s.row("SELECT now() + interval '2 s' AS at").await["at"].clone();
            let result = s.answer(&with(ask("sleep"), "deadline", soon)).await;
            assert_failed(s, &result, "deadline_exceeded").await;
        })
        .await;
}

/// Failed in the result, in its row, and among the dead letters.
async fn assert_failed(s: &Scenario, result: &Value, code: &str) {
    assert_eq!(
        (&result["success"], &result["status"]),
        (&json!(false), &json!("failed")),
        "{result}"
    );
    assert_eq!(result["error"]["code"], code, "{result}");
    assert!(!result["error"]["message"].as_str().unwrap().is_empty());
    assert_eq!(
        (&result.get("message"), &result.get("finish_reason")),
        (&None, &None)
    );
    let id = result["job_id"].as_str().unwrap();
    let job = s.job(id).await;
    assert_eq!(
        (&job["status"], &job["error_code"]),
        (&json!("failed"), &json!(code))
    );
    let dead = s
        .row(format!(
            "SELECT * FROM chat.dead_letters WHERE job_id = '{id}'"
        ))
        .await;
    assert_eq!(dead["error_code"], code);
    let copy = s.dead_letters().await.next().await;
    assert_eq!(copy.header("x-chat-error-code").as_deref(), Some(code));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_refused_or_filtered_is_told_as_such() {
    let refusal =
        Reply::message(&json!({"role": "assistant", "content": null, "refusal": "I will not"}));
    let replies = [
        Reply::text("So far and no").finish("length"),
        refusal,
        Reply::text("").finish("content_filter"),
    ];
    Setup::new()
        .replies(replies)
        .run(async |s| {
            let cut = s.answer(&ask("long")).await;
            assert_eq!(
                (
                    &cut["success"],
                    &cut["finish_reason"],
                    &cut["message"]["content"]
                ),
                (&json!(true), &json!("length"), &json!("So far and no"))
            );
            let refused = s.answer(&ask("bad")).await;
            assert_eq!(
                (
                    &refused["status"],
                    &refused["finish_reason"],
                    &refused["message"]["refusal"]
                ),
                (&json!("completed"), &json!("refused"), &json!("I will not"))
            );
            let filtered = s.answer(&ask("worse")).await;
            assert_failed(s, &filtered, "content_filtered").await;
        })
        .await;
}

#[tokio::test]
async fn the_system_prompt_names_the_user_and_the_jobs_own_rules_bind_one_turn() {
    Setup::new().model(|_| Reply::text("yes")).run(async |s| {
        let mut job = ask("first");
        job["messages"] = json!([{"role": "user", "content": "first"}, {"role": "system", "content": "Rhyme."}]);
        let first = s.answer(&job).await;
        let prompt = s.last_prompt();
        assert_eq!(systems(&prompt), ["Eres un asistente MCP. Usa herramientas cuando sea pertinente. userId=user-42", "Rhyme."]);
        assert_eq!(prompt[2], json!({"role": "user", "content": "first"}));
        let next = s.answer(&with(ask("second"), "conversation_id", first["conversation_id"].clone())).await;
        assert_eq!(next["turn"], 2);
        let prompt = s.last_prompt();
        assert_eq!(systems(&prompt).len(), 1, "{prompt:?}");
    }).await;
}

#[tokio::test]
async fn a_configured_system_prompt_is_filled_in() {
    Setup::new()
        .model(|_| Reply::text("yes"))
        .set(
            "CHAT_SYSTEM_PROMPT",
            "{user_id} in {conversation_id} on {date}",
        )
        .run(async |s| {
            let result = s.answer(&ask("x")).await;
            let today = s
                .row("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day")
                .await;
            let expected = format!(
                "user-42 in {} on {}",
                result["conversation_id"].as_str().unwrap(),
                today["day"].as_str().unwrap()
            );
            assert_eq!(systems(&s.last_prompt()), [expected]);
        })
        .await;
}

#[tokio::test]
async fn a_follow_up_is_asked_with_the_turns_before_it() {
    Setup::new().calc().run(async |s| {
        let conversation = Uuid::new_v4().to_string();
        let of = |text| with(ask(text), "conversation_id", conversation.as_str());
        s.answer(&of("What is 1 plus 2?")).await;
        let mut second = of("x");
        second["messages"] = json!([{"role": "assistant", "content": "Remember that."}, {"role": "user", "content": [{"type": "text", "text": "hello"}]}]);
        s.answer(&second).await;
        let third = s.answer(&of("What is 3 plus 4?")).await;
        assert_eq!((&third["turn"], &third["message"]["content"]), (&json!(3), &json!("The answer is 7")));
        let requests = s.model.requests();
        let prompt = requests[3].body["messages"].as_array().unwrap();
        let roles: Vec<_> = prompt.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "assistant", "assistant", "user", "assistant", "user"]);
        assert_eq!(prompt[4]["content"], "The answer is 3");
        assert_eq!(prompt[6]["content"], json!([{"type": "text", "text": "hello"}]));
        let lines = s.rows(format!("SELECT turn, role FROM chat.transcript WHERE conversation_id = '{conversation}' ORDER BY turn, position")).await;
        assert_eq!(lines.len(), 4 + 3 + 4, "{lines:?}");
    }).await;
}

#[tokio::test]
async fn earlier_turns_that_do_not_fit_the_context_are_left_out_oldest_first() {
    Setup::new()
        .model(|_| Reply::text("yes"))
        .set("CHAT_CONTEXT_TOKENS", "500")
        .run(async |s| {
            let conversation = Uuid::new_v4().to_string();
            for turn in 1..=4 {
                let text = format!("{turn}{}", "x".repeat(800));
                s.answer(&with(ask(&text), "conversation_id", conversation.as_str()))
                    .await;
            }
            let prompt = s.last_prompt();
            let turns: String = said(&prompt, "user")
                .iter()
                .map(|text| &text[..1])
                .collect();
            assert_eq!(turns, "34");
        })
        .await;
}

#[tokio::test]
async fn the_jobs_model_and_options_reach_the_model() {
    Setup::new().calc().model(|_| Reply::text("{}")).run(async |s| {
        let mut job = with(ask("x"), "model", "gpt-4o");
        job["options"] = json!({"temperature": 0.25, "top_p": 0.5, "max_output_tokens": 800, "seed": 7, "stop": ["END"],
            "reasoning_effort": "low", "parallel_tool_calls": false, "response_format": {"type": "json_object"}});
        let result = s.answer(&job).await;
        assert_eq!(result["model"], "gpt-4o-2024-07-18");
        let request = &s.model.requests()[0];
        let body = &request.body;
        for (field, value) in [
            ("model", json!("gpt-4o")), ("temperature", json!(0.25)), ("top_p", json!(0.5)), ("seed", json!(7)), ("stop", json!(["END"])),
            ("reasoning_effort", json!("low")), ("parallel_tool_calls", json!(false)), ("response_format", json!({"type": "json_object"})),
        ] {
            assert_eq!(body[field], value, "{field}");
        }
        assert!(body["max_tokens"] == 800 || body["max_completion_tokens"] == 800, "{body}");
        assert_eq!(request.headers["authorization"], format!("Bearer {}", crate::scenario::API_KEY));
    }).await;
}

#[tokio::test]
async fn what_the_sender_attached_comes_back_as_it_was() {
    Setup::new()
        .model(|_| Reply::text("yes"))
        .run(async |s| {
            let job = with(
                ask("x"),
                "metadata",
                json!({"ticket": 991, "deep": {"list": [1, null, 2.5, "é"]}}),
            );
            let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let mut headers = FieldTable::default();
            headers.insert("traceparent".into(), AMQPValue::LongString(trace.into()));
            headers.insert(
                "tracestate".into(),
                AMQPValue::LongString("vendor=1".into()),
            );
            let properties = Properties::default()
                .with_correlation_id("my call 7".into())
                .with_headers(headers)
                .with_type("chat.job".into())
                .with_timestamp(1_700_000_000)
                .with_priority(3)
                .with_content_type("application/json".into());
            let id = s.send_with(&job, properties).await;
            let result = s.result_of(&id).await;
            assert_eq!(result.json()["metadata"], job["metadata"]);
            assert_eq!(result.correlation_id(), "my call 7");
            assert_eq!(result.header("traceparent").as_deref(), Some(trace));
            let row = s.job(&id).await;
            assert_eq!(
                (&row["correlation_id"], &row["trace_id"]),
                (
                    &json!("my call 7"),
                    &json!("0af7651916cd43dd8448eb211c80319c")
                )
            );
            assert_eq!(
                (&row["priority"], &row["metadata"]),
                (&json!(3), &job["metadata"])
            );
            assert!(
                row["enqueued_at"]
                    .as_str()
                    .unwrap()
                    .starts_with("2023-11-14T"),
                "{row}"
            );
        })
        .await;
}

#[tokio::test]
async fn a_slow_model_holds_up_nobody_else() {
    let reply = |request: &Value| {
        let reply = Reply::text("yes");
        if request.to_string().contains("slow") {
            reply.after(Duration::from_millis(1500))
        } else {
            reply
        }
    };
    Setup::new()
        .model(reply)
        .run(async |s| {
            let slow = s.send(&ask("slow")).await;
            s.model.arrived(1).await;
            s.answer(&ask("quick")).await;
            assert_eq!(s.job(&slow).await["status"], "running");
            s.result_of(&slow).await;
        })
        .await;
}

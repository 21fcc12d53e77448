//! Limits a minute that all workers keep together, prices, and what may be spent.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scenario::{Setup, ask, with};
use crate::stub_model::Reply;

/// The stub counts a byte of text as a quarter of a token and a little; the figures here leave room.
const PRICED: &str = r#"
[models."gpt-4o-mini"]
price = { input = 1000000, output = 2000000 }
"#;

#[tokio::test]
async fn an_answer_costs_what_its_tokens_cost_in_rows_results_and_views() {
    Setup::new().calc().models(PRICED)
        .run(async |s| {
            let id = s.send(&ask("What is 20 plus 22?")).await;
            let result = s.result_of(&id).await.json();
            let usage = &result["usage"];
            let tokens = |name: &str| usage[name].as_f64().expect("tokens");
            let cost = tokens("input_tokens") + 2.0 * tokens("output_tokens");
            assert!(cost > 0.0);
            assert_eq!(usage["cost_usd"].as_f64(), Some(cost));
            let row = s
                .row(format!(
                    "SELECT j.cost_usd::float8 AS job, (SELECT sum(cost_usd)::float8 FROM chat.iterations WHERE job_id = j.id) AS rounds, \
                     (SELECT sum(cost_usd)::float8 FROM chat.usage_daily WHERE user_id = j.user_id) AS day FROM chat.jobs AS j WHERE id = '{id}'"
                ))
                .await;
            for sum in ["job", "rounds", "day"] {
                assert_eq!(row[sum].as_f64(), Some(cost), "{sum}");
            }
        })
        .await;
}

#[tokio::test]
async fn a_job_ends_when_its_money_is_spent_and_costs_nothing_where_prices_are_unknown() {
    Setup::new()
        .calc()
        .models(PRICED)
        .run(async |s| {
            let budget = |usd| {
                with(
                    ask("What is 20 plus 22?"),
                    "budget",
                    json!({"cost_usd": usd}),
                )
            };
            let spent = s.send(&budget(1)).await;
            let body = s.result_of(&spent).await.json();
            assert_eq!(
                (&body["finish_reason"], &body["iterations"]),
                (&json!("budget"), &json!(1))
            );
            let enough = s.send(&budget(1_000_000)).await;
            assert_eq!(
                s.result_of(&enough).await.json()["finish_reason"],
                json!("answered")
            );
        })
        .await;
}

#[tokio::test]
async fn a_budget_of_money_for_a_model_without_a_price_is_said_not_to_be_kept() {
    let setup = Setup::new().model(|_| Reply::text("here you are"));
    setup
        .run(async |s| {
            let job = with(ask("x"), "budget", json!({"cost_usd": 0.5}));
            let result = s.answer(&job).await;
            let warning = result["warnings"][0].as_str().unwrap_or_default();
            assert!(warning.contains("budget.cost_usd"), "{result}");
            assert_eq!(result["usage"].get("cost_usd"), None);
        })
        .await;
}

/// A reply that does not say what it used, as some servers' do not.
fn uncounted(message: &Value, finish_reason: &str) -> Reply {
    let choice = json!({"index": 0, "message": message, "finish_reason": finish_reason});
    Reply::json(
        200,
        &json!({"id": "r1", "object": "chat.completion", "model": "m", "choices": [choice]}),
    )
}

#[tokio::test]
async fn budgets_are_kept_where_the_server_counts_nothing() {
    let call = json!({"id": "c1", "type": "function", "function": {"name": "calc__add", "arguments": r#"{"a":1,"b":2}"#}});
    let asks = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let script = move |request: &Value| {
        let messages = request["messages"].as_array().expect("messages");
        if messages.iter().any(|message| message["role"] == "tool") {
            return uncounted(&json!({"role": "assistant", "content": "three"}), "stop");
        }
        uncounted(&asks, "tool_calls")
    };
    Setup::new()
        .calc()
        .models(PRICED)
        .model(script)
        .run(async |s| {
            let text = "one and two? ".repeat(40);
            let job = |most| with(ask(&text), "budget", json!({"total_tokens": most}));
            let over = s.answer(&job(100)).await;
            let wanted = (json!("budget"), json!(1));
            assert_eq!(
                (over["finish_reason"].clone(), over["iterations"].clone()),
                wanted,
                "{over}"
            );
            let enough = s.answer(&job(1_000_000)).await;
            assert_eq!(enough["message"]["content"], "three", "{enough}");
            let usage = &enough["usage"];
            let tokens = |name: &str| usage[name].as_u64().expect("tokens");
            // What was sent, at a token for three bytes or four.
            let requests = s.model.requests();
            let sent = requests
                .iter()
                .rev()
                .take(2)
                .map(|request| request.body.to_string().len() as u64);
            let sent: u64 = sent.sum();
            assert!(
                (sent / 6..=sent / 3).contains(&tokens("input_tokens")),
                "{usage}: {sent} bytes"
            );
            assert!((2..100).contains(&tokens("output_tokens")), "{usage}");
            assert!(usage["cost_usd"].as_f64() > Some(0.0), "{usage}");
            assert!(
                enough["warnings"][0]
                    .as_str()
                    .is_some_and(|text| text.contains("estimated")),
                "{enough}"
            );
            let rows = s
                .rows("SELECT DISTINCT usage_estimated FROM chat.iterations")
                .await;
            assert_eq!(rows, [json!({"usage_estimated": true})]);
        })
        .await;
}

#[tokio::test]
async fn a_user_who_has_spent_the_day_is_refused_and_others_are_not() {
    Setup::new()
        .models(PRICED)
        .set("CHAT_USER_DAILY_COST", "1")
        .model(|_| Reply::text("here you are"))
        .run(async |s| {
            let of = |user: &str| with(ask("x"), "user_id", user);
            let first = s.send(&of("u1")).await;
            assert_eq!(
                s.result_of(&first).await.json()["status"],
                json!("completed")
            );
            let second = s.send(&of("u1")).await;
            let body = s.result_of(&second).await.json();
            assert_eq!(
                (&body["status"], &body["error"]["code"], &body["iterations"]),
                (&json!("failed"), &json!("budget_exceeded"), &json!(0))
            );
            let other = s.send(&of("u2")).await;
            assert_eq!(
                s.result_of(&other).await.json()["status"],
                json!("completed")
            );
        })
        .await;
}

/// Calls of workers that share a limit of 60 requests a minute: after what may leave at once, one more
/// leaves every second, whoever makes it.
#[tokio::test]
async fn two_workers_keep_a_limit_together_and_nothing_fails_for_it() {
    let limit = "[models.\"gpt-4o-mini\"]\nrequests_per_minute = 60\n";
    Setup::new().models(limit)
        .replicas(2)
        .model(|_| Reply::text("here you are"))
        .run(async |s| {
            let begun = Instant::now();
            let mut ids = Vec::new();
            for _ in 0..10 {
                ids.push(s.send(&ask("x")).await);
            }
            for id in &ids {
                assert_eq!(s.result_of(id).await.json()["status"], json!("completed"));
            }
            // Of ten, two may leave at once after a pause; the others a second and a bit apart.
            let least = Duration::from_secs_f64(7.0 / 0.94);
            assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
            let failed = s
                .row("SELECT coalesce(max(failures), 0) AS failures, max(attempt) AS attempts FROM chat.jobs")
                .await;
            assert_eq!(failed, json!({"failures": 0, "attempts": 1}));
        })
        .await;
}

#[tokio::test]
async fn a_call_whose_turn_is_far_waits_as_a_row_and_holds_no_slot() {
    let limit = "[models.\"slow\"]\nrequests_per_minute = 1\n";
    Setup::new()
        .set("CHAT_CONCURRENCY", "1")
        .models(limit)
        .model(|_| Reply::text("here you are"))
        .run(async |s| {
            let slow = with(ask("x"), "model", "slow");
            let first = s.answer(&slow).await;
            assert_eq!(first["status"], json!("completed"));
            // It waits in its slot for a while before it waits as a row.
            let second = s.send(&slow).await;
            let parked = s.waits(&second, "retry").await;
            assert_eq!(
                (&parked["failures"], &parked["attempt"]),
                (&json!(0), &json!(1))
            );
            let meanwhile = s.answer(&ask("x")).await;
            assert_eq!(meanwhile["status"], json!("completed"));
        })
        .await;
}

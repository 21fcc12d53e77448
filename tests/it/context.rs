//! Conversations that are longer than their model takes: what is sent, what is stored, what is read.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chat_worker::model::count_tokens;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scenario::{Scenario, Setup, ask, said, systems, with};
use crate::stub_model::Reply;

/// Words that differ, about `bytes` of them.
fn words(seed: usize, bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "river",
        "mañana",
        "ledger",
        "copper",
        "window",
        "seventeen",
        "answer",
        "garden",
        "below",
        "orbit",
        "market",
        "quietly",
        "signal",
        "harbour",
        "velvet",
        "thirty",
    ];
    let mut text = String::new();
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    while text.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 33) % WORDS.len()]);
        text.push(' ');
    }
    text
}

/// The tokens of a prompt as the stub's tokenizer sees them: never more than four bytes each.
fn tokens(request: &Value) -> u64 {
    let messages = request["messages"].as_array().unwrap();
    let of = |message: &Value| {
        let content = &message["content"];
        let text = content
            .as_str()
            .map_or_else(|| content.to_string(), str::to_owned);
        4 + count_tokens("gpt-4o", &text).max(text.len() as u64 / 4)
    };
    messages.iter().map(of).sum()
}

/// A model with a window, which says in `words` what is too much.
fn windowed(
    window: u64,
    refuse: impl Fn(u64, u64) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Value) -> Reply + Send + Sync + 'static {
    move |request| {
        let found = tokens(request);
        if found > window {
            return refuse(found, window);
        }
        Reply::text(words(usize::try_from(found).unwrap(), 600))
    }
}

fn refused(status: u16, body: &Value) -> Reply {
    Reply::json(status, body)
}

async fn say(s: &Scenario, conversation: &str, text: &str) -> Value {
    s.answer(&with(ask(text), "conversation_id", conversation))
        .await
}

#[tokio::test]
async fn a_hundred_turns_are_stored_once_and_no_prompt_passes_the_window() {
    const WINDOW: u64 = 4000;
    let refuse = |found: u64, window: u64| {
        let text = format!(
            "This model's maximum context length is {window} tokens. However, your messages resulted in {found} tokens."
        );
        Reply::error(
            400,
            "invalid_request_error",
            "context_length_exceeded",
            &text,
        )
    };
    Setup::new()
        .model(windowed(WINDOW, refuse))
        .set("CHAT_CONTEXT_TOKENS", WINDOW.to_string())
        .run(async |s| {
            let conversation = Uuid::now_v7().to_string();
            let mut said_so_far = 0;
            for turn in 1..=100 {
                let text = format!("turn {turn} {}", words(turn, 600));
                said_so_far += text.len();
                let result = say(s, &conversation, &text).await;
                assert_eq!(result["status"], "completed", "{result}");
                said_so_far += result["message"]["content"].as_str().unwrap().len();
            }
            let requests = s.model.requests();
            assert_eq!(requests.len(), 100, "some prompts were refused");
            let sizes: Vec<_> = requests
                .iter()
                .map(|request| tokens(&request.body))
                .collect();
            assert!(sizes.iter().all(|size| *size <= WINDOW), "{sizes:?}");
            // The room is used: what was left out would not have fitted.
            assert!(sizes[99] > WINDOW * 3 / 4, "{sizes:?}");
            let last = said(&s.last_prompt(), "user");
            let first: usize = last[0].split(' ').nth(1).unwrap().parse().unwrap();
            let expected: Vec<_> = (first..=100).map(|turn| format!("turn {turn}")).collect();
            let found: Vec<_> = last
                .iter()
                .map(|text| text.split(' ').take(2).collect::<Vec<_>>().join(" "))
                .collect();
            assert_eq!(found, expected);
            assert_eq!(systems(&s.last_prompt()).len(), 1);
            check_storage(s, said_so_far).await;
        })
        .await;
}

/// What is stored grows with what is said, and no faster.
async fn check_storage(s: &Scenario, said: usize) {
    let query = "SELECT (SELECT sum(octet_length(request::text)) FROM chat.jobs)::bigint AS requests,
                        (SELECT sum(octet_length(message::text)) FROM chat.iterations)::bigint AS messages,
                        (SELECT sum(octet_length(request::text)) FROM chat.jobs WHERE turn > 50)::double precision
                            / (SELECT sum(octet_length(request::text)) FROM chat.jobs WHERE turn <= 50) AS growth";
    let row = s.row(query).await;
    let stored = row["requests"].as_u64().unwrap() + row["messages"].as_u64().unwrap();
    assert!(
        stored * 10 <= said as u64 * 13,
        "{stored} bytes for {said} of text"
    );
    assert!(row["growth"].as_f64().unwrap() < 1.1, "{row}");
}

#[tokio::test]
async fn a_prompt_that_the_model_refuses_is_cut_and_sent_once_more_in_whatever_words() {
    type Words = fn(u64, u64) -> Reply;
    let spellings: [Words; 5] = [
        |found, window| {
            let text = format!(
                "This model's maximum context length is {window} tokens. However, your messages resulted in {found} tokens."
            );
            Reply::error(
                400,
                "invalid_request_error",
                "context_length_exceeded",
                &text,
            )
        },
        |found, window| {
            let text = format!(
                "request ({found} tokens) exceeds the available context size ({window} tokens), try increasing it"
            );
            refused(
                400,
                &json!({"error": {"code": 400, "message": text, "type": "exceed_context_size_error", "n_prompt_tokens": found, "n_ctx": window}}),
            )
        },
        |_, window| {
            let text = format!(
                "This model's maximum context length is {window} tokens, please send less."
            );
            refused(
                400,
                &json!({"object": "error", "message": text, "type": "BadRequestError", "code": 400}),
            )
        },
        |found, window| {
            refused(
                400,
                &json!({"error": {"type": "invalid_request_error", "message": format!("prompt is too long: {found} tokens > {window} maximum")}}),
            )
        },
        |_, _| {
            refused(
                413,
                &json!({"error": {"message": "Please reduce the length of the messages."}}),
            )
        },
    ];
    for refuse in spellings {
        Setup::new()
            .model(windowed(2000, refuse))
            .run(async |s| {
                let conversation = Uuid::now_v7().to_string();
                let mut asked = 0;
                for turn in 1..=8 {
                    let result = say(
                        s,
                        &conversation,
                        &format!("turn {turn} {}", words(turn, 1200)),
                    )
                    .await;
                    assert_eq!(
                        (&result["status"], &result["iterations"], &result["attempt"]),
                        (&json!("completed"), &json!(1), &json!(1)),
                        "{result}"
                    );
                    let requests = s.model.requests();
                    assert!(
                        requests.len() - asked <= 2,
                        "asked {} times",
                        requests.len() - asked
                    );
                    asked = requests.len();
                }
                assert!(asked > 8, "no prompt was too long");
                let last = said(&s.last_prompt(), "user");
                assert!(
                    last.last().unwrap().starts_with("turn 8 ") && last.len() < 8,
                    "{}",
                    last.len()
                );
            })
            .await;
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_by_itself_fails_the_job_without_another_try() {
    let refuse = |found: u64, window: u64| {
        let text = format!(
            "This model's maximum context length is {window} tokens. However, your messages resulted in {found} tokens."
        );
        Reply::error(
            400,
            "invalid_request_error",
            "context_length_exceeded",
            &text,
        )
    };
    Setup::new()
        .model(windowed(300, refuse))
        .run(async |s| {
            let result = s.answer(&ask(&words(1, 4000))).await;
            assert_eq!(
                (&result["status"], &result["error"]["code"]),
                (&json!("failed"), &json!("context_too_long"))
            );
            assert_eq!(s.model.requests().len(), 1);
        })
        .await;
}

/// A model that makes summaries when it is asked for them.
fn summariser(request: &Value) -> Reply {
    let system = systems(request["messages"].as_array().unwrap()).remove(0);
    if system.starts_with("You summarise") {
        return Reply::text("They counted words.");
    }
    Reply::text(words(1, 300))
}

fn is_summary(request: &Value) -> bool {
    systems(request["messages"].as_array().unwrap())[0].starts_with("You summarise")
}

#[tokio::test]
async fn older_turns_are_summarised_once_and_the_summary_stands_for_them() {
    Setup::new()
        .model(summariser)
        .set("CHAT_CONTEXT_TOKENS", "2000")
        .set("CHAT_COMPACT", "true")
        .run(async |s| {
            let conversation = Uuid::now_v7().to_string();
            let mut results = Vec::new();
            while !s.model.requests().iter().any(|request| is_summary(&request.body)) {
                let turn = results.len() + 1;
                results.push(say(s, &conversation, &format!("turn {turn} {}", words(turn, 900))).await);
                assert!(turn < 20, "nothing was summarised");
            }
            let turn = results.len();
            let row = s.row("SELECT * FROM chat.summaries").await;
            let upto = usize::try_from(row["up_to_turn"].as_u64().unwrap()).unwrap();
            assert!(upto >= 1 && upto < turn - 1, "{row}");
            assert_eq!(
                (&row["content"], &row["job_id"]),
                (&json!("They counted words."), &results[turn - 1]["job_id"])
            );
            let requests = s.model.requests();
            let asked = &requests[requests.len() - 2].body;
            assert!(is_summary(asked) && asked.get("tools").is_none());
            let told = said(asked["messages"].as_array().unwrap(), "user").remove(0);
            assert!(told.contains("User: turn 1 ") && told.contains(&format!("User: turn {upto} ")), "{told}");
            assert!(!told.contains(&format!("User: turn {} ", upto + 1)));
            let prompt = s.last_prompt();
            assert_eq!(systems(&prompt)[1], "Summary of the earlier conversation: They counted words.");
            assert!(said(&prompt, "user")[0].starts_with(&format!("turn {} ", upto + 1)));
            // What it used counts in the job that had it made.
            let used = |body: &Value| body.to_string().len() as u64 / 8;
            let input = results[turn - 1]["usage"]["input_tokens"].as_u64().unwrap();
            assert!(input > used(asked) + used(&requests[requests.len() - 1].body), "{input}");
            assert_eq!(results[turn - 1]["iterations"], 1);
            let summed = s.row(format!("SELECT i.input_tokens + s.input_tokens AS input FROM chat.iterations AS i JOIN chat.summaries AS s USING (job_id) WHERE job_id = '{}'", results[turn - 1]["job_id"].as_str().unwrap())).await;
            assert_eq!(summed["input"], input);
            // The next turn asks once, and the linear conversation is all there.
            say(s, &conversation, "and now?").await;
            assert_eq!(s.model.requests().len(), requests.len() + 1);
            assert_eq!(systems(&s.last_prompt())[1], "Summary of the earlier conversation: They counted words.");
            let lines = s.row("SELECT count(*) AS lines FROM chat.transcript").await;
            assert_eq!(lines["lines"], 2 * (turn + 1));
        })
        .await;
}

#[tokio::test]
async fn without_a_summary_the_oldest_turns_are_left_out() {
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    let grudging = |request: &Value| {
        if is_summary(request) {
            REFUSED.fetch_add(1, Ordering::Relaxed);
            return Reply::error(400, "invalid_request_error", "no", "no summaries today");
        }
        Reply::text(words(1, 300))
    };
    Setup::new()
        .model(grudging)
        .set("CHAT_CONTEXT_TOKENS", "2000")
        .set("CHAT_COMPACT", "true")
        .run(async |s| {
            let conversation = Uuid::now_v7().to_string();
            for turn in 1..=9 {
                let result = say(
                    s,
                    &conversation,
                    &format!("turn {turn} {}", words(turn, 900)),
                )
                .await;
                assert_eq!(result["status"], "completed", "{result}");
            }
            assert!(
                REFUSED.load(Ordering::Relaxed) > 0,
                "no summary was asked for"
            );
            let users = said(&s.last_prompt(), "user");
            assert!(users.len() < 9 && users.last().unwrap().starts_with("turn 9 "));
            assert_eq!(s.rows("SELECT * FROM chat.summaries").await.len(), 0);
        })
        .await;
}

#[tokio::test]
async fn a_job_longer_than_the_window_goes_on_with_less_of_its_older_results() {
    static PROMPTS: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    let curious = |request: &Value| {
        PROMPTS.lock().unwrap().push(tokens(request));
        let messages = request["messages"].as_array().unwrap();
        let calls = messages
            .iter()
            .filter(|message| message["role"] == "tool")
            .count();
        if calls == 6 {
            return Reply::text("done");
        }
        let line = words(calls, 2400);
        Reply::calls([("calc__append", json!({ "line": line }))])
    };
    Setup::new()
        .calc()
        .model(curious)
        .set("CHAT_CONTEXT_TOKENS", "8000")
        .run(async |s| {
            let result = s.answer(&with(ask("go"), "max_iterations", 10)).await;
            assert_eq!(
                (&result["message"]["content"], &result["tool_calls"]),
                (&json!("done"), &json!(6)),
                "{result}"
            );
            let prompts = PROMPTS.lock().unwrap().clone();
            assert!(prompts.iter().all(|size| *size <= 8000), "{prompts:?}");
        })
        .await;
}

/// Nine turns with the model `wide`; what came of the last.
async fn nine_turns(s: &Scenario) -> Value {
    let conversation = Uuid::now_v7().to_string();
    let mut last = Value::Null;
    for turn in 1..=9 {
        let text = format!("turn {turn} {}", words(turn, 1200));
        let job = with(ask(&text), "conversation_id", conversation.as_str());
        last = s.answer(&with(job, "model", "wide")).await;
        assert_eq!(last["status"], "completed", "{last}");
    }
    last
}

/// A model that is down for the ninth turn, and `narrow`, which stands in for it.
fn down_at_last(
    narrow: impl Fn(&Value) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Value) -> Reply + Send + Sync + 'static {
    move |request| {
        let messages = request["messages"].as_array().unwrap();
        if request["model"] == "narrow" {
            return narrow(request);
        }
        if said(messages, "user").last().unwrap().starts_with("turn 9") {
            return Reply::error(503, "server_error", "overloaded", "Down");
        }
        Reply::text(words(messages.len(), 600))
    }
}

/// The sizes of the prompts that `narrow` was sent.
fn sent_to_narrow(s: &Scenario) -> Vec<u64> {
    let requests = s.model.requests().into_iter();
    let narrow = requests.filter(|request| request.body["model"] == "narrow");
    narrow.map(|request| tokens(&request.body)).collect()
}

#[tokio::test]
async fn one_that_stands_in_gets_a_prompt_that_fits_its_own_context() {
    const MODELS: &str = r#"
[models.wide]
context_window = 100000
fallbacks = ["narrow"]
[models.narrow]
context_window = 2000
"#;
    Setup::new()
        .models(MODELS)
        .model(down_at_last(|_| Reply::text("here you are")))
        .run(async |s| {
            nine_turns(s).await;
            let sizes = sent_to_narrow(s);
            assert!(
                matches!(sizes[..], [size] if (1000..=2000).contains(&size)),
                "{sizes:?}"
            );
            let requests = s.model.requests();
            let wide = &requests[requests.len() - 2].body;
            assert!(wide["model"] == "wide" && tokens(wide) > 2000);
            let users = said(&s.last_prompt(), "user");
            assert!(users.last().unwrap().starts_with("turn 9 "), "{users:?}");
        })
        .await;
}

#[tokio::test]
async fn one_that_stands_in_and_takes_less_than_is_known_is_sent_less_once_more() {
    let refuse = |found: u64, window: u64| {
        let text = format!("maximum context length is {window} tokens, got {found} tokens");
        Reply::error(
            400,
            "invalid_request_error",
            "context_length_exceeded",
            &text,
        )
    };
    Setup::new()
        .models("[models.wide]\nfallbacks = [\"narrow\"]\n")
        .model(down_at_last(windowed(1500, refuse)))
        .run(async |s| {
            let result = nine_turns(s).await;
            assert_eq!(result["attempt"], 1, "{result}");
            let sizes = sent_to_narrow(s);
            assert!(
                matches!(sizes[..], [before, after] if before > 1500 && (400..=1500).contains(&after)),
                "{sizes:?}"
            );
        })
        .await;
}

#[tokio::test]
async fn a_job_that_is_longer_than_its_model_takes_is_not_sent() {
    Setup::new()
        .models("[models.small]\ncontext_window = 1000\n")
        .model(|_| Reply::text("here you are"))
        .run(async |s| {
            let long = with(ask(&words(1, 16_000)), "model", "small");
            let result = s.answer(&long).await;
            assert_eq!(
                (&result["status"], &result["error"]["code"]),
                (&json!("failed"), &json!("context_too_long")),
                "{result}"
            );
            let message = result["error"]["message"].as_str().unwrap();
            assert!(message.contains("is 1000"), "{message}");
            assert_eq!(s.model.requests().len(), 0);
            // Where nothing is known of the model, it decides.
            let elsewhere = s.answer(&ask(&words(1, 16_000))).await;
            assert_eq!(elsewhere["status"], "completed", "{elsewhere}");
        })
        .await;
}

/// Whose provider counts less than we do, its later prompts are not called too long by our count.
#[tokio::test]
async fn a_job_whose_provider_counts_less_goes_on() {
    let script = |request: &Value| {
        let messages = request["messages"].as_array().unwrap();
        let called = messages.iter().any(|message| message["role"] == "tool");
        let call = json!({"name": "calc__big", "arguments": "{\"bytes\": 3200}"});
        let calls = json!([{"id": "c1", "type": "function", "function": call}]);
        let (message, finish) = if called {
            (json!({"role": "assistant", "content": "done"}), "stop")
        } else {
            let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
            (message, "tool_calls")
        };
        let choice = json!({"index": 0, "message": message, "finish_reason": finish});
        let usage = json!({"prompt_tokens": 950, "completion_tokens": 30});
        Reply::json(
            200,
            &json!({"id": "r", "choices": [choice], "usage": usage}),
        )
    };
    Setup::new()
        .calc()
        .models("[models.frugal]\ncontext_window = 2000\n")
        .model(script)
        .run(async |s| {
            // Of figures our count makes as many tokens as they weigh.
            let mut text = String::from("sum: ");
            while count_tokens("frugal", &text) < 1600 {
                text.push_str("7315928460 ");
            }
            let job = with(ask(&text), "model", "frugal");
            let job = with(job, "tools", json!({"allow": ["calc__big"]}));
            let result = s.answer(&job).await;
            assert_eq!(result["message"]["content"], "done", "{result}");
            let sent = tokens(&s.model.requests()[1].body);
            assert!(sent > 2000, "our count is no trouble: {sent}");
        })
        .await;
}

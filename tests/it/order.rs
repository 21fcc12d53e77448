//! The turns of a conversation: one at a time, in the order in which they were taken in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::scenario::{Properties, Scenario, Setup, ask, said, systems, with};
use crate::stub_model::Reply;

#[tokio::test]
async fn a_second_job_of_a_conversation_waits_for_the_first_and_sees_its_turn() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .replies([Reply::text("one").when(&gate), Reply::text("two")])
        .replicas(2)
        .run(async |s| {
            let conversation = Uuid::new_v4().to_string();
            let of = |text| with(ask(text), "conversation_id", conversation.as_str());
            let first = s.send(&of("first")).await;
            s.model.arrived(1).await;
            let second = s.send(&of("second")).await;
            let waiting = s
                .row_where(
                    format!("SELECT * FROM chat.jobs WHERE id = '{second}'"),
                    |row| row["status"] == "waiting",
                )
                .await;
            assert_eq!(
                (&waiting["wait_reason"], &waiting["turn"]),
                (&json!("turn"), &json!(2))
            );
            let health = s.row("SELECT * FROM chat.queue_health").await;
            assert_eq!(
                (&health["waiting"], &health["running"]),
                (&json!(1), &json!(1))
            );
            assert_eq!(s.model.requests().len(), 1);
            gate.add_permits(1);
            let (one, two) = (
                s.result_of(&first).await.json(),
                s.result_of(&second).await.json(),
            );
            assert_eq!((&one["turn"], &two["turn"]), (&json!(1), &json!(2)));
            assert_eq!(two["message"]["content"], "two");
            let prompt = s.last_prompt();
            assert_eq!(
                (said(&prompt, "user"), said(&prompt, "assistant")),
                (
                    vec!["first".to_owned(), "second".to_owned()],
                    vec!["one".to_owned()]
                )
            );
        })
        .await;
}

#[tokio::test]
async fn a_turn_that_fails_lets_the_next_one_run() {
    let gate = Arc::new(Semaphore::new(0));
    let refused = Reply::error(401, "invalid_request_error", "invalid_api_key", "no").when(&gate);
    Setup::new()
        .replies([refused, Reply::text("two")])
        .run(async |s| {
            let conversation = Uuid::new_v4().to_string();
            let of = |text| with(ask(text), "conversation_id", conversation.as_str());
            let first = s.send(&of("first")).await;
            s.model.arrived(1).await;
            let second = s.send(&of("second")).await;
            s.row_where(
                format!("SELECT * FROM chat.jobs WHERE id = '{second}'"),
                |row| row["status"] == "waiting",
            )
            .await;
            gate.add_permits(1);
            assert_eq!(s.result_of(&first).await.json()["status"], "failed");
            assert_eq!(s.result_of(&second).await.json()["status"], "completed");
            assert_eq!(said(&s.last_prompt(), "user"), ["first", "second"]);
        })
        .await;
}

#[tokio::test]
async fn many_jobs_of_few_conversations_on_two_replicas_run_one_by_one_in_order() {
    let slowly = |_: &Value| Reply::text("yes").after(Duration::from_millis(20));
    let setup = Setup::new()
        .model(slowly)
        .replicas(2)
        .set("CHAT_SYSTEM_PROMPT", "{conversation_id}");
    setup.run(async |s| {
        let conversations: Vec<_> = (0..4).map(|_| Uuid::new_v4().to_string()).collect();
        let mut ids = Vec::new();
        for number in 0..20 {
            let job = with(ask(&format!("{number}")), "conversation_id", conversations[number % 4].as_str());
            ids.push(s.send(&job).await);
        }
        for id in &ids {
            assert_eq!(s.result_of(id).await.json()["status"], "completed");
        }
        assert!(s.results_so_far().await.is_empty());
        // Each turn was asked with all the answers before it: none began before they were there.
        let mut asked: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        for request in s.model.requests() {
            let prompt = request.body["messages"].as_array().unwrap();
            let lines = (said(prompt, "user").len(), said(prompt, "assistant").len());
            asked.entry(systems(prompt).concat()).or_default().push(lines);
        }
        for conversation in &conversations {
            assert_eq!(asked[conversation], [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]);
            let rows = s.rows(format!("SELECT turn, attempt FROM chat.jobs WHERE conversation_id = '{conversation}' ORDER BY turn")).await;
            let turns: Vec<_> = (1..=5).map(|turn| json!({"turn": turn, "attempt": 1})).collect();
            assert_eq!(rows, turns);
        }
    }).await;
}

/// A line of its own to the broker, as another producer has.
async fn publish_from_elsewhere(s: &Scenario, jobs: &[Value]) {
    let line = s.another_line().await;
    let queue = s.name("jobs");
    for job in jobs {
        let body = job.to_string();
        line.publish(&queue, body.as_bytes(), Properties::default())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_jobs_of_a_conversation_from_four_connections_run_one_at_a_time_as_they_were_taken_in()
 {
    let gate = Arc::new(Semaphore::new(0));
    let signal = Arc::clone(&gate);
    let model = move |request: &Value| {
        let prompt = request["messages"].as_array().unwrap();
        // The first turn of all is let go by the test.
        let is_first = said(prompt, "user") == ["first"];
        let reply = Reply::text("yes").after(Duration::from_millis(10));
        if is_first { reply.when(&signal) } else { reply }
    };
    Setup::new()
        .model(model)
        .replicas(2)
        .run(async |s| {
            let conversation = Uuid::new_v4().to_string();
            let of = |text: &str| with(ask(text), "conversation_id", conversation.as_str());
            let first = s.send(&of("first")).await;
            s.model.arrived(1).await;
            let mut jobs: Vec<_> = (0..20)
                .map(|number| with(of(&format!("{number}")), "job_id", Uuid::now_v7().to_string()))
                .collect();
            futures_util::future::join_all(
                jobs.chunks(5).map(|jobs| publish_from_elsewhere(s, jobs)),
            )
            .await;
            for job in &jobs {
                s.waits(job["job_id"].as_str().unwrap(), "turn").await;
            }
            // Nobody else is held up by them, on any slot.
            for _ in 0..6 {
                assert_eq!(s.answer(&ask("another")).await["status"], "completed");
            }
            gate.add_permits(1);
            jobs.push(with(ask(""), "job_id", first.as_str()));
            for job in &jobs {
                let result = s.result_of(job["job_id"].as_str().unwrap()).await.json();
                assert_eq!(
                    (&result["status"], &result["attempt"]),
                    (&json!("completed"), &json!(1))
                );
            }
            let ran = format!(
                "SELECT j.turn, lag(a.ended_at) OVER w <= a.started_at AS after_the_last, lag(j.finished_at) OVER w <= j.finished_at AS later,
                        lag(j.received_at) OVER w <= j.received_at AS taken_in_later
                 FROM chat.jobs AS j JOIN chat.attempts AS a ON a.job_id = j.id
                 WHERE j.conversation_id = '{conversation}' WINDOW w AS (ORDER BY j.turn)"
            );
            let rows = s.rows(ran).await;
            assert_eq!(rows.len(), 21);
            for (row, turn) in rows.iter().zip(1..).skip(1) {
                let expected = json!({"turn": turn, "after_the_last": true, "later": true, "taken_in_later": true});
                assert_eq!(*row, expected);
            }
            let workers = "SELECT count(DISTINCT worker_id) AS workers FROM chat.jobs";
            assert_eq!(s.row(workers).await["workers"], 2);
            assert!(s.results_so_far().await.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_turn_that_waits_holds_no_slot() {
    let gate = Arc::new(Semaphore::new(0));
    let setup = Setup::new().set("CHAT_CONCURRENCY", "1").replicas(2);
    setup
        .replies([
            Reply::text("one").when(&gate),
            Reply::text("another"),
            Reply::text("two"),
        ])
        .run(async |s| {
            let conversation = Uuid::new_v4().to_string();
            let of = |text| with(ask(text), "conversation_id", conversation.as_str());
            let first = s.send(&of("first")).await;
            s.model.arrived(1).await;
            let second = s.send(&of("second")).await;
            s.waits(&second, "turn").await;
            // One of two slots is taken, and one is free.
            assert_eq!(s.answer(&ask("x")).await["message"]["content"], "another");
            gate.add_permits(1);
            for (id, said) in [(&first, "one"), (&second, "two")] {
                assert_eq!(s.result_of(id).await.json()["message"]["content"], said);
            }
        })
        .await;
}

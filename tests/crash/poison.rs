//! A job that kills whoever runs it.

use serde_json::json;

use crate::laws;
use crate::scenario::{Setup, call, eventually, puppet, runs};
use crate::watch::{tell, with_calc};

/// `CHAT_MAX_ATTEMPTS` where nobody sets it.
const DEATHS: usize = 5;
/// Other jobs that are published with each death.
const NEIGHBOURS: usize = 5;

#[tokio::test]
async fn a_job_that_kills_its_worker_each_time_is_given_up_and_its_neighbours_finish() {
    with_calc(Setup::new().replicas(0).model(puppet), &json!({}))
        .run(async |s| {
            let mut workers = vec![s.start_worker().await, s.start_worker().await];
            let poison = s.send(&call(&[("calc__revenge", json!({}))])).await;
            let mut neighbours = Vec::new();
            for _death in 0..DEATHS {
                for _ in 0..NEIGHBOURS {
                    let sum = call(&[("calc__add", json!({"a": 1, "b": 1}))]);
                    neighbours.push(s.send(&sum).await);
                }
                let at = eventually("a worker that is killed", async || {
                    workers.iter().position(|worker| !runs(worker.pid()))
                })
                .await;
                workers.remove(at).ended().await;
                workers.push(s.start_worker().await);
            }
            let result = s.result_of(&poison).await;
            for neighbour in &neighbours {
                let result = s.result_of(neighbour).await.json();
                assert_eq!(result["message"]["content"], "2", "{result:#}");
            }
            let json = result.json();
            tell(&format!("given up: {json}"));
            assert_eq!(
                (&json["status"], &json["error"]["code"]),
                (&json!("failed"), &json!("attempts_exhausted"))
            );
            let why = json["error"]["message"].as_str().unwrap();
            assert!(why.contains("died") && why.contains("5 times"), "{why}");
            assert_eq!(s.job(&poison).await["failures"], json!(DEATHS));
            assert_eq!(laws::outcomes(s, &poison).await, ["taken_over"; DEATHS]);
            assert_eq!(
                laws::effects(s)
                    .iter()
                    .filter(|effect| effect.tool == "revenge")
                    .count(),
                DEATHS
            );
            let dead = s
                .row("SELECT job_id, error_code, error_message FROM chat.dead_letters")
                .await;
            assert_eq!(
                dead,
                json!({"job_id": poison, "error_code": "attempts_exhausted", "error_message": why})
            );
            let copy = s.dead_letters().await.next().await;
            assert_eq!(copy.message_id(), poison);
            let header = |name: &str| copy.header(name).unwrap_or_default();
            assert_eq!(header("x-chat-error-code"), "attempts_exhausted");
            assert_eq!(header("x-chat-error-message"), why);
            assert_eq!(header("x-chat-attempts"), DEATHS.to_string());
            assert!(copy.text().contains("calc__revenge"), "{}", copy.text());
            laws::check_rest(s).await;
        })
        .await;
}

//! A defect that ends a run and not its worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::laws;
use crate::scenario::{Setup, call, puppet};
use crate::watch::with_calc;

/// Where a run panics, and how its job's runs end.
const PANICS: &[(&str, &[&str])] = &[
    ("claim.after=panic", &["taken_over", "completed"]),
    ("model.after=panic", &["parked", "completed"]),
    ("append.before=panic", &["parked", "completed"]),
    ("append.after=panic", &["parked", "completed"]),
    ("append.before=panic@2", &["parked", "completed"]),
    ("finish.before=panic", &["parked", "completed"]),
    ("finish.after=panic", &["completed"]),
    ("publish.result.before=panic", &["completed"]),
    // The second panic is the first one after an entry was stored.
    (
        "model.after=panic;append.before=panic@2",
        &["parked", "parked", "completed"],
    ),
];

#[tokio::test]
async fn a_run_that_panics_is_made_again_by_the_same_worker_from_its_last_entry() {
    let runs = PANICS
        .iter()
        .map(|(trap, outcomes)| Box::pin(panic_at(trap, outcomes)));
    join_all(runs).await;
}

async fn panic_at(trap: &str, expected: &[&str]) {
    let answers = Arc::new(AtomicUsize::new(0));
    let model = {
        let answers = Arc::clone(&answers);
        move |request: &Value| {
            answers.fetch_add(1, Ordering::Relaxed);
            puppet(request)
        }
    };
    let setup = Setup::new()
        .model(model)
        .set("CHAT_FAILPOINT", trap)
        .set("CHAT_MAX_ATTEMPTS", "2");
    with_calc(setup, &json!({}))
        .run(async |s| {
            let calls = [
                ("calc__append", json!({"line": "x"})),
                ("calc__add", json!({"a": 20, "b": 22})),
            ];
            let job = s.send(&call(&calls)).await;
            let result = s.result_of(&job).await;
            laws::check_rest(s).await;
            assert_eq!(laws::outcomes(s, &job).await, expected, "{trap}");
            let mut results = s.results_so_far().await;
            results.push(result);
            let lost = expected
                .iter()
                .filter(|outcome| **outcome == "parked")
                .count();
            let stored = s.job(&job).await["iterations"].as_u64().unwrap();
            let answers = answers.load(Ordering::Relaxed);
            assert!(
                answers <= usize::try_from(stored).unwrap() + lost,
                "{trap}: {answers}"
            );
            assert_eq!(s.job(&job).await["status"], "completed", "{trap}");
            assert!(
                laws::effects(s)
                    .iter()
                    .filter(|effect| effect.tool == "append")
                    .count()
                    <= 1
            );
        })
        .await;
}

//! A hundred jobs that two replicas have in hand, as far as the test lets them go on.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::laws;
use crate::scenario::{Scenario, Setup, ask, eventually};
use crate::stub_model::Reply;
use crate::victims;

/// How many.
pub(crate) const JOBS: usize = 100;

/// The jobs, each of which asks the model twice and calls a tool in between.
pub(crate) struct Hundred<'a> {
    scenario: &'a Scenario,
    gate: Arc<Semaphore>,
    ids: Vec<String>,
}

/// Has all of them in hand when `test` begins, the model silent. The laws are looked at when it
/// has ended.
pub(crate) async fn hundred_jobs(test: impl AsyncFnOnce(&Hundred<'_>)) {
    let _alone = victims::alone().await;
    let gate = Arc::new(Semaphore::new(0));
    let model = {
        let gate = Arc::clone(&gate);
        move |request: &Value| reply(request).when(&gate)
    };
    let setup = Setup::new().calc().model(model).replicas(2);
    setup
        .run(async |scenario| {
            let mut ids = Vec::with_capacity(JOBS);
            for number in 0..JOBS {
                ids.push(scenario.send(&ask(&format!("{number}"))).await);
            }
            scenario.model.arrived(JOBS).await;
            let hundred = Hundred {
                scenario,
                gate,
                ids,
            };
            test(&hundred).await;
            laws::check(scenario, &hundred.ids).await;
            let asked = scenario.model.requests().len();
            assert_eq!(asked, 2 * JOBS, "an answer was lost and asked for again");
        })
        .await;
}

impl Hundred<'_> {
    /// The model gives so many answers more.
    pub(crate) fn let_answer(&self, answers: usize) {
        self.gate.add_permits(answers);
    }

    /// Waits until the model has given all the answers that it may.
    pub(crate) async fn all_answered(&self) {
        eventually("the last answer of the model", async || {
            (self.gate.available_permits() == 0).then_some(())
        })
        .await;
    }

    /// Waits until so many answers of the model are stored.
    pub(crate) async fn stored(&self, answers: usize) {
        let query = "SELECT count(*) AS answers FROM chat.iterations";
        self.scenario
            .row_where(query, |row| row["answers"] == json!(answers))
            .await;
    }

    /// Waits until all jobs have ended, published or not.
    pub(crate) async fn ended(&self) {
        let query = "SELECT count(finished_at) AS ended FROM chat.jobs";
        self.scenario
            .row_where(query, |row| row["ended"] == json!(JOBS))
            .await;
    }
}

fn reply(request: &Value) -> Reply {
    let last = request["messages"].as_array().and_then(|all| all.last());
    let last = last.expect("a message");
    let text = last["content"].as_str().expect("a text");
    if last["role"] == "tool" {
        return Reply::text(format!("The answer is {text}"));
    }
    let number: u32 = text.parse().expect("a number");
    Reply::calls([("calc__add", json!({"a": number, "b": 1}))])
}

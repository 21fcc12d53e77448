//! Many jobs while workers are killed at random moments.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use fastrand::Rng;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::laws;
use crate::scenario::{Received, Scenario, Setup, said, with};
use crate::stub_model::Reply;
use crate::watch::{patiently, tell, time, with_calc};

const JOBS: usize = 200;
const CONVERSATIONS: usize = 40;
const KILLS: usize = 20;
/// Calls of a tool with an effect, one after the other, that each job makes.
const CALLS: usize = 2;
const SEED: u64 = 20_260_101;
/// A transaction's time is that of its beginning: the claim of a turn that waited for the end of
/// the turn before is later than it says.
const WAITED_FOR_A_LOCK: TimeDelta = TimeDelta::milliseconds(500);

/// How often the model answered each job, by what the job says.
type Answers = Arc<Mutex<HashMap<String, usize>>>;

#[tokio::test]
async fn two_hundred_jobs_end_once_each_whoever_is_killed_meanwhile() {
    let answers = Answers::default();
    let setup = Setup::new()
        .replicas(0)
        .model(model(&answers))
        .set("CHAT_CONCURRENCY", "5")
        // Nobody is to be given up: a job that is always there when somebody dies is not at fault.
        .set("CHAT_MAX_ATTEMPTS", "100");
    with_calc(setup, &json!({}))
        .run(async |s| {
            let mut rng = Rng::with_seed(SEED);
            let mut workers = vec![s.start_worker().await, s.start_worker().await];
            let ids = publish(s, &mut rng).await;
            for _kill in 0..KILLS {
                let pause = Duration::from_millis(rng.u64(100..1500));
                tokio::time::sleep(pause).await;
                let victim = workers.swap_remove(rng.usize(..workers.len()));
                victim.signal(Signal::KILL);
                workers.push(s.start_worker().await);
            }
            let left = unfinished(s).await;
            tell(&format!("{left} of {JOBS} jobs were unfinished after the last kill"));
            assert!(left > 0, "they were killed when there was nothing to do");
            patiently("the end of all jobs", async || {
                (unfinished(s).await == 0).then_some(())
            })
            .await;
            laws::check_rest(s).await;
            let results = results(s).await;
            assert_eq!(results.len(), JOBS);
            let mut runs = 0;
            for (text, id) in &ids {
                let answers = answers.lock().unwrap().get(text).copied();
                laws::check(s, id, &results[id], answers.unwrap_or_default()).await;
                assert_eq!(s.job(id).await["status"], "completed", "{text}");
                runs += laws::attempts(s, id).await.len();
            }
            let lines = s.lines("calc.log");
            let mut counted: Vec<_> = lines.iter().collect();
            counted.sort();
            counted.dedup();
            assert_eq!(counted.len(), lines.len(), "an effect was had twice");
            let answered: usize = answers.lock().unwrap().values().sum();
            tell(&format!(
                "{JOBS} jobs, {KILLS} kills: {runs} runs, {answered} answers, {} stored, {} effects of {}",
                JOBS * (CALLS + 1), lines.len(), JOBS * CALLS
            ));
            assert!(answered <= JOBS * (CALLS + 1) + runs - JOBS);
            check_turns(s).await;
        })
        .await;
}

/// Calls a tool twice, one call after the other, and says then that it is done.
fn model(answers: &Answers) -> impl Fn(&Value) -> Reply + Send + Sync + 'static {
    let answers = Arc::clone(answers);
    move |request| {
        let messages = request["messages"].as_array().expect("messages");
        let at = messages
            .iter()
            .rposition(|message| message["role"] == "user");
        let turn = &messages[at.expect("a message of the user")..];
        let text = said(turn, "user").remove(0);
        let number = said(turn, "tool").len() + 1;
        *answers.lock().unwrap().entry(text.clone()).or_default() += 1;
        let reply = if number > CALLS {
            Reply::text("done")
        } else {
            let line = format!("{text}, effect {number}");
            Reply::calls([("calc__append", json!({"line": line}))])
        };
        reply.after(Duration::from_millis(fastrand::u64(100..700)))
    }
}

/// Publishes all jobs; their ids by what they say.
async fn publish(s: &Scenario, rng: &mut Rng) -> BTreeMap<String, String> {
    let conversations: Vec<_> = (0..CONVERSATIONS)
        .map(|_| uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid())
        .collect();
    let mut ids = BTreeMap::new();
    for number in 0..JOBS {
        let text = format!("job {number}");
        let conversation = conversations[number % CONVERSATIONS].to_string();
        let job = with(crate::scenario::ask(&text), "conversation_id", conversation);
        ids.insert(text, s.send(&job).await);
    }
    ids
}

async fn unfinished(s: &Scenario) -> usize {
    let query = "SELECT count(finished_at) AS finished FROM chat.jobs";
    let finished = s.row(query).await["finished"].as_u64();
    JOBS - usize::try_from(finished.expect("a number")).expect("a small number")
}

/// All results by their job.
async fn results(s: &Scenario) -> BTreeMap<String, Vec<Received>> {
    let mut results: BTreeMap<String, Vec<Received>> = BTreeMap::new();
    for result in s.results_so_far().await {
        results.entry(result.message_id()).or_default().push(result);
    }
    results
}

/// The turns of each conversation have no gap, and none began before the one before it had ended.
async fn check_turns(s: &Scenario) {
    let query = "SELECT j.conversation_id, j.turn, j.finished_at, a.started_at
        FROM chat.jobs AS j JOIN chat.attempts AS a ON a.job_id = j.id AND a.attempt = 1
        ORDER BY j.conversation_id, j.turn";
    let rows = s.rows(query).await;
    assert_eq!(rows.len(), JOBS);
    for turns in rows.chunk_by(|one, next| one["conversation_id"] == next["conversation_id"]) {
        let numbers: Vec<_> = turns.iter().map(|row| row["turn"].as_u64()).collect();
        let expected: Vec<_> = (1..).map(Some).take(JOBS / CONVERSATIONS).collect();
        assert_eq!(numbers, expected, "{turns:#?}");
        for pair in turns.windows(2) {
            let (ended, began) = (time(&pair[0]["finished_at"]), time(&pair[1]["started_at"]));
            assert!(ended <= began + WAITED_FOR_A_LOCK, "{pair:#?}");
        }
    }
}

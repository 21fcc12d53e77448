//! `/metrics`: what became of jobs can be read from it, whatever else is going on, and nothing that
//! a producer, a model or a tool says gets into it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::Semaphore;
use url::Url;

use crate::scenario::{
    API_KEY, Program, Properties, Scenario, Setup, ask, call, eventually, puppet, with,
};
use crate::stub_model::Reply;

/// The samples of a scrape, by name and labels as they are written.
#[derive(Debug)]
struct Scrape {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads the text format, strictly.
    fn read(text: String) -> Self {
        let (mut kinds, mut helped) = (BTreeMap::new(), BTreeSet::new());
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(helped.insert(name) && !help.is_empty(), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(kinds.insert(name, kind).is_none(), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = name_of(series);
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .filter_map(|part| name.strip_suffix(part))
                    .find(|family| kinds.get(family) == Some(&"histogram"))
                    .unwrap_or(name);
                assert!(kinds.contains_key(family), "no TYPE before {line}");
                assert!(helped.contains(family), "no HELP before {line}");
                assert!(name.starts_with("chat_"), "{line}");
                let value: f64 = value.parse().unwrap();
                assert!(samples.insert(series.to_owned(), value).is_none(), "{line}");
            }
        }
        Self { text, samples }
    }

    /// The value of a series; 0 for one that is not there, as for who adds them up.
    fn get(&self, series: &str) -> f64 {
        self.samples.get(series).copied().unwrap_or_default()
    }

    fn is(&self, series: &str, value: f64) -> bool {
        self.get(series).total_cmp(&value).is_eq()
    }
}

/// The name of a series, after its labels were read.
fn name_of(series: &str) -> &str {
    let Some((name, labels)) = series.split_once('{') else {
        return series;
    };
    let labels = labels.strip_suffix('}').unwrap();
    for label in labels.split(',') {
        let (name, value) = label.split_once('=').unwrap();
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{series}"
        );
        let value = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap();
        // None of ours needs an escape.
        assert!(!value.contains(['"', '\\']), "{series}");
    }
    name
}

async fn scrape(worker: &Program) -> Scrape {
    let (status, text) = worker.get("/metrics").await;
    assert_eq!(status, 200, "{text}");
    Scrape::read(text)
}

/// Waits until the series have these values.
async fn settled(worker: &Program, expected: &[(&str, f64)]) -> Scrape {
    let what = format!("{expected:?} in /metrics");
    eventually(&what, async || {
        let scrape = scrape(worker).await;
        let fits = |(series, value): &(&str, f64)| scrape.is(series, *value);
        expected.iter().all(fits).then_some(scrape)
    })
    .await
}

/// As [`puppet`]; `fail` is refused, `hang` never answered, and the first `busy` not at once.
fn moody() -> impl Fn(&Value) -> Reply + Send + Sync + 'static {
    let was_busy = AtomicBool::new(false);
    move |request| {
        let messages = request["messages"].as_array().unwrap();
        match messages.last().unwrap()["content"].as_str().unwrap() {
            "fail" => Reply::error(401, "auth", "invalid_api_key", "as scripted"),
            "hang" => Reply::never(),
            "busy" if !was_busy.swap(true, Ordering::Relaxed) => {
                Reply::error(429, "requests", "rate_limit_exceeded", "as scripted")
                    .with_header("retry-after", "0")
            }
            _ => puppet(request),
        }
    }
}

const SECRET: &str = "what nobody else may read";
const MADE_UP: &str = "made_up_by_a_model";

/// Jobs of every sort, one after the other.
async fn jobs_of_every_sort(s: &Scenario) {
    let calls = call(&[
        ("calc__add", json!({"a": 1, "b": 2})),
        ("calc__add", json!({"a": SECRET})),
        (MADE_UP, json!({})),
    ]);
    let calls = with(calls, "metadata", json!({"a_label": SECRET}));
    for job in [ask(SECRET), ask("busy"), calls] {
        assert_eq!(s.answer(&job).await["status"], "completed");
    }
    assert_eq!(s.answer(&ask("fail")).await["status"], "failed");
    let asked = s.model.requests().len();
    let called_off = s.send(&ask("hang")).await;
    s.model.arrived(asked + 1).await;
    s.rows(format!("SELECT chat.cancel('{called_off}')")).await;
    let result = s.result_of(&called_off).await.json();
    assert_eq!(result["status"], "cancelled");
    s.send_bytes(SECRET.as_bytes(), Properties::default()).await;
}

#[tokio::test]
async fn what_became_of_jobs_and_calls_is_counted() {
    Setup::new()
        .calc()
        .model(moody())
        .run(async |s| {
            jobs_of_every_sort(s).await;
            let scrape = settled(
                &s.worker(),
                &[
                    ("chat_refused_messages_total{code=\"invalid_json\"}", 1.0),
                    ("chat_jobs_in_hand", 0.0),
                    ("chat_sweeper", 1.0),
                    ("chat_publish_seconds_count{outcome=\"failed\"}", 0.0),
                ],
            )
            .await;
            for (series, value) in [
                ("chat_attempts_total{outcome=\"completed\"}", 3.0),
                ("chat_attempts_total{outcome=\"failed\"}", 1.0),
                ("chat_attempts_total{outcome=\"cancelled\"}", 1.0),
                ("chat_attempts_total{outcome=\"fenced\"}", 0.0),
                ("chat_fenced_runs_total", 0.0),
                ("chat_jobs_ended_total{status=\"completed\",code=\"\"}", 3.0),
                (
                    "chat_jobs_ended_total{status=\"failed\",code=\"model_auth\"}",
                    1.0,
                ),
                (
                    "chat_jobs_ended_total{status=\"cancelled\",code=\"cancelled\"}",
                    1.0,
                ),
                ("chat_job_seconds_count", 5.0),
                // Two rounds of the job with calls, and one of each other that was answered.
                ("chat_model_call_seconds_count{outcome=\"answered\"}", 4.0),
                (
                    "chat_model_call_seconds_count{outcome=\"rate_limited\"}",
                    1.0,
                ),
                ("chat_model_call_seconds_count{outcome=\"auth\"}", 1.0),
                ("chat_model_retries_total", 1.0),
                (
                    "chat_tool_call_seconds_count{server=\"calc\",outcome=\"succeeded\"}",
                    1.0,
                ),
                (
                    "chat_tool_call_seconds_count{server=\"calc\",outcome=\"refused\"}",
                    1.0,
                ),
                ("chat_unknown_tool_calls_total", 1.0),
                ("chat_commit_seconds_count{what=\"finish\"}", 5.0),
                ("chat_slots", 64.0),
                ("chat_database_up", 1.0),
            ] {
                assert!(scrape.is(series, value), "{series} in {}", scrape.text);
            }
            assert!(scrape.get("chat_tokens_total{kind=\"input\"}") > 0.0);
            assert!(scrape.get("chat_tokens_total{kind=\"output\"}") > 0.0);
            assert!(scrape.get("chat_publish_seconds_count{outcome=\"confirmed\"}") >= 5.0);
            assert!(scrape.get("chat_job_seconds_sum") > 0.0);
            for name in ["heartbeat", "sweep", "intake", "control", "marks"] {
                let silent = scrape.get(&format!("chat_loop_silent_seconds{{loop=\"{name}\"}}"));
                assert!(silent < 10.0, "{name}: {silent}");
            }
            let told = scrape.text.to_lowercase();
            for secret in [
                SECRET,
                MADE_UP,
                API_KEY,
                "user-42",
                "a_label",
                "\"add\"",
                "as scripted",
            ] {
                assert!(!told.contains(secret), "{secret:?} in {}", scrape.text);
            }
        })
        .await;
}

#[tokio::test]
async fn a_fresh_worker_shows_every_figure_and_zeros() {
    Setup::new()
        .calc()
        .run(async |s| {
            let scrape = scrape(&s.worker()).await;
            for series in [
                "chat_attempts_total{outcome=\"given_back\"}",
                "chat_jobs_ended_total{status=\"failed\",code=\"attempts_exhausted\"}",
                "chat_takeovers_total{by=\"sweep\"}",
                "chat_takeovers_total{by=\"claim\"}",
                "chat_dispatched_total",
                "chat_model_retries_total",
                "chat_tokens_total{kind=\"reasoning\"}",
                "chat_jobs{status=\"running\"}",
                "chat_jobs_waiting{reason=\"approval\"}",
                "chat_oldest_waiting_seconds",
                "chat_unpublished_results",
                "chat_tool_call_seconds_count{server=\"calc\",outcome=\"failed\"}",
            ] {
                assert_eq!(
                    scrape.samples.get(series),
                    Some(&0.0),
                    "{series} in {}",
                    scrape.text
                );
            }
        })
        .await;
}

#[tokio::test]
async fn what_runs_and_what_waits_is_told_while_it_does() {
    let gate = Arc::new(Semaphore::new(0));
    Setup::new()
        .replies([Reply::text("first").when(&gate), Reply::text("second")])
        .set("CHAT_CONCURRENCY", "7")
        .run(async |s| {
            let conversation = uuid::Uuid::new_v4().to_string();
            let job = with(ask("x"), "conversation_id", conversation);
            let first = s.send(&job).await;
            s.model.arrived(1).await;
            let second = s.send(&job).await;
            let scrape = settled(
                &s.worker(),
                &[
                    ("chat_jobs{status=\"running\"}", 1.0),
                    ("chat_jobs{status=\"waiting\"}", 1.0),
                    ("chat_jobs{status=\"queued\"}", 0.0),
                    ("chat_jobs_waiting{reason=\"turn\"}", 1.0),
                    ("chat_jobs_in_hand", 1.0),
                    ("chat_slots", 7.0),
                ],
            )
            .await;
            assert!(scrape.get("chat_oldest_waiting_seconds") > 0.0);
            gate.add_permits(1);
            for id in [first, second] {
                assert_eq!(s.result_of(&id).await.json()["status"], "completed");
            }
            let over = [
                ("chat_jobs{status=\"running\"}", 0.0),
                ("chat_jobs{status=\"waiting\"}", 0.0),
                ("chat_oldest_waiting_seconds", 0.0),
                ("chat_unpublished_results", 0.0),
                ("chat_dispatched_total", 1.0),
            ];
            settled(&s.worker(), &over).await;
        })
        .await;
}

#[tokio::test]
async fn a_job_taken_from_a_dead_worker_is_counted_by_who_took_it() {
    Setup::new()
        .replies([Reply::never(), Reply::text("done")])
        .run(async |s| {
            let id = s.send(&ask("x")).await;
            s.model.arrived(1).await;
            let other = s.start_worker().await;
            s.worker().signal(Signal::KILL);
            assert_eq!(s.result_of(&id).await.json()["attempt"], 2);
            let taken = [
                ("chat_takeovers_total{by=\"sweep\"}", 1.0),
                ("chat_attempts_total{outcome=\"completed\"}", 1.0),
                ("chat_sweeper", 1.0),
            ];
            let scrape = settled(&other, &taken).await;
            assert!(
                scrape.get("chat_dispatched_total") >= 1.0,
                "{}",
                scrape.text
            );
        })
        .await;
}

#[tokio::test]
async fn a_worker_without_its_database_tells_so_and_is_not_stuck() {
    Setup::new()
        .run(async |s| {
            assert_eq!(s.answer(&ask("x")).await["status"], "completed");
            let worker = s.worker();
            settled(&worker, &[("chat_database_up", 1.0)]).await;
            close_database(s).await;
            let scrape = settled(&worker, &[("chat_database_up", 0.0)]).await;
            for series in [
                "chat_jobs{status=\"running\"}",
                "chat_jobs_waiting{reason=\"turn\"}",
                "chat_oldest_waiting_seconds",
                "chat_unpublished_results",
            ] {
                assert!(scrape.get(series).is_nan(), "{series} in {}", scrape.text);
            }
            assert!(scrape.is("chat_attempts_total{outcome=\"completed\"}", 1.0));
            let reasons = eventually("a worker that is not ready", async || {
                let (status, reasons) = worker.get("/readyz").await;
                (status == 503).then_some(reasons)
            })
            .await;
            assert!(reasons.contains("database"), "{reasons}");
            assert_eq!(worker.get("/healthz").await, (200, "ok\n".to_owned()));
            open_database(s).await;
            settled(&worker, &[("chat_database_up", 1.0)]).await;
            worker.ready().await;
            assert_eq!(s.answer(&ask("y")).await["status"], "completed");
        })
        .await;
}

/// Ends every session with the test's database and lets no new one in.
async fn close_database(s: &Scenario) {
    let (mut admin, name) = admin(s).await;
    let closing = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
    admin.execute(AssertSqlSafe(closing)).await.unwrap();
    let ending =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    admin.execute(AssertSqlSafe(ending)).await.unwrap();
    admin.close().await.ok();
}

async fn open_database(s: &Scenario) {
    let (mut admin, name) = admin(s).await;
    let opening = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
    admin.execute(AssertSqlSafe(opening)).await.unwrap();
    admin.close().await.ok();
}

/// A session with the server's own database, and the name of the test's.
async fn admin(s: &Scenario) -> (PgConnection, String) {
    let mut url = Url::parse(&s.database_url()).unwrap();
    let name = url.path().trim_start_matches('/').to_owned();
    url.set_path("postgres");
    (PgConnection::connect(url.as_str()).await.unwrap(), name)
}

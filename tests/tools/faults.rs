//! Servers that misbehave, a fault a test: what the model is told, what the log says, whether the pool
//! keeps the process, and how fast all of that is.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chat_worker::chat::OutcomeStatus::{self, Failed, Succeeded};
use chat_worker::tools::ServerState;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{Lines, Tools, eventually, example, runs, server, with_env};

/// How long a call may take here.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What is to be seen of a fault.
struct Fault {
    /// Its name in the example.
    name: &'static str,
    /// What becomes of the call.
    status: OutcomeStatus,
    /// What the model reads.
    model: &'static str,
    /// What stands in the log.
    log: &'static str,
    pool: Pool,
    pace: Pace,
}

#[derive(PartialEq, Eq)]
enum Pool {
    /// The process is called again.
    Keeps,
    /// The process is ended, and another one started.
    Replaces,
}

enum Pace {
    /// Before the call's time is over.
    AtOnce,
    /// When the call's time is over, and no more than a second later.
    AtItsTimeout,
}

use Pace::{AtItsTimeout, AtOnce};
use Pool::{Keeps, Replaces};

/// Declares a test a fault: its name, what the call comes to, what the log says, the pool, the pace.
macro_rules! faults {
    ($($name:ident: ($status:expr, $model:expr), $log:expr, $pool:expr, $pace:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            let name = stringify!($name);
            Fault { name, status: $status, model: $model, log: $log, pool: $pool, pace: $pace }.check().await;
        })*
    };
}

const CALLED: &str = "";
const FAILED: &str = "a tool call failed";
const ENDED: &str = "a process of a tool server ended";
const MENDED: &str = "a line is not as the protocol has it";

faults! {
    exits: (Failed, "stopped during the call"), ENDED, Replaces, AtOnce;
    closes_stdout: (Failed, "stopped during the call"), FAILED, Replaces, AtOnce;
    leaves_orphan: (Failed, "stopped during the call"), ENDED, Replaces, AtOnce;
    half_line_and_exits: (Failed, "stopped during the call"), ENDED, Replaces, AtOnce;
    half_line_and_hangs: (Failed, "did not answer within 3.0 s"), FAILED, Replaces, AtItsTimeout;
    hangs: (Failed, "did not answer within 3.0 s"), FAILED, Replaces, AtItsTimeout;
    stopped: (Failed, "did not answer within 3.0 s"), FAILED, Replaces, AtItsTimeout;
    stops_reading: (Failed, "did not answer within 3.0 s"), FAILED, Replaces, AtItsTimeout;
    noise: (Succeeded, "after the noise"), CALLED, Keeps, AtOnce;
    asks_for_sampling: (Succeeded, "refused with -32601"), CALLED, Keeps, AtOnce;
    unknown_content: (Succeeded, "seen"), CALLED, Keeps, AtOnce;
    content_is_text: (Succeeded, "bare"), CALLED, Keeps, AtOnce;
    empty_result: (Succeeded, "(no output)"), CALLED, Keeps, AtOnce;
    no_result: (Failed, "neither a result nor an error"), MENDED, Keeps, AtOnce;
    long_line: (Failed, "Ask for less"), "a line is too long to be read", Keeps, AtOnce;
    line_without_end: (Failed, "which is more than can be read"), FAILED, Replaces, AtOnce;
    half_a_surrogate: (Succeeded, "x\u{fffd}y"), MENDED, Keeps, AtOnce;
    not_a_number: (Succeeded, r#"{"mean":null}"#), MENDED, Keeps, AtOnce;
    broken_json: (Failed, "something that is no JSON"), MENDED, Keeps, AtOnce;
    float_code: (Failed, "it is full"), MENDED, Keeps, AtOnce;
    id_is_text: (Succeeded, "by text"), CALLED, Keeps, AtOnce;
    error_without_id: (Failed, "cannot read this"), FAILED, Keeps, AtOnce;
    answers_twice: (Succeeded, "once"), CALLED, Keeps, AtOnce;
    batch: (Succeeded, "in a batch"), MENDED, Keeps, AtOnce;
}

impl Fault {
    async fn check(self) {
        let (log, orphans) = (Log::listen(), Lines::new());
        let mut faulty = server("faulty", &example("fault_server"), &[self.name]);
        faulty.timeout = TIMEOUT;
        faulty.pool.size = 1;
        // Lines of at most 4 MiB.
        faulty.max_media_bytes = 0;
        let tools = Tools::start([with_env(faulty, "FAULT_LOG", orphans.path())]);
        let offer = tools.offer().await;
        let process = tools.health().starts;
        let reads = self.name != "stops_reading";
        let before = if reads { Some(pid(&tools).await) } else { None };
        // More than a pipe holds.
        let arguments = format!(r#"{{"text": "{}"}}"#, "x".repeat(300_000));
        let arguments = if reads { "{}" } else { &arguments };

        let begun = Instant::now();
        let outcome = tools.call_of(&offer, "faulty__bad", arguments).await;
        let took = begun.elapsed();
        assert_eq!(outcome.status, self.status, "{outcome:?}");
        let head: String = outcome.text.chars().take(300).collect();
        assert!(outcome.text.contains(self.model), "{head}");
        match self.pace {
            Pace::AtOnce => assert!(took < TIMEOUT, "{took:?}"),
            Pace::AtItsTimeout => {
                assert!(took >= TIMEOUT, "{took:?}");
                assert!(took < TIMEOUT + Duration::from_secs(1), "{took:?}");
            }
        }
        eventually(self.log, async || {
            log.text().contains(self.log).then_some(())
        })
        .await;

        // The next call works, on the process that the pool has now.
        if reads {
            let after = pid(&tools).await;
            assert_eq!(Some(after) == before, self.pool == Pool::Keeps);
        }
        if self.pool == Pool::Replaces {
            let mut gone: Vec<i32> = orphans
                .read()
                .iter()
                .filter_map(|pid| pid.parse().ok())
                .collect();
            gone.extend(before);
            eventually("the end of all it started", async || {
                (!gone.iter().any(|pid| runs(*pid))).then_some(())
            })
            .await;
            eventually("another process", async || {
                (tools.health().starts > process && tools.health().processes == 1).then_some(())
            })
            .await;
        }
        tools.end().await;
    }
}

async fn pid(tools: &Tools) -> i32 {
    let outcome = tools.call("faulty__good", "{}").await;
    let pid = outcome.text.parse();
    pid.unwrap_or_else(|_| panic!("no process id: {outcome:?}"))
}

/// What is logged on this thread, which runs all tasks of its test.
struct Log {
    lines: Written,
    _listening: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen() -> Self {
        let lines = Written::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_env_filter("chat_worker=debug")
            .with_writer(lines.clone())
            .finish();
        Self {
            lines,
            _listening: tracing::subscriber::set_default(subscriber),
        }
    }

    fn text(&self) -> String {
        let lines = self.lines.0.lock().expect("the log");
        String::from_utf8_lossy(&lines).into_owned()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn faulty(fault: &str) -> Tools {
    let mut faulty = server("faulty", &example("fault_server"), &[fault]);
    faulty.start_timeout = TIMEOUT;
    Tools::start([faulty])
}

async fn reason(fault: &str) -> String {
    let tools = faulty(fault);
    assert_eq!(tools.offer().await.missing(), ["faulty"]);
    let reason = eventually("the reason", async || match tools.health().state {
        ServerState::Down { reason, .. } => Some(reason),
        ServerState::Starting | ServerState::Ready => None,
    });
    let reason = reason.await;
    tools.end().await;
    reason
}

async fn offered(fault: &str) -> Vec<String> {
    let tools = faulty(fault);
    let offer = tools.offer().await;
    let names = offer.specs().iter().map(|spec| spec.name.clone());
    let names = names.collect();
    assert_eq!(
        tools.call("faulty__bad", "{}").await.status,
        OutcomeStatus::Succeeded
    );
    tools.end().await;
    names
}

#[tokio::test]
async fn a_version_that_nobody_speaks_is_told_by_its_name() {
    assert!(reason("too_old").await.contains("2024-10-07"));
    assert!(reason("too_new").await.contains("2099-01-01"));
}

#[tokio::test]
async fn a_list_that_never_comes_or_is_none_is_told() {
    assert_eq!(reason("mute_list").await, "it was not ready within 3 s");
    assert!(reason("no_list").await.contains("no `tools`"));
}

#[tokio::test]
async fn bad_tools_are_left_out_one_by_one_and_named_in_the_log() {
    let log = Log::listen();
    let names = offered("bad_tools").await;
    assert_eq!(
        names,
        ["faulty__a", "faulty__bad", "faulty__c", "faulty__good"]
    );
    assert!(log.text().contains("a tool is left out"), "{}", log.text());
}

#[tokio::test]
async fn a_list_without_end_ends() {
    let names = offered("same_page_for_ever").await;
    assert_eq!(names, ["faulty__bad", "faulty__good"]);
    // A hundred pages.
    assert_eq!(offered("new_page_for_ever").await.len(), 101);
}

#[tokio::test]
async fn two_megabytes_of_complaints_hold_nothing_up_and_do_not_fill_the_log() {
    let log = Log::listen();
    offered("floods_stderr").await;
    let text = log.text();
    assert!(text.contains("a long complaint"), "{text}");
    assert!(text.len() < 200_000, "{} bytes", text.len());
}

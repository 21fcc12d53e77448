//! What the tests of this program wait for and say.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::laws;
use crate::scenario::{Program, Scenario, Setup, eventually, example};

/// Longer than it takes until a silent worker counts as dead.
pub(crate) const VERY_LONG: Duration = Duration::from_mins(2);

/// The database's clock.
pub(crate) async fn now(s: &Scenario) -> DateTime<Utc> {
    let row = s.row("SELECT clock_timestamp() AS now").await;
    time(&row["now"])
}

/// A time of a row.
pub(crate) fn time(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    text.parse().unwrap()
}

/// For who reads the log of a run.
#[expect(clippy::print_stderr, reason = "a figure that a promise is about")]
pub(crate) fn tell(text: &str) {
    eprintln!("{text}");
}

/// Waits longer than the harness does.
pub(crate) async fn patiently<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let looked = tokio::time::timeout(VERY_LONG, looking).await;
    looked.unwrap_or_else(|_| panic!("this never came: {what}"))
}

/// Waits until so many calls have reached the tool server.
pub(crate) async fn calls_made(s: &Scenario, count: usize) {
    eventually("a call that is under way", async || {
        (laws::effects(s).len() >= count).then_some(())
    })
    .await;
}

/// Waits until a process is stopped.
pub(crate) async fn is_stopped(worker: &Program) {
    let path = format!("/proc/{}/stat", worker.pid());
    eventually("a worker that stands still", async || {
        let stat = std::fs::read_to_string(&path).unwrap_or_default();
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.starts_with('T').then_some(())
    })
    .await;
}

/// With the tool server of `examples/calc_server.rs`, which notes each call.
pub(crate) fn with_calc(setup: Setup, more: &Value) -> Setup {
    let mut entry = serde_json::json!({
        "command": example("calc_server"),
        "env": {
            "CALC_LOG": setup.file("calc.log"),
            "CALC_START_LOG": setup.file("starts.log"),
            "CALC_EFFECTS": setup.file(laws::EFFECTS),
        },
    });
    for (name, value) in more.as_object().expect("an object") {
        entry[name] = value.clone();
    }
    setup.server("calc", entry)
}

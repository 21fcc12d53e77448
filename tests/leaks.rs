//! Ten thousand calls and two hundred crashes leave nothing behind: no process, no open file, no
//! memory. Alone in its process, so that what is counted is its own.

#![expect(
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking, and so may what tests share, of which this needs a part"
)]

#[path = "tools/harness.rs"]
mod harness;

use std::path::Path;

use chat_worker::chat::OutcomeStatus;
use chat_worker::config::{Isolation, ServerConfig};
use futures_util::{StreamExt as _, stream};

use crate::harness::{Caller, Tools, calc, eventually};

/// Calls before the first count: what is kept for good is there then.
const WARM_UP: usize = 2_000;
const CALLS: usize = 10_000;
const CRASHES: usize = 200;
const AT_ONCE: usize = 8;

/// What this process has.
#[derive(Debug, PartialEq, Eq)]
struct Belongings {
    files: usize,
    processes: Vec<String>,
    directories: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_calls_and_two_hundred_crashes_leave_nothing_behind() {
    let [each, one, user] = [
        isolated("each", Isolation::Call),
        isolated("one", Isolation::Shared),
        isolated("user", Isolation::User),
    ];
    let tools = Tools::start([each, one, user]);
    run(&tools, WARM_UP, CRASHES / 5).await;
    let (before, memory_before) = (settled(&tools).await, memory());
    run(&tools, CALLS, CRASHES).await;
    let (after, memory_after) = (settled(&tools).await, memory());
    assert_eq!(before, after);
    assert!(
        memory_after * 10 <= memory_before * 11,
        "memory grew from {memory_before} KiB to {memory_after} KiB"
    );
    tools.end().await;
    let left = belongings();
    assert_eq!((left.processes, left.directories), (Vec::new(), 0));
}

/// A server of two processes at most.
fn isolated(name: &str, isolation: Isolation) -> ServerConfig {
    let mut server = calc();
    name.clone_into(&mut server.name);
    server.pool.isolation = isolation;
    server.pool.size = 2;
    server
}

/// Calls of three servers, some of which end their process.
async fn run(tools: &Tools, calls: usize, crashes: usize) {
    let offer = tools.offer().await;
    let every = calls / crashes;
    let calling = stream::iter(0..calls).map(|n| {
        let offer = &offer;
        async move {
            let turn = |of: [&'static str; 3], n: usize| of.into_iter().cycle().nth(n % 3);
            let server = turn(["each", "one", "user"], n).expect("a server");
            let by = Caller::new(1, turn(["ann", "bob", "cec"], n % 7).expect("a user"));
            let dies = n % every == 0;
            let tool = format!("{server}__{}", if dies { "die" } else { "add" });
            let asked = (tool.as_str(), r#"{"a": 1, "b": 1}"#);
            let within = std::time::Duration::from_mins(1);
            let outcome = tools.call_by(&by, offer, asked, within).await;
            // Where calls share a process, one that ends it fails the others with it.
            let fails = dies || server != "each";
            assert!(
                fails || outcome.status == OutcomeStatus::Succeeded,
                "{outcome:?}"
            );
        }
    });
    calling
        .buffer_unordered(AT_ONCE)
        .for_each(async |()| {})
        .await;
}

/// What there is once every process that is to end has ended, and each server has one again.
async fn settled(tools: &Tools) -> Belongings {
    for server in ["each", "one", "user"] {
        let tool = format!("{server}__add");
        eventually("a call that succeeds", async || {
            let outcome = tools.call(&tool, r#"{"a": 1, "b": 1}"#).await;
            (outcome.status == OutcomeStatus::Succeeded).then_some(())
        })
        .await;
    }
    // All may be there: two of each kind but the one that is shared, and the guard.
    let mut last = None;
    eventually("an end of comings and goings", async || {
        let processes: usize = tools
            .toolbox
            .health()
            .iter()
            .map(|server| server.processes)
            .sum();
        let now = belongings();
        let still = processes == 5 && now.processes.len() == 6 && now.directories == 5;
        if !still {
            // Whoever calls two at once has two.
            let calls = [("each__add"), ("each__add"), ("user__add")];
            let calls = calls.map(|tool| tools.call(tool, r#"{"a": 1, "b": 1}"#));
            futures_util::future::join_all(calls).await;
        }
        let same = last.as_ref() == Some(&now);
        let seen = (still && same).then_some(());
        last = Some(now);
        seen
    })
    .await;
    last.expect("what was seen last")
}

fn belongings() -> Belongings {
    let own = std::process::id();
    let files = std::fs::read_dir("/proc/self/fd")
        .expect("the open files")
        .count();
    let ids = std::fs::read_dir("/proc").expect("the processes");
    let ids = ids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // Zombies are not left out: they are left behind, too.
    let children = ids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let parent: u32 = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
        (parent == own).then(|| head.split_once('(').map(|(_, name)| name.to_owned()))?
    });
    let mut processes: Vec<_> = children.collect();
    processes.sort();
    Belongings {
        files,
        processes,
        directories: directories(own),
    }
}

/// Directories of processes.
fn directories(own: u32) -> usize {
    let ours = |name: &str| name.starts_with(&format!("chat-worker-{own}-"));
    let bases = std::fs::read_dir(Path::new("/tmp")).expect("the directory");
    let bases = bases.filter_map(|entry| Some(entry.ok()?.path()));
    let bases = bases.filter(|path| {
        path.file_name()
            .is_some_and(|name| ours(&name.to_string_lossy()))
    });
    bases
        .map(|base| std::fs::read_dir(base).map_or(0, Iterator::count))
        .sum()
}

/// Resident memory, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.expect("the resident memory").split_ascii_whitespace();
    let kib = words.map(str::parse).next().expect("a number");
    kib.expect("a number")
}

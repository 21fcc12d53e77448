//! Nothing that a tool server starts survives it, nor the worker, however that ends.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::harness::{Lines, Tools, calc, eventually, runs, server, with_env};

/// A server with all that may outlive it: a child that ignores the signal, one in a session of its
/// own, and a grandchild there whose parent has ended. Each leaves its process id in `$PIDS`.
const FAMILY: &str = r#"
    note() { echo "$1" >> "$PIDS"; }
    (trap '' TERM; sleep 600 & note $!; wait; sleep 600) &
    note $!
    setsid sh -c 'echo $$ >> "$PIDS"; trap "" TERM HUP; sleep 600' </dev/null >/dev/null 2>&1 &
    (setsid sh -c 'sleep 600 & echo $! >> "$PIDS"' </dev/null >/dev/null 2>&1 &)
    note $$
    touch here "$TMPDIR/there"
    pwd >> "$DIRECTORY"
"#;
const MEMBERS: usize = 5;

async fn members(pids: &Lines) -> Vec<i32> {
    let seen = eventually("the family", async || {
        let lines = pids.read();
        (lines.len() == MEMBERS).then_some(lines)
    });
    let pids: Vec<i32> = seen
        .await
        .iter()
        .map(|pid| pid.parse().expect("a process id"))
        .collect();
    assert!(pids.iter().all(|pid| runs(*pid)), "{pids:?}");
    pids
}

async fn nobody_is_left(pids: &[i32], directory: &Lines) {
    eventually("the end of the family", async || {
        let left: Vec<_> = pids.iter().filter(|pid| runs(**pid)).collect();
        left.is_empty().then_some(())
    })
    .await;
    // A process that follows has another one.
    let directory = directory.read().swap_remove(0);
    eventually("the end of its directory", async || {
        (!Path::new(&directory).exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_survives_a_worker_that_is_killed() {
    let (pids, directory) = (Lines::new(), Lines::new());
    let script = format!("{FAMILY} cat > /dev/null; sleep 600");
    let servers = serde_json::json!({"mcpServers": {"family": {
        "command": "sh", "args": ["-c", script],
        "env": {"PIDS": pids.path(), "DIRECTORY": directory.path()}}}});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), servers.to_string()).unwrap();
    // It waits for the handshake of a server that says nothing.
    let mut worker = Command::new(env!("CARGO_BIN_EXE_chat-worker"))
        .arg("tools")
        .env("MCP_CONFIG", file.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let members = members(&pids).await;
    worker.start_kill().unwrap();
    worker.wait().await.unwrap();
    nobody_is_left(&members, &directory).await;
}

#[tokio::test]
async fn a_server_that_ends_takes_its_whole_family_and_its_directory_along() {
    let (pids, directory) = (Lines::new(), Lines::new());
    let script = format!("{FAMILY} exec {}", crate::harness::example("calc_server"));
    let calc = server("calc", "sh", &["-c", &script]);
    let calc = with_env(calc, "PIDS", pids.path());
    let tools = Tools::start([with_env(calc, "DIRECTORY", directory.path())]);
    let members = members(&pids).await;
    let pid = tools.pid().await;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    nobody_is_left(&members, &directory).await;
    tools.end().await;
}

#[tokio::test]
async fn a_guard_that_is_killed_is_replaced_and_its_end_ends_no_server() {
    let tools = Tools::start([calc()]);
    let pid = tools.pid().await;
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    let base = directory.parent().unwrap();
    let first = eventually("the guard", async || guard_of(base)).await;
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    eventually("another guard", async || {
        guard_of(base).filter(|guard| *guard != first)
    })
    .await;
    assert_eq!(tools.pid().await, pid);
    tools.end().await;
    assert!(!runs(pid));
    eventually("the end of the guard", async || {
        guard_of(base).is_none().then_some(())
    })
    .await;
}

/// The process that guards the servers whose directories lie in `base`.
fn guard_of(base: &Path) -> Option<i32> {
    let base = base.to_str().expect("a path in UTF-8");
    let mut processes = std::fs::read_dir("/proc").expect("the processes");
    processes.find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> = line.split('\0').collect();
        (words.get(1..3)? == ["guard-tools", base] && runs(pid)).then_some(pid)
    })
}

#[tokio::test]
async fn a_process_starts_in_a_directory_of_its_own_and_finds_what_its_path_says() {
    let told = Lines::new();
    let script = format!(
        "pwd >> \"$TOLD\"; echo \"$TMPDIR\" >> \"$TOLD\"; exec {}",
        crate::harness::example("calc_server")
    );
    let one = with_env(server("one", "sh", &["-c", &script]), "TOLD", told.path());
    let tools = Tools::start([one]);
    tools.offer().await;
    let said = told.read();
    assert_eq!(said[0], said[1]);
    assert!(said[0].contains("/chat-worker-"), "{said:?}");
    tools.end().await;
    assert!(!Path::new(&said[0]).exists());
    assert!(!Path::new(&said[0]).parent().unwrap().exists());
}

#[tokio::test]
async fn a_process_that_is_done_ends_by_itself_when_its_input_does() {
    let log = Lines::new();
    let script = format!(
        "trap 'echo signalled >> \"$LOG\"' TERM; {}; echo ended >> \"$LOG\"",
        crate::harness::example("calc_server")
    );
    let mut calc = with_env(server("calc", "sh", &["-c", &script]), "LOG", log.path());
    calc.pool.max_calls = Some(1);
    calc.timeout = Duration::from_secs(30);
    let tools = Tools::start([calc]);
    tools.pid().await;
    tools.pid().await;
    log.wait_for("ended").await;
    assert!(
        !log.read().contains(&"signalled".to_owned()),
        "{:?}",
        log.read()
    );
    tools.end().await;
}

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{eventually, soon};

/// The built program, running. Dropping it kills it.
///
/// It stays in the test's own process group, so that what ends the test ends it too.
pub(crate) struct Program {
    pid: i32,
    child: tokio::sync::Mutex<Child>,
    log: watch::Receiver<String>,
    readers: tokio::sync::Mutex<JoinSet<()>>,
}

impl Program {
    /// Starts `chat-worker run` with these settings and no others.
    pub(crate) fn start(settings: &BTreeMap<String, String>, directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_chat-worker"))
            .arg("run")
            .env_clear()
            .envs(settings)
            // Where no `.env` of a developer lies.
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the built program");
        let (told, log) = watch::channel(String::new());
        let mut readers = JoinSet::new();
        readers.spawn(read(child.stdout.take().expect("a pipe"), told.clone()));
        readers.spawn(read(child.stderr.take().expect("a pipe"), told));
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Self {
            pid: pid.expect("a process id"),
            child: tokio::sync::Mutex::new(child),
            log,
            readers: tokio::sync::Mutex::new(readers),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// All that it has written.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until its log holds `text`.
    pub(crate) async fn log_says(&self, text: &str) {
        let mut log = self.log.clone();
        let what = format!("{text:?} in the log of a worker");
        let found = soon(&what, log.wait_for(|log| log.contains(text))).await;
        assert!(found.is_ok(), "the worker ended without {what}");
    }

    /// Waits until `/readyz` says so.
    pub(crate) async fn ready(&self) {
        eventually("a worker that is ready", async || {
            let (status, _) = self.get("/readyz").await;
            (status == 200).then_some(())
        })
        .await;
    }

    /// Status and body of a path.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let asking = async {
            let mut stream = TcpStream::connect(self.address()).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = soon("an answer over HTTP", asking).await.unwrap();
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        (
            status.unwrap_or_default(),
            body.unwrap_or_default().to_owned(),
        )
    }

    /// Where it serves HTTP, from its log.
    fn address(&self) -> SocketAddr {
        let log = self.log();
        let at = log.split_once("http=").expect("an address in the log").1;
        let end = at.find(|char: char| !(char.is_ascii_digit() || ".:".contains(char)));
        at[..end.unwrap_or(at.len())].parse().expect("an address")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // Gone already: there is nothing to tell it.
        kill_process(Pid::from_raw(self.pid).expect("a process id"), signal).ok();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let ending = async {
            let status = self.child.lock().await.wait().await;
            // What it said last is still on its way.
            while self.readers.lock().await.join_next().await.is_some() {}
            status
        };
        soon("the end of a worker", ending).await.unwrap()
    }

    pub(super) async fn kill(&self) {
        self.child.lock().await.kill().await.ok();
    }
}

async fn read(pipe: impl AsyncRead + Unpin, told: watch::Sender<String>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        told.send_modify(|log| {
            log.push_str(&line);
            log.push('\n');
        });
    }
}

/// Whether a process of this id runs; one that only waits to be reaped does not.
pub(crate) fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    state.flatten().is_some_and(|state| state != 'Z')
}

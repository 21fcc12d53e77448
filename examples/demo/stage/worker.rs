use std::net::{SocketAddr, TcpListener};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::bail;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::program::Program;
use super::{Ground, Place};

const READY: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);
const DRAIN: Duration = Duration::from_secs(30);

/// `chat-worker run`, ready to take jobs.
pub(crate) struct Worker {
    program: Program,
    /// How long it took to get ready.
    pub(crate) starting: Duration,
}

impl Worker {
    /// Starts it with `settings` in its environment, and waits until `/readyz` says yes.
    pub(crate) async fn start(
        place: &Place,
        ground: &Ground,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(place.worker()?);
        command
            .arg("run")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        for name in inherited_settings() {
            command.env_remove(name);
        }
        command
            .env("DATABASE_URL", &ground.database_url)
            .env("AMQP_URL", &place.amqp_url)
            .env("CHAT_PREFIX", &ground.prefix)
            .env("CHAT_HTTP_ADDR", address.to_string())
            .envs(settings.iter().map(|(name, value)| (name, value)));
        let begin = Instant::now();
        let mut program = Program::start("chat-worker", &mut command, ground.directory())?;
        wait_until_ready(&mut program, address).await?;
        Ok(Self {
            program,
            starting: begin.elapsed(),
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// That it still runs.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.program.check()
    }

    /// What it said last, for people.
    pub(crate) fn last_words(&self) -> String {
        self.program.last_words()
    }

    /// Has it drain and end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.program.stop(DRAIN).await
    }
}

async fn wait_until_ready(program: &mut Program, address: SocketAddr) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        program.check()?;
        let reason = match get(address, "/readyz").await {
            Ok((200, _)) => return Ok(()),
            Ok((_, reason)) => reason.trim().to_owned(),
            Err(error) => error.to_string(),
        };
        if begin.elapsed() > READY {
            bail!(
                "the worker is not ready after {} s: {reason}{}",
                READY.as_secs(),
                program.last_words()
            );
        }
        sleep(POLL).await;
    }
}

/// Status and body of a page.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or_default();
    Ok((status.parse()?, body.to_owned()))
}

/// Free at this moment; the worker takes it a moment later.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// The worker's settings that happen to be set around us, and would make this another demonstration.
fn inherited_settings() -> Vec<std::ffi::OsString> {
    let is_setting = |name: &str| {
        name.starts_with("CHAT_")
            || name.starts_with("MCP_")
            || name.starts_with("OTEL_")
            || name == "DATABASE_DIRECT_URL"
    };
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_str().is_some_and(is_setting))
        .collect()
}

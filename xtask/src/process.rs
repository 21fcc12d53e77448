//! Programs that we run: servers in the background, and cargo, the demo and the tests in the foreground.
//!
//! Each runs in a process group of its own, so that all of it can be stopped, and is known to the [`Guard`].

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::guard::Guard;
use crate::sys;

const STEP: Duration = Duration::from_millis(20);

/// How a throw-away server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGQUIT to the process, which sees to its own children (PostgreSQL).
    Quit,
    /// SIGTERM to the process, which ends its children (initdb; killed, they would leak shared memory).
    Terminate,
    /// SIGKILL to the group (RabbitMQ, epmd).
    KillGroup,
}

/// A server that runs in the background and is stopped when this value is dropped.
pub(crate) struct Daemon {
    child: Child,
    stop: Stop,
    guard: Guard,
    kept: bool,
}

impl Daemon {
    /// Starts `command` in `/` with an empty environment but for what it was given, writing to `log`.
    pub(crate) fn spawn(
        mut command: Command,
        stop: Stop,
        log: &Path,
        guard: &Guard,
    ) -> Result<Self, Failure> {
        let name = command.get_program().to_string_lossy().into_owned();
        let cannot = |error| Failure::Failed(format!("cannot start {name}: {error}"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(cannot)?;
        let err = out.try_clone().map_err(cannot)?;
        command
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let child = command.spawn().map_err(cannot)?;
        guard.watch(child.id(), stop);
        Ok(Self {
            child,
            stop,
            guard: guard.clone(),
            kept: false,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether it has ended by itself and well.
    pub(crate) fn has_succeeded(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(status)) if status.success())
    }

    /// From now on it outlives this process.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
        self.guard.forget(self.pid(), self.stop);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let pid = self.pid();
        if !self.has_ended() {
            match self.stop {
                Stop::Quit => sys::signal_process(pid, sys::QUIT),
                Stop::Terminate => sys::signal_process(pid, sys::TERMINATE),
                Stop::KillGroup => sys::signal_group(pid, sys::KILL),
            };
            until(Duration::from_secs(5), || self.has_ended().then_some(()));
        }
        sys::signal_group(pid, sys::KILL);
        drop(self.child.wait());
        self.guard.forget(pid, self.stop);
    }
}

/// Asks every 20 ms until there is an answer or the time is over.
pub(crate) fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if start.elapsed() >= limit {
            return None;
        }
        sleep(STEP);
    }
}

/// Runs a program to its end, handing each piece of its output to `on_output` if standard output is piped. Stops it
/// and everything it started when we are asked to stop.
pub(crate) fn foreground(
    command: &mut Command,
    guard: &Guard,
    mut on_output: impl FnMut(&[u8]),
) -> Result<ExitStatus, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let cannot = |error| Failure::Failed(format!("cannot run {name}: {error}"));
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .spawn()
        .map_err(cannot)?;
    let leader = child.id();
    guard.watch(leader, Stop::KillGroup);
    let pieces = child
        .stdout
        .take()
        .map_or_else(|| mpsc::channel().1, read_in_background);
    let status = wait(&mut child, &pieces, &mut on_output);
    sys::signal_group(leader, sys::KILL);
    guard.forget(leader, Stop::KillGroup);
    // The rest of the output; not for ever, since a process that escaped the group may hold the pipe open.
    while let Ok(piece) = pieces.recv_timeout(Duration::from_secs(1)) {
        on_output(&piece);
    }
    if sys::interrupted() {
        return Err(Failure::Interrupted);
    }
    status.map_err(cannot)
}

fn read_in_background(mut output: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0_u8; 8192];
        while let Ok(read @ 1..) = output.read(&mut buffer) {
            if sender
                .send(buffer.get(..read).unwrap_or_default().to_vec())
                .is_err()
            {
                return;
            }
        }
    });
    pieces
}

/// The end of `child`; after a request to stop it has five seconds to end by itself.
fn wait(
    child: &mut Child,
    pieces: &Receiver<Vec<u8>>,
    on_output: &mut impl FnMut(&[u8]),
) -> std::io::Result<ExitStatus> {
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match asked {
            None if sys::stopping() => {
                sys::signal_group(child.id(), sys::INTERRUPT);
                asked = Some(Instant::now());
            }
            Some(since) if since.elapsed() > Duration::from_secs(5) => {
                sys::signal_group(child.id(), sys::KILL);
            }
            None | Some(_) => {}
        }
        match pieces.recv_timeout(STEP) {
            Ok(piece) => on_output(&piece),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => sleep(STEP),
        }
    }
}

/// Runs a short program and returns its output, or what it complained about.
pub(crate) fn capture(command: &mut Command) -> Result<String, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let cannot = |error| Failure::Failed(format!("cannot run {name}: {error}"));
    let output = command.stdin(Stdio::null()).output().map_err(cannot)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() {
        String::from_utf8_lossy(&output.stdout)
    } else {
        said
    };
    Err(Failure::Failed(format!(
        "{name} failed ({}): {}",
        output.status,
        said.trim()
    )))
}

/// Whether `program` with `arguments` succeeds within the limit, its output thrown away.
pub(crate) fn succeeds(program: &str, arguments: &[&str], limit: Duration) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    let ended = until(limit, || child.try_wait().ok().flatten());
    if ended.is_none() {
        drop(child.kill());
        drop(child.wait());
    }
    ended.is_some_and(|status| status.success())
}

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Lines of a log that are shown when its program failed.
const LAST_LINES: usize = 15;

/// A program that runs in the background; dropped, it is killed.
pub(crate) struct Program {
    name: &'static str,
    pub(crate) child: Child,
    pid: u32,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it says to standard error goes to a file in `directory`.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let errors = File::options().create(true).append(true).open(&log)?;
        let child = command
            // Not the workspace: a `.env` there is somebody's, not ours.
            .current_dir(directory)
            .stderr(Stdio::from(errors))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child
            .id()
            .with_context(|| format!("{name} has no process id"))?;
        Ok(Self {
            name,
            child,
            pid,
            log,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// That it still runs.
    ///
    /// # Errors
    /// It does not; with its last words.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}{}", self.name, self.last_words()),
        }
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// It does not end in time, or it was gone before.
    pub(crate) async fn stop(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        self.check()?;
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::TERM)?;
        match timeout(patience, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_elapsed) => bail!(
                "{} did not end within {} s of SIGTERM{}",
                self.name,
                patience.as_secs(),
                self.last_words()
            ),
        }
    }

    /// The end of its log, on lines of its own.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(LAST_LINES)..)
            .unwrap_or_default();
        if last.is_empty() {
            return String::new();
        }
        format!("; it said last:\n  {}", last.join("\n  "))
    }
}

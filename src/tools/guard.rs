//! The guard, as the worker sees it: a process that ends the tool servers if the worker is ended
//! without a chance to do so itself.

use std::collections::BTreeSet;
use std::io::{PipeWriter, Write as _, pipe};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::ioctl_fionbio;
use rustix::process::Pid;
use tokio::process::{Child, Command};

/// What the guard's command line says after the program's name; the base directory follows.
pub const GUARD_COMMAND: &str = "guard-tools";

/// How long to wait before a guard that ended is replaced: somebody may be killing them.
const PAUSE: Duration = Duration::from_millis(200);

/// Tells the guard what there is to guard, and starts another one if it ends.
#[derive(Debug)]
pub(super) struct Guard {
    program: Option<PathBuf>,
    base: PathBuf,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// Where the guard listens; it does its work when this is closed.
    pipe: Option<PipeWriter>,
    /// The process groups that have not ended, for the guard that may come after this one.
    groups: BTreeSet<i32>,
}

impl Guard {
    /// Nothing is guarded without a program.
    pub(super) fn new(program: Option<&Path>, base: &Path) -> Self {
        Self {
            program: program.map(Path::to_path_buf),
            base: base.to_path_buf(),
            told: Mutex::default(),
        }
    }

    /// Starts the guard; none if there is nothing to start, or it does not start.
    pub(super) fn start(&self) -> Option<Child> {
        let program = self.program.as_deref()?;
        self.spawn(program)
            .inspect_err(|error| {
                tracing::error!(%error, "no guard: tool servers outlive this process if it is killed");
            })
            .ok()
    }

    /// Replaces the guard `child` for as long as this is polled.
    pub(super) async fn keep(&self, child: &mut Option<Child>) {
        loop {
            match child {
                Some(running) => {
                    let status = running.wait().await;
                    tracing::warn!(
                        ?status,
                        "the guard of the tool servers ended; another is started"
                    );
                    self.lock().pipe = None;
                }
                None if self.program.is_none() => std::future::pending::<()>().await,
                None => {}
            }
            tokio::time::sleep(PAUSE).await;
            *child = self.start();
        }
    }

    /// This process group has been started.
    pub(super) fn watch(&self, group: Pid) {
        let mut told = self.lock();
        told.groups.insert(group.as_raw_pid());
        told.say(&format!("+{}\n", group.as_raw_pid()));
    }

    /// This process group has ended.
    pub(super) fn forget(&self, group: Pid) {
        let mut told = self.lock();
        told.groups.remove(&group.as_raw_pid());
        told.say(&format!("-{}\n", group.as_raw_pid()));
    }

    /// Lets the guard do its work, which is nothing if all have ended, and waits for it.
    pub(super) async fn dismiss(&self, child: Option<Child>) {
        self.lock().pipe = None;
        if let Some(mut child) = child {
            child.wait().await.ok();
        }
    }

    fn spawn(&self, program: &Path) -> std::io::Result<Child> {
        let (reader, mut writer) = pipe()?;
        // A guard that is stopped must not stop the worker.
        ioctl_fionbio(&writer, true)?;
        let child = Command::new(program)
            .arg(GUARD_COMMAND)
            .arg(&self.base)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(reader))
            .stdout(Stdio::null())
            // Whoever reads the worker's standard error to its end does not wait for the guard.
            .stderr(Stdio::null())
            // What ends the worker's group is not to end the guard.
            .process_group(0)
            .spawn()?;
        let mut told = self.lock();
        for group in &told.groups {
            writeln!(writer, "+{group}")?;
        }
        told.pipe = Some(writer);
        Ok(child)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// One that has ended is replaced, and told all of it again. One that does not read keeps its
    /// pipe: it would take the end of it for the end of this process.
    fn say(&mut self, line: &str) {
        let told = self
            .pipe
            .as_mut()
            .map(|pipe| pipe.write_all(line.as_bytes()));
        if let Some(Err(error)) = told {
            tracing::warn!(%error, "the guard of the tool servers does not listen");
        }
    }
}

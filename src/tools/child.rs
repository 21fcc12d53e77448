//! The processes of tool servers: started with an environment of their own in a process group of
//! their own, watched to their end, and ended together with all they started.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::error::StartError;
use super::stderr::StderrTail;
use crate::config::Transport;

/// How long a process may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(1);
/// How often the rest of a process group is looked for; nothing tells when it is gone.
const LOOK: Duration = Duration::from_millis(20);

/// What is counted of a server's processes.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    /// Processes started so far.
    pub(super) starts: AtomicU64,
    /// Processes that have not ended.
    pub(super) alive: AtomicUsize,
    /// Processes that can be called or are being called.
    pub(super) ready: AtomicUsize,
    /// Told when a process ended by itself.
    pub(super) died: Notify,
    /// Told when a process is not ready any more, for whatever reason.
    pub(super) lost: Notify,
}

/// Starts processes and sees them all ended.
#[derive(Clone, Debug)]
pub(super) struct Nursery {
    tasks: TaskTracker,
    children: TaskTracker,
    stop: CancellationToken,
}

/// A running process. Dropping it ends it, and its whole group.
#[derive(Debug)]
pub(super) struct Child {
    ended: CancellationToken,
    stderr: Arc<StderrTail>,
    stderr_read: CancellationToken,
    _condemn: DropGuard,
}

impl Nursery {
    /// Watchers run on `tasks` until `stop`.
    pub(super) fn new(tasks: &TaskTracker, stop: CancellationToken) -> Self {
        Self {
            tasks: tasks.clone(),
            children: TaskTracker::new(),
            stop,
        }
    }

    /// Starts a process; `server` is its name in logs.
    pub(super) fn start(
        &self,
        server: &str,
        transport: &Transport,
        vitals: &Arc<Vitals>,
    ) -> Result<(Child, ChildStdin, ChildStdout), StartError> {
        let Transport::Stdio {
            command,
            args,
            env,
            cwd,
        } = transport;
        let refused = |reason: String| StartError::Spawn {
            command: command.clone(),
            reason,
        };
        let mut line = Command::new(command);
        line.args(args)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value.expose())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(cwd) = cwd {
            line.current_dir(cwd);
        }
        let mut process = line.spawn().map_err(|error| refused(error.to_string()))?;
        let pipes = (
            process.stdin.take(),
            process.stdout.take(),
            process.stderr.take(),
        );
        let group = process
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let ((Some(stdin), Some(stdout), Some(stderr)), Some(group)) = (pipes, group) else {
            return Err(refused("it has no pipes or no process id".to_owned()));
        };
        vitals.starts.fetch_add(1, Ordering::Relaxed);
        vitals.alive.fetch_add(1, Ordering::Relaxed);

        let condemned = self.stop.child_token();
        let ended = CancellationToken::new();
        let watch = Watch {
            process,
            group,
            condemned: condemned.clone(),
            ended: ended.clone(),
            vitals: Arc::clone(vitals),
        };
        let name = server.to_owned();
        self.tasks.spawn(
            self.children
                .track_future(async move { watch.run(&name).await }),
        );
        let tail = Arc::new(StderrTail::default());
        let stderr_read = CancellationToken::new();
        let (name, kept, read) = (server.to_owned(), Arc::clone(&tail), stderr_read.clone());
        // A grandchild may hold the pipe open for ever.
        let over = self.stop.clone();
        self.tasks.spawn(async move {
            over.run_until_cancelled(kept.drain(&name, stderr)).await;
            read.cancel();
        });
        let child = Child {
            ended,
            stderr: tail,
            stderr_read,
            _condemn: condemned.drop_guard(),
        };
        Ok((child, stdin, stdout))
    }

    /// Ends every process and waits for their ends; a process that survives even SIGKILL is left.
    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        self.children.close();
        if tokio::time::timeout(GRACE * 2, self.children.wait())
            .await
            .is_err()
        {
            tracing::warn!("a process of a tool server did not end");
        }
    }
}

impl Child {
    /// Whether the process has not ended.
    pub(super) fn is_alive(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Cancelled when the process has ended, even where something it started holds its pipes.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// The last words on its standard error.
    pub(super) async fn last_words(&self) -> String {
        // What a process said just before it ended may still be in the pipe.
        let read = self.stderr_read.cancelled();
        tokio::time::timeout(Duration::from_millis(200), read)
            .await
            .ok();
        self.stderr.text()
    }
}

/// Owns a process from its start to its end.
struct Watch {
    process: tokio::process::Child,
    group: Pid,
    condemned: CancellationToken,
    ended: CancellationToken,
    vitals: Arc<Vitals>,
}

impl Watch {
    async fn run(mut self, server: &str) {
        tokio::select! {
            status = self.process.wait() => {
                self.note_end();
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::warn!(tool.server = server, status, "a process of a tool server ended");
                self.vitals.died.notify_one();
            }
            () = self.condemned.cancelled() => {}
        }
        self.end_group().await;
    }

    /// SIGTERM to the whole group, SIGKILL to what is left of it.
    async fn end_group(&mut self) {
        // An error means that nobody is left.
        if kill_process_group(self.group, Signal::TERM).is_err() {
            self.reap().await;
            return;
        }
        let group = self.group;
        let ended = tokio::time::timeout(GRACE, async {
            self.reap().await;
            while test_kill_process_group(group).is_ok() {
                tokio::time::sleep(LOOK).await;
            }
        });
        if ended.await.is_err() {
            kill_process_group(group, Signal::KILL).ok();
            self.reap().await;
        }
    }

    async fn reap(&mut self) {
        if let Err(error) = self.process.wait().await {
            tracing::warn!(%error, "the end of a process cannot be waited for");
        }
        self.note_end();
    }

    fn note_end(&self) {
        if !self.ended.is_cancelled() {
            self.ended.cancel();
            self.vitals.alive.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

//! The processes of tool servers: started with an environment of their own in a process group and a
//! directory of their own, watched to their end, and ended together with all they started.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Pid;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::cut::Cut;
use super::error::StartError;
use super::ground::Ground;
use super::stderr::{Redactor, StderrTail};
use super::watch::{LIMIT, Watch};
use crate::config::{HostConfig, StdioConfig};

/// What a process reads.
pub(super) type Stdin = Cut<ChildStdin>;
/// What a process says.
pub(super) type Stdout = Cut<ChildStdout>;

/// How much longer than its process a standard error is read that something else holds open.
const LAST_WORDS: Duration = Duration::from_millis(500);

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
    host: HostConfig,
    /// Laid for the first process.
    ground: Arc<Mutex<Option<Arc<Ground>>>>,
}

/// A running process. Dropping it ends it, and its whole group.
#[derive(Debug)]
pub(super) struct Child {
    ended: CancellationToken,
    hurried: CancellationToken,
    stderr: Arc<StderrTail>,
    stderr_read: CancellationToken,
    _condemn: DropGuard,
}

impl Nursery {
    /// Watchers run on `tasks` until `stop`.
    pub(super) fn new(tasks: &TaskTracker, stop: CancellationToken, host: &HostConfig) -> Self {
        Self {
            tasks: tasks.clone(),
            children: TaskTracker::new(),
            stop,
            host: host.clone(),
            ground: Arc::default(),
        }
    }

    /// Starts a process; `server` is its name in logs.
    pub(super) fn start(
        &self,
        server: &str,
        config: &StdioConfig,
        vitals: &Arc<Vitals>,
    ) -> Result<(Child, Stdin, Stdout), StartError> {
        let StdioConfig { command, env, .. } = config;
        let refused = |reason: String| StartError::Spawn {
            command: command.clone(),
            reason,
        };
        let ground = self.ground().map_err(|error| {
            let temp_dir = self.host.temp_dir.display();
            refused(format!("no directory can be made in {temp_dir}: {error}"))
        })?;
        let plot = ground
            .plot()
            .map_err(|error| refused(format!("its directory cannot be made: {error}")))?;
        let line = command_line(config, plot.path());
        let mut process = line
            .and_then(|mut line| line.spawn())
            .map_err(|error| refused(error.to_string()))?;
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
        ground.guard().watch(group);
        vitals.starts.fetch_add(1, Ordering::Relaxed);
        vitals.alive.fetch_add(1, Ordering::Relaxed);

        let condemned = self.stop.child_token();
        let hurried = CancellationToken::new();
        let (ended, gone) = (CancellationToken::new(), CancellationToken::new());
        let watch = Watch {
            process,
            group,
            plot,
            ground,
            condemned: condemned.clone(),
            hurried: hurried.clone(),
            ended: ended.clone(),
            gone: gone.clone(),
            vitals: Arc::clone(vitals),
        };
        let name = server.to_owned();
        self.tasks.spawn(
            self.children
                .track_future(async move { watch.run(&name).await }),
        );
        let tail = Arc::new(StderrTail::new(Redactor::new(env)));
        let stderr_read = CancellationToken::new();
        let (name, kept, read) = (server.to_owned(), Arc::clone(&tail), stderr_read.clone());
        let over = ended.clone();
        self.tasks.spawn(async move {
            let late = async {
                over.cancelled().await;
                tokio::time::sleep(LAST_WORDS).await;
            };
            tokio::select! { () = kept.drain(&name, stderr) => {} () = late => {} }
            read.cancel();
        });
        let child = Child {
            ended,
            hurried,
            stderr: tail,
            stderr_read,
            _condemn: condemned.drop_guard(),
        };
        Ok((child, Cut::new(stdin, gone.clone()), Cut::new(stdout, gone)))
    }

    /// Cancelled when everything is to end.
    pub(super) fn condemned(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Runs `company` until what is given back is dropped, or everything ends.
    pub(super) fn accompany(
        &self,
        company: impl Future<Output = ()> + Send + 'static,
    ) -> DropGuard {
        let over = self.stop.child_token();
        let until = over.clone();
        self.tasks
            .spawn(async move { until.run_until_cancelled(company).await });
        over.drop_guard()
    }

    /// Runs `watch`; a shutdown waits for its end.
    pub(super) fn watch(&self, watch: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.children.track_future(watch));
    }

    /// Runs `task` until everything is to end.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks
            .spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// Ends every process and waits for their ends; a process that survives even SIGKILL is left.
    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        self.children.close();
        if tokio::time::timeout(LIMIT, self.children.wait())
            .await
            .is_err()
        {
            tracing::warn!("a process of a tool server did not end");
        }
    }

    fn ground(&self) -> std::io::Result<Arc<Ground>> {
        let mut laid = self.ground.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ground) = laid.as_ref() {
            return Ok(Arc::clone(ground));
        }
        let host = &self.host;
        let until = (&self.children, &self.stop);
        let ground = Ground::lay(&host.temp_dir, host.guard.as_deref(), &self.tasks, until)?;
        *laid = Some(Arc::clone(&ground));
        Ok(ground)
    }
}

/// What may be wrong with a server that did not start: an argument that names a file where the worker
/// stands, and none where the server does.
pub(super) fn hint(config: &StdioConfig) -> Option<String> {
    let StdioConfig { args, cwd, .. } = config;
    if cwd.is_some() {
        return None;
    }
    let mut paths = args.iter().map(Path::new);
    let path = paths.find(|path| path.is_relative() && path.is_file())?;
    Some(format!(
        "(it runs in an empty directory of its own, where there is no {}: give the whole path, or set cwd)",
        path.display()
    ))
}

/// What is started, for a process whose own directory is `own`.
fn command_line(config: &StdioConfig, own: &Path) -> std::io::Result<Command> {
    let StdioConfig {
        command,
        args,
        env,
        cwd,
    } = config;
    // A path that is not whole is meant from where the worker stands.
    let program = match cwd {
        None if command.contains('/') => std::path::absolute(command)?,
        None | Some(_) => command.into(),
    };
    let mut line = Command::new(program);
    line.args(args)
        .env_clear()
        .env("TMPDIR", own)
        .envs(env.iter().map(|(name, value)| (name, value.expose())))
        .current_dir(cwd.as_deref().unwrap_or(own))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    Ok(line)
}

impl Child {
    /// Cancelled when the process has ended, even where something it started holds its pipes.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// When it is dropped, it is not to be given time to end by itself: it does not do as it should.
    pub(super) fn hurry(&self) {
        self.hurried.cancel();
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

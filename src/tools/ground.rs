//! Where processes are started: a directory for each, which is removed when it has ended, and the
//! guard. What a server left behind outside its process group is found by its directory and ended.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guard::Guard;
use super::strays;

/// The least time between two looks at all processes of the machine.
const SPACING: Duration = Duration::from_secs(1);
/// How often strays are looked for again as long as there are some.
const TRIES: usize = 20;
const LOOK: Duration = Duration::from_millis(20);

/// The ground that processes of tool servers stand on.
#[derive(Debug)]
pub(super) struct Ground {
    base: PathBuf,
    next: AtomicU64,
    guard: Guard,
    /// The numbers of directories whose process has ended.
    ended: Mutex<HashSet<u64>>,
    more: Notify,
}

/// A process's own directory.
#[derive(Debug)]
pub(super) struct Plot {
    ground: Arc<Ground>,
    number: u64,
    path: PathBuf,
}

impl Ground {
    /// Makes the directory of all directories in `temp_dir`, and starts the guard. Both stay until
    /// `stop`, and until the last of `children` has ended; `tasks` sees to it.
    pub(super) fn lay(
        temp_dir: &Path,
        guard: Option<&Path>,
        tasks: &TaskTracker,
        (children, stop): (&TaskTracker, &CancellationToken),
    ) -> io::Result<Arc<Self>> {
        let name = format!(
            "chat-worker-{}-{:08x}",
            getpid().as_raw_pid(),
            fastrand::u32(..)
        );
        let base = std::path::absolute(temp_dir)?.join(name);
        make(&base)?;
        // The kernel says where a process stands without links.
        let base = base.canonicalize()?;
        let ground = Arc::new(Self {
            guard: Guard::new(guard, &base),
            base,
            next: AtomicU64::new(1),
            ended: Mutex::default(),
            more: Notify::new(),
        });
        // Before the first process that it is to guard.
        let guard = ground.guard.start();
        let (kept, children, stop) = (Arc::clone(&ground), children.clone(), stop.clone());
        tasks.spawn(async move { kept.keep(guard, children, stop).await });
        Ok(ground)
    }

    /// A fresh directory.
    pub(super) fn plot(self: &Arc<Self>) -> io::Result<Plot> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.base.join(number.to_string());
        make(&path)?;
        Ok(Plot {
            ground: Arc::clone(self),
            number,
            path,
        })
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    async fn keep(
        self: Arc<Self>,
        mut guard: Option<tokio::process::Child>,
        children: TaskTracker,
        stop: CancellationToken,
    ) {
        let clearing = async {
            loop {
                self.more.notified().await;
                Arc::clone(&self).clear().await;
                tokio::time::sleep(SPACING).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = clearing => {}
            () = self.guard.keep(&mut guard) => {}
        }
        children.close();
        children.wait().await;
        Arc::clone(&self).clear().await;
        self.guard.dismiss(guard).await;
        // The guard has removed it, if there is one.
        tokio::fs::remove_dir_all(&self.base).await.ok();
    }

    /// Ends what is left of the servers that have ended, and removes their directories.
    async fn clear(self: Arc<Self>) {
        let numbers = self.lock().clone();
        if numbers.is_empty() {
            return;
        }
        for _ in 0..TRIES {
            let (ground, wanted) = (Arc::clone(&self), numbers.clone());
            let found = tokio::task::spawn_blocking(move || ground.end_strays(&wanted)).await;
            if found.is_ok_and(|found| found == 0) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        for number in numbers {
            let path = self.base.join(number.to_string());
            if let Err(error) = tokio::fs::remove_dir_all(&path).await {
                tracing::warn!(%error, "the directory of a tool server is not removed");
            }
            // Only now: whoever breaks this off has not lost it.
            self.lock().remove(&number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there were.
    fn end_strays(&self, numbers: &HashSet<u64>) -> usize {
        let seen = strays::all(&self.base).unwrap_or_default();
        let is_root = |one: &strays::Seen| one.owner.is_some_and(|owner| numbers.contains(&owner));
        let strays = strays::kin(&seen, is_root);
        for pid in &strays {
            tracing::warn!(
                pid = pid.as_raw_pid(),
                "a tool server left a process behind; it is ended"
            );
            // An error means that it is gone, or not ours.
            kill_process(*pid, Signal::KILL).ok();
            // As the first process of a container it is ours to bury.
            waitpid(Some(*pid), WaitOptions::NOHANG).ok();
        }
        strays.len()
    }
}

impl Plot {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Plot {
    /// Its process has ended.
    fn drop(&mut self) {
        self.ground.lock().insert(self.number);
        self.ground.more.notify_one();
    }
}

/// A directory that nobody else can look into.
fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

//! One process from its start to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpgid,
};
use tokio_util::sync::CancellationToken;

use super::child::Vitals;
use super::ground::{Ground, Plot};

/// How long a process may take to end once its standard input has.
const CLOSE: Duration = Duration::from_millis(500);
/// How long it may take when it is asked to end.
const GRACE: Duration = Duration::from_secs(1);
/// How long the end of a process takes at most, if the kernel does as it should.
pub(super) const LIMIT: Duration = Duration::from_millis(1900);
/// How often the rest of a process group is looked for; nothing tells when it is gone.
const LOOK: Duration = Duration::from_millis(20);

/// Owns a process from its start to its end.
pub(super) struct Watch {
    pub(super) process: tokio::process::Child,
    /// Its process group, which it leads.
    pub(super) group: Pid,
    pub(super) plot: Plot,
    pub(super) ground: Arc<Ground>,
    /// It is to end. Its standard input has been closed.
    pub(super) condemned: CancellationToken,
    /// If it is to end, then at once.
    pub(super) hurried: CancellationToken,
    /// Told when the process has ended.
    pub(super) ended: CancellationToken,
    /// Told when its group has, too.
    pub(super) gone: CancellationToken,
    pub(super) vitals: Arc<Vitals>,
}

impl Watch {
    /// Waits for its end, or ends it; then ends what is left of its group.
    pub(super) async fn run(mut self, server: &str) {
        let by_itself = tokio::select! {
            _ = self.process.wait() => true,
            () = self.condemned.cancelled() => false,
        };
        if by_itself {
            self.note_end();
            self.vitals.died.notify_one();
        } else {
            self.let_end().await;
        }
        self.end_group().await;
        // A broken pipe may have been seen before the end that broke it.
        if by_itself || self.hurried.is_cancelled() {
            let status = self.process.wait().await;
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::warn!(
                tool.server = server,
                status,
                "a process of a tool server ended"
            );
        }
        self.ground.guard().forget(self.group);
        self.gone.cancel();
        drop(self.plot);
    }

    /// Gives it time to see that its standard input has ended.
    async fn let_end(&mut self) {
        let hurried = self.hurried.clone();
        tokio::select! {
            () = self.reap() => {}
            () = hurried.cancelled() => {}
            () = tokio::time::sleep(CLOSE) => {}
        }
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
            while is_left(group) {
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

/// Whether somebody is left of a group whose leader has been reaped.
fn is_left(group: Pid) -> bool {
    // The first process of a container has to bury what others leave.
    while let Ok(Some(_)) = waitpgid(group, WaitOptions::NOHANG) {}
    test_kill_process_group(group).is_ok()
}

//! The replicas: started, killed, frozen, told to stop.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ground::{DRAIN, Ground};

/// What a worker may take beyond its drain, with services that come and go under it.
const SLACK: Duration = Duration::from_secs(20);
/// Who is frozen for longer than this is to thaw, not to be killed before.
const SPARED: Duration = Duration::from_secs(10);

/// All replicas, each in a place that has always one.
pub(crate) struct Fleet {
    program: PathBuf,
    settings: BTreeMap<String, String>,
    directory: PathBuf,
    places: Vec<Replica>,
    leaving: JoinSet<Left>,
    thaws: JoinSet<()>,
    /// Started so far.
    pub(crate) started: usize,
    /// The longest from SIGTERM to the end.
    pub(crate) longest_stop: Duration,
    /// What no replica may do.
    pub(crate) complaints: Vec<String>,
}

/// A worker process. Dropped, it is killed.
struct Replica {
    number: usize,
    child: Child,
    process: Arc<Process>,
    frozen_until: Instant,
    spared: bool,
}

struct Process {
    pid: i32,
    gone: AtomicBool,
}

/// A replica that was told to stop.
struct Left {
    number: usize,
    status: Option<ExitStatus>,
    took: Duration,
}

impl Fleet {
    /// Starts so many.
    pub(crate) fn start(ground: &Ground, model_url: &str, count: usize) -> anyhow::Result<Self> {
        let settings = ground.settings(model_url)?;
        let settings = settings
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let mut fleet = Self {
            program: ground.worker().to_owned(),
            settings: settings.collect(),
            directory: ground.directory().to_owned(),
            places: Vec::new(),
            leaving: JoinSet::new(),
            thaws: JoinSet::new(),
            started: 0,
            longest_stop: Duration::ZERO,
            complaints: Vec::new(),
        };
        for _ in 0..count {
            let replica = fleet.launch()?;
            fleet.places.push(replica);
        }
        Ok(fleet)
    }

    /// SIGKILL; another takes the place.
    pub(crate) async fn kill(&mut self, place: usize) -> anyhow::Result<()> {
        let mut killed = self.replace(self.unless_spared(place))?;
        killed.process.gone.store(true, Ordering::SeqCst);
        Ok(killed.child.kill().await?)
    }

    /// SIGTERM; another takes the place. The end is waited for in the background.
    pub(crate) fn drain(&mut self, place: usize) -> anyhow::Result<()> {
        let leaving = self.replace(self.unless_spared(place))?;
        self.leaving.spawn(leaving.stop());
        Ok(())
    }

    /// SIGSTOP, and SIGCONT after this time unless it is gone by then.
    pub(crate) fn freeze(&mut self, place: usize, time: Duration) {
        let Some(replica) = self.places.get_mut(place) else {
            return;
        };
        replica.frozen_until = replica.frozen_until.max(Instant::now() + time);
        replica.spared |= time > SPARED;
        replica.process.signal(Signal::STOP);
        let (process, until) = (Arc::clone(&replica.process), replica.frozen_until);
        self.thaws.spawn(async move {
            tokio::time::sleep_until(until).await;
            process.signal(Signal::CONT);
        });
    }

    /// Replaces those that ended unasked, and notes it.
    pub(crate) fn look_after(&mut self) -> anyhow::Result<()> {
        for place in 0..self.places.len() {
            let replica = self.places.get_mut(place).context("no such place")?;
            if let Some(status) = replica.child.try_wait()? {
                let number = replica.number;
                replica.process.gone.store(true, Ordering::SeqCst);
                self.complain(number, &format!("ended unasked with {status}"));
                self.replace(place)?;
            }
        }
        while let Some(left) = self.leaving.try_join_next() {
            self.see_off(&left?);
        }
        Ok(())
    }

    /// Nobody is frozen any more.
    pub(crate) fn thaw_all(&mut self) {
        self.thaws.abort_all();
        for replica in &mut self.places {
            replica.frozen_until = Instant::now();
            replica.process.signal(Signal::CONT);
        }
    }

    /// Tells all of them to stop, and waits for them and for those that were told before.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        for replica in std::mem::take(&mut self.places) {
            self.leaving.spawn(replica.stop());
        }
        while let Some(left) = self.leaving.join_next().await {
            self.see_off(&left?);
        }
        Ok(())
    }

    fn see_off(&mut self, left: &Left) {
        self.longest_stop = self.longest_stop.max(left.took);
        let fact = match left.status {
            Some(status) if status.success() => return,
            Some(status) => format!("was told to stop and ended with {status}"),
            None => format!("did not end within {:.0?} of SIGTERM", left.took),
        };
        self.complain(left.number, &fact);
    }

    fn complain(&mut self, number: usize, fact: &str) {
        let said = std::fs::read_to_string(log(&self.directory, number)).unwrap_or_default();
        let last = said.lines().next_back().unwrap_or_default();
        self.complaints
            .push(format!("worker {number} {fact}; it said last: {last}"));
    }

    /// This place, or the next if the replica there is frozen for long.
    fn unless_spared(&self, place: usize) -> usize {
        let is_spared = |place: &usize| {
            let replica = self.places.get(*place);
            replica.is_some_and(|replica| replica.spared && replica.frozen_until > Instant::now())
        };
        let others = (0..self.places.len()).map(|step| (place + step) % self.places.len());
        others
            .into_iter()
            .find(|place| !is_spared(place))
            .unwrap_or(place)
    }

    /// Puts a new replica into a place, and hands out the old one.
    fn replace(&mut self, place: usize) -> anyhow::Result<Replica> {
        let fresh = self.launch()?;
        let place = self.places.get_mut(place).context("no such place")?;
        Ok(std::mem::replace(place, fresh))
    }

    fn launch(&mut self) -> anyhow::Result<Replica> {
        self.started += 1;
        let number = self.started;
        let log = File::create(log(&self.directory, number))?;
        let child = Command::new(&self.program)
            .arg("run")
            .env_clear()
            .envs(&self.settings)
            // Not the workspace: a `.env` there is somebody's, not ours.
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .context("the worker does not start")?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let process = Process {
            pid: pid.context("the worker has no process id")?,
            gone: AtomicBool::new(false),
        };
        Ok(Replica {
            number,
            child,
            process: Arc::new(process),
            frozen_until: Instant::now(),
            spared: false,
        })
    }
}

impl Replica {
    /// Tells it to stop and waits for the end; the time in which it is frozen does not count.
    async fn stop(mut self) -> Left {
        self.process.signal(Signal::TERM);
        let since = self.frozen_until.max(Instant::now());
        let ended = timeout_at(since + DRAIN + SLACK, self.child.wait()).await;
        self.process.gone.store(true, Ordering::SeqCst);
        let status = ended.ok().and_then(Result::ok);
        if status.is_none() {
            // It is killed by being dropped; reaped it should be, too.
            self.child.kill().await.ok();
        }
        Left {
            number: self.number,
            status,
            took: since.elapsed(),
        }
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid)
            && !self.gone.load(Ordering::SeqCst)
        {
            // Ended by itself a moment ago: there is nobody to tell.
            kill_process(pid, signal).ok();
        }
    }
}

fn log(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("worker-{number}.log"))
}

/// Waits until no process of this run is left, and returns those that do not end. Where there is
/// no `/proc`, nobody is found.
pub(crate) async fn left_behind(prefix: &str, effects: &Path) -> Vec<String> {
    let marks = [
        format!("CHAT_PREFIX={prefix}\0"),
        format!("CALC_EFFECTS={}\0", effects.display()),
    ];
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = processes_with(&marks);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn processes_with(marks: &[String]) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let marked = entries.filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let has = |mark: &String| {
            environment
                .windows(mark.len())
                .any(|window| window == mark.as_bytes())
        };
        marks.iter().any(has)
    });
    let name = |entry: std::fs::DirEntry| {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        format!("{} {}", entry.file_name().display(), name.trim())
    };
    marked.map(name).collect()
}

//! What the guard does: a process of its own that outlives the worker for a moment, to end what the
//! worker can end no more.
//!
//! It reads its standard input, a pipe that only the worker holds: `+7` says that the process group
//! 7 was started, `-7` that it is gone. The pipe ends when the worker has ended, in whatever way.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

use super::strays::{all, kin};

/// How long processes may take to end when they are asked to.
const GRACE: Duration = Duration::from_secs(1);
/// How long they may take when they are told to: only the kernel itself can hold them up then.
const END: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Waits until the worker has ended, and ends all tool servers then, and all that they started.
/// `base` is the directory that theirs lie in; it is removed.
pub fn stand_guard(base: &OsStr) {
    let base = Path::new(base);
    let groups = listen(std::io::stdin().lock());
    let asked = end(base, &groups, Signal::TERM, GRACE);
    if !asked {
        end(base, &groups, Signal::KILL, END);
    }
    // Whoever still writes there is beyond our reach.
    std::fs::remove_dir_all(base).ok();
}

/// The groups that are left when the pipe ends.
fn listen(pipe: impl BufRead) -> BTreeSet<i32> {
    let mut groups = BTreeSet::new();
    for line in pipe.lines().map_while(Result::ok) {
        let group = line.get(1..).and_then(|group| group.parse().ok());
        match (line.get(..1), group) {
            (Some("+"), Some(group)) => {
                groups.insert(group);
            }
            (Some("-"), Some(group)) => {
                groups.remove(&group);
            }
            _ => {}
        }
    }
    groups
}

/// Sends `signal` once to each that is left, newcomers included, until nobody is; whether that
/// came within `patience`.
#[expect(
    clippy::disallowed_methods,
    reason = "this process has no runtime, and nothing tells when others end"
)]
fn end(base: &Path, groups: &BTreeSet<i32>, signal: Signal, patience: Duration) -> bool {
    let begun = Instant::now();
    let mut told = HashSet::new();
    loop {
        let left = left(base, groups);
        if left.is_empty() {
            return true;
        }
        if begun.elapsed() >= patience {
            return false;
        }
        for target in left {
            if told.insert(target) {
                target.signal(signal);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Whom a signal goes to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Process(Pid),
    Group(Pid),
}

impl Target {
    fn signal(self, signal: Signal) {
        // An error means that it is gone, or not ours.
        match self {
            Self::Process(pid) => kill_process(pid, signal).ok(),
            Self::Group(pid) => kill_process_group(pid, signal).ok(),
        };
    }
}

fn left(base: &Path, groups: &BTreeSet<i32>) -> Vec<Target> {
    if let Some(seen) = all(base) {
        let pids = kin(&seen, |one| {
            groups.contains(&one.group) || one.owner.is_some()
        });
        return pids.into_iter().map(Target::Process).collect();
    }
    let groups = groups.iter().filter_map(|group| Pid::from_raw(*group));
    let alive = groups.filter(|group| test_kill_process_group(*group).is_ok());
    alive.map(Target::Group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_to_be_gone_is_left_alone_and_noise_is_no_group() {
        let groups = listen(&b"+7\n+8\n-7\n\n+\n+x\n-9\n+10"[..]);
        assert_eq!(Vec::from_iter(groups), [8, 10]);
    }
}

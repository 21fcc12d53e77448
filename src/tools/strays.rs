//! Processes of tool servers that left their process groups. They are known by the directory that
//! each server is started with: whatever a server starts inherits it, as its working directory or
//! as TMPDIR. Where there is no `/proc`, none are seen.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::process::{Pid, getpid};

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) pid: Pid,
    parent: i32,
    /// Its process group.
    pub(super) group: i32,
    /// The number of the directory that it has inherited.
    pub(super) owner: Option<u64>,
}

/// Every process that runs but this one; none if that cannot be known. Directories are looked for
/// below `base`.
pub(super) fn all(base: &Path) -> Option<Vec<Seen>> {
    let entries = fs::read_dir("/proc").ok()?;
    let own = getpid();
    let pids = entries.filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(pid).filter(|pid| *pid != own)
    });
    Some(pids.filter_map(|pid| look(pid, base)).collect())
}

/// Those for which `is_root` holds, and all that descend from them.
pub(super) fn kin(seen: &[Seen], is_root: impl Fn(&Seen) -> bool) -> Vec<Pid> {
    let mut family: HashSet<i32> = HashSet::new();
    let mut grows = true;
    while grows {
        let before = family.len();
        for one in seen {
            if family.contains(&one.parent) || is_root(one) {
                family.insert(one.pid.as_raw_pid());
            }
        }
        grows = family.len() > before;
    }
    let pids = seen.iter().map(|one| one.pid);
    pids.filter(|pid| family.contains(&pid.as_raw_pid()))
        .collect()
}

/// One process, unless it has ended and only waits to be reaped.
fn look(pid: Pid, base: &Path) -> Option<Seen> {
    let directory = format!("/proc/{}", pid.as_raw_pid());
    let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
    let (state, parent, group) = read_stat(&stat)?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    let cwd = fs::read_link(format!("{directory}/cwd")).ok();
    let by_cwd = cwd.and_then(|cwd| owner(base, cwd.as_os_str().as_bytes()));
    let owner = by_cwd.or_else(|| {
        // Of a process of another user nothing can be read, and it cannot be ended either.
        let environment = fs::read(format!("{directory}/environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find_map(|variable| owner(base, variable.strip_prefix(b"TMPDIR=")?))
    });
    Some(Seen {
        pid,
        parent,
        group,
        owner,
    })
}

/// State, parent and group. The name before them may hold anything, closing brackets too.
fn read_stat(stat: &str) -> Option<(&str, i32, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((
        fields.next()?,
        fields.next()?.parse().ok()?,
        fields.next()?.parse().ok()?,
    ))
}

/// The number of the directory below `base` that `path` is or lies in.
fn owner(base: &Path, path: &[u8]) -> Option<u64> {
    let below = path.strip_prefix(base.as_os_str().as_bytes())?;
    let name = below
        .strip_prefix(b"/")?
        .split(|byte| *byte == b'/')
        .next()?;
    // The kernel says so of a directory that was removed.
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    std::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pid: i32, parent: i32, group: i32, owner: Option<u64>) -> Seen {
        Seen {
            pid: Pid::from_raw(pid).unwrap(),
            parent,
            group,
            owner,
        }
    }

    #[test]
    fn the_kin_are_the_roots_and_all_below_in_whatever_order_they_are_seen() {
        let all = [
            seen(9, 8, 9, None),
            seen(8, 7, 8, None),
            seen(7, 1, 7, Some(3)),
            seen(6, 1, 6, Some(4)),
            seen(5, 1, 5, None),
        ];
        let pids = kin(&all, |one| one.owner == Some(3));
        let pids: Vec<_> = pids.into_iter().map(Pid::as_raw_pid).collect();
        assert_eq!(pids, [9, 8, 7]);
        assert_eq!(kin(&all, |_| false), []);
    }

    #[test]
    fn a_path_belongs_to_the_directory_it_lies_in_and_no_other() {
        let of = |path: &str| owner(Path::new("/tmp/w-1"), path.as_bytes());
        assert_eq!(of("/tmp/w-1/12"), Some(12));
        assert_eq!(of("/tmp/w-1/12/a/b"), Some(12));
        assert_eq!(of("/tmp/w-1/12 (deleted)"), Some(12));
        for other in ["/tmp/w-1", "/tmp/w-1/", "/tmp/w-12/1", "/tmp/w-1/x", "/"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_with_brackets_hides_nothing() {
        assert_eq!(read_stat("7 (a) b) S 1 5 5 0"), Some(("S", 1, 5)));
        assert_eq!(read_stat("7 (a"), None);
    }
}

//! What processes use, from `/proc`.

use std::collections::{BTreeMap, HashSet};
use std::fs;

/// Ticks a second of the times in `/proc/PID/stat`: the same on every Linux that matters.
const TICKS: f64 = 100.0;

/// CPU time, in seconds.
pub(crate) type Seconds = f64;

struct Times {
    parent: u32,
    own: f64,
    /// Of children that have ended and were waited for.
    ended: f64,
}

/// CPU time of a process, without its children.
pub(crate) fn cpu_of(pid: u32) -> Seconds {
    times(pid).map_or(0.0, |times| times.own)
}

/// CPU time of the processes below a process, ended ones included.
pub(crate) fn cpu_below(pid: u32) -> Seconds {
    cpu_of_tree(pid) - cpu_of(pid)
}

/// CPU time of a process and everything below it, ended processes included.
pub(crate) fn cpu_of_tree(pid: u32) -> Seconds {
    let all = all_times();
    let counted = members(&all, pid);
    counted
        .iter()
        .filter_map(|pid| all.get(pid))
        .map(|times| times.own + times.ended)
        .sum()
}

/// CPU time of all cores together, by whomever.
pub(crate) fn cpu_of_machine() -> Seconds {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; what follows is counted in these already.
    let busy = fields.iter().take(8).enumerate();
    let busy = busy.filter(|(index, _)| !matches!(index, 3 | 4));
    busy.map(|(_, ticks)| ticks / TICKS).sum()
}

/// Resident memory of a process now, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// The most resident memory that a process ever had, in KiB.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// Proportional memory of the processes below a process, in KiB: pages that they share count once.
pub(crate) fn memory_below_kib(pid: u32) -> u64 {
    let below = members(&all_times(), pid);
    let below = below.iter().filter(|member| **member != pid);
    below
        .map(|pid| field(&format!("/proc/{pid}/smaps_rollup"), "Pss:"))
        .sum()
}

fn members(all: &BTreeMap<u32, Times>, root: u32) -> HashSet<u32> {
    let mut found = HashSet::from([root]);
    loop {
        let before = found.len();
        let more = all
            .iter()
            .filter(|(_, times)| found.contains(&times.parent));
        let more: Vec<_> = more.map(|(pid, _)| *pid).collect();
        found.extend(more);
        if found.len() == before {
            return found;
        }
    }
}

fn all_times() -> BTreeMap<u32, Times> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, times(pid)?))).collect()
}

fn times(pid: u32) -> Option<Times> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, spaces and brackets included.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(Times {
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(11)? + ticks(12)?) / TICKS,
        ended: (ticks(13)? + ticks(14)?) / TICKS,
    })
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

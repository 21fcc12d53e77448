//! What was seen, in figures.

use crate::fleet::Fleet;
use crate::laws::Seen;
use crate::model::Calls;
use crate::report::Table;

/// Adds the figures of a run.
pub(crate) fn fill(table: &mut Table, seen: &Seen<'_>, fleet: &Fleet) {
    let entries = seen.entries;
    table.row("replicas started", fleet.started);
    let longest = fleet.longest_stop.as_secs_f64();
    table.row("longest stop after SIGTERM", format!("{longest:.1} s"));
    let jobs = entries.jobs.values();
    let count = |is: fn(&crate::ledger::Entry) -> bool| jobs.clone().filter(|job| is(job)).count();
    table.row("jobs", entries.jobs.len());
    table.row("jobs that are turns", count(|job| job.is_turn));
    table.row("jobs with a reply_to", count(|job| job.wants_reply));
    table.row("messages confirmed", entries.confirmed);
    table.row("messages sent again, unsure", entries.unsure);
    let results: u32 = jobs.clone().map(|job| job.results).sum();
    table.row("results received", results);
    let statuses = seen.records.jobs.values().map(|job| &job.status);
    table.tally("jobs", statuses);
    let codes = seen.records.jobs.values();
    table.tally(
        "jobs failed:",
        codes.filter_map(|job| job.error_code.as_ref()),
    );
    let outcomes = seen.records.attempts.values().flatten();
    let outcomes = outcomes.map(|run| run.outcome.as_deref().unwrap_or("without an end"));
    table.tally("runs", outcomes);
    let asked = Calls::total(seen.asked);
    table.row("model calls answered", asked.answered);
    table.row("model calls failed: 500", asked.broken);
    table.row("model calls failed: 429", asked.held_back);
    table.row("model calls failed: unreadable", asked.garbled);
    let stored: usize = seen.records.iterations.values().map(Vec::len).sum();
    table.row("answers stored", stored);
    let calls = seen.records.calls.iter();
    table.tally("tool calls", calls.map(|call| &call.status));
    table.row("tool effects", seen.effects.count());
    let again = seen.effects.by_key.values().filter(|made| made.len() > 1);
    table.row("safe tool calls made again", again.count());
}

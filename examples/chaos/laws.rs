//! What holds whatever happens. Each law is a function of what was seen, and says what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use uuid::Uuid;

use crate::effects::{Effect, Effects};
use crate::ledger::Entries;
use crate::model::Book;
use crate::records::{Call, Health, Job, Records};

/// Ways for a run to end that lose no answer of the model.
const IN_GOOD_ORDER: &[&str] = &["completed", "failed", "parked"];
/// What a job may fail of here: the model fails on purpose, and workers die.
const EXPECTED: &[&str] = &["model_unavailable", "model_protocol", "attempts_exhausted"];
/// Tools that are safe to call again.
const SAFE: &[&str] = &["add"];
/// A transaction's time is that of its beginning. One that then waits for another, as the claim of
/// a turn waits for the end of the turn before, is later than it says.
const WAITED_FOR_A_LOCK: TimeDelta = TimeDelta::milliseconds(500);

/// A law and what breaks it.
pub(crate) struct Law {
    pub(crate) text: &'static str,
    pub(crate) broken: Vec<String>,
}

/// All that was seen.
pub(crate) struct Seen<'a> {
    pub(crate) records: &'a Records,
    pub(crate) entries: &'a Entries,
    pub(crate) asked: &'a Book,
    pub(crate) effects: &'a Effects,
}

/// The laws about jobs.
pub(crate) fn check(seen: &Seen<'_>) -> Vec<Law> {
    let law = |text, broken| Law { text, broken };
    vec![
        law("every job ended once", ended_once(seen)),
        law("no job failed but by the model", failures(seen.records)),
        law(
            "every job was answered, and always the same",
            answers(seen.entries),
        ),
        law(
            "nobody waits, runs or is unpublished",
            rest(seen.records.health),
        ),
        law("one run at a time wrote", writers(seen.records)),
        law(
            "no stored answer of the model was paid for twice",
            payments(seen),
        ),
        law(
            "no tool call with a stored result was made again",
            repeated(seen),
        ),
        law(
            "no unsafe tool call was made twice",
            unsafe_twice(seen.effects),
        ),
        law("every call and its effect are on record", bookkeeping(seen)),
        law(
            "turns ended in order and never ran two at once",
            turns(seen.records),
        ),
    ]
}

fn ended_once(seen: &Seen<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    for id in seen.entries.jobs.keys() {
        let Some(job) = seen.records.jobs.get(id) else {
            broken.push(format!("{id} is not stored"));
            continue;
        };
        let ends = seen.records.attempts_of(*id).iter().filter(|attempt| {
            let outcome = attempt.outcome.as_deref().unwrap_or_default();
            matches!(outcome, "completed" | "failed" | "cancelled")
        });
        let ends = ends.count();
        if job.finished_at.is_none() {
            broken.push(format!("{id} is {}", job.status));
        } else if ends > 1 {
            broken.push(format!("{id} was ended by {ends} runs"));
        }
    }
    let strangers = seen.records.jobs.keys();
    let strangers = strangers.filter(|id| !seen.entries.jobs.contains_key(id));
    broken.extend(strangers.map(|id| format!("{id} was never published")));
    broken
}

fn failures(records: &Records) -> Vec<String> {
    let unexpected = records.jobs.values().filter_map(|job| {
        let code = job.error_code.as_deref()?;
        let message = job.error_message.as_deref().unwrap_or_default();
        (!EXPECTED.contains(&code)).then(|| format!("{}: {code}: {message}", job.id))
    });
    unexpected.collect()
}

fn answers(entries: &Entries) -> Vec<String> {
    let mut broken = entries.strange.clone();
    for (id, entry) in &entries.jobs {
        match entry.bodies.as_slice() {
            [_same] => {}
            [] => broken.push(format!("{id} has no result")),
            [one, other, ..] => broken.push(format!("{id} has two results: {one} and {other}")),
        }
    }
    broken
}

fn rest(health: Health) -> Vec<String> {
    if health == Health::default() {
        return Vec::new();
    }
    vec![format!("{health:?}")]
}

/// The runs are numbered without a gap up to the job's, and none stored an answer after a later one.
fn writers(records: &Records) -> Vec<String> {
    let mut broken = Vec::new();
    for job in records.jobs.values() {
        let runs = records.attempts_of(job.id).iter();
        let runs: Vec<_> = runs.map(|run| run.number).collect();
        if runs != (1..=job.attempt).collect::<Vec<_>>() {
            broken.push(format!(
                "{} is in run {}, and has {runs:?}",
                job.id, job.attempt
            ));
        }
        let wrote = records.iterations_of(job.id).iter();
        let wrote: Vec<_> = wrote.map(|iteration| iteration.attempt).collect();
        if !wrote.is_sorted() {
            broken.push(format!(
                "{}: answers were stored by the runs {wrote:?}",
                job.id
            ));
        }
    }
    broken
}

/// A model call that was answered well is stored, or it was lost with its run: under way, or not yet
/// stored, when its worker was killed, frozen for so long that another took over, or told to stop.
/// A run has one model call at a time, and is over when it loses one. So a job's answered calls are
/// its stored iterations and at most one for each of its runs that did not end in good order. Calls
/// that the model failed by itself (500, 429, unreadable) are counted apart and cost nothing.
fn payments(seen: &Seen<'_>) -> Vec<String> {
    let overpaid = seen.entries.jobs.keys().filter_map(|id| {
        let answered = seen.asked.get(id).map_or(0, |calls| calls.answered);
        let answered = usize::try_from(answered).unwrap_or(usize::MAX);
        let stored = seen.records.iterations_of(*id).len();
        let broken_off = seen.records.attempts_of(*id).iter().filter(|attempt| {
            let outcome = attempt.outcome.as_deref().unwrap_or_default();
            !IN_GOOD_ORDER.contains(&outcome)
        });
        let lost = broken_off.count();
        let text = format!("{id}: {answered} answers, {stored} stored, {lost} runs broken off");
        (answered > stored + lost || answered < stored).then_some(text)
    });
    overpaid.collect()
}

fn has_result(call: &Call) -> bool {
    matches!(call.status.as_str(), "succeeded" | "failed")
}

/// What is stored is the result of the call that finished then; a call that began later was made
/// although there was a result.
fn repeated(seen: &Seen<'_>) -> Vec<String> {
    let stored = seen.records.calls.iter().filter(|call| has_result(call));
    let again = stored.filter_map(|call| {
        let key = (call.job_id, call.iteration, call.position);
        let (effects, finished) = (seen.effects.by_key.get(&key)?, call.finished_at?);
        let late = effects.iter().filter(|effect| effect.at > finished).count();
        (late > 0).then(|| format!("{key:?} {}: {late} after {finished}", call.tool))
    });
    again.collect()
}

fn unsafe_twice(effects: &Effects) -> Vec<String> {
    let is_unsafe = |effect: &&Effect| !SAFE.contains(&effect.tool.as_str());
    let twice = effects.by_key.iter().filter_map(|(key, effects)| {
        let made = effects.iter().filter(is_unsafe).count();
        (made > 1).then(|| format!("{key:?}: {made} times"))
    });
    twice.collect()
}

/// A result without an effect, or an effect without a row, would mean that the counts say nothing.
fn bookkeeping(seen: &Seen<'_>) -> Vec<String> {
    let mut broken = seen.effects.unreadable.clone();
    let key = |call: &Call| (call.job_id, call.iteration, call.position);
    let rows: BTreeSet<_> = seen.records.calls.iter().map(key).collect();
    let unknown = seen.effects.by_key.keys().filter(|key| !rows.contains(key));
    broken.extend(unknown.map(|key| format!("{key:?} was called and is not stored")));
    let silent = seen.records.calls.iter().filter(|call| {
        let without_effect = !seen.effects.by_key.contains_key(&key(call));
        call.status == "succeeded" && without_effect
    });
    broken.extend(silent.map(|call| format!("{:?} has a result and was not called", key(call))));
    broken
}

fn turns(records: &Records) -> Vec<String> {
    let mut conversations: BTreeMap<Uuid, Vec<&Job>> = BTreeMap::new();
    for job in records.jobs.values() {
        conversations
            .entry(job.conversation_id)
            .or_default()
            .push(job);
    }
    let mut broken = Vec::new();
    for (conversation, mut jobs) in conversations {
        jobs.sort_by_key(|job| job.turn);
        for pair in jobs.windows(2) {
            let [before, after] = pair else { continue };
            let started = records.attempts_of(after.id).first();
            let Some((ended, started)) = before.finished_at.zip(started) else {
                continue;
            };
            let out_of_order = after.finished_at.is_some_and(|end| end < ended);
            if started.started_at + WAITED_FOR_A_LOCK < ended || out_of_order {
                broken.push(format!(
                    "{conversation}: turn {:?} ended at {ended}, turn {:?} began at {} and ended at {:?}",
                    before.turn, after.turn, started.started_at, after.finished_at
                ));
            }
        }
    }
    broken
}

#[cfg(test)]
#[path = "laws_tests.rs"]
mod tests;

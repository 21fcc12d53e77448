use chrono::{DateTime, Utc};
use serde_json::json;

use super::*;
use crate::ledger::Entry;
use crate::model::Calls;
use crate::records::{Attempt, Iteration};

/// A world in which all laws hold: two turns of a conversation, the first taken over once, with a
/// call that was made again.
struct World {
    records: Records,
    entries: Entries,
    asked: Book,
    effects: Effects,
}

const FIRST: Uuid = Uuid::from_u128(1);
const SECOND: Uuid = Uuid::from_u128(2);

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn job(id: Uuid, turn: i32, attempt: i32, finished_at: i64) -> Job {
    Job {
        id,
        conversation_id: FIRST,
        turn: Some(turn),
        status: "completed".to_owned(),
        attempt,
        error_code: None,
        error_message: None,
        finished_at: Some(at(finished_at)),
    }
}

fn run(job_id: Uuid, number: i32, started_at: i64, outcome: &str) -> Attempt {
    Attempt {
        job_id,
        number,
        started_at: at(started_at),
        outcome: Some(outcome.to_owned()),
    }
}

fn call(position: i32, tool: &str, finished_at: i64) -> Call {
    Call {
        job_id: FIRST,
        iteration: 1,
        position,
        tool: tool.to_owned(),
        status: "succeeded".to_owned(),
        finished_at: Some(at(finished_at)),
    }
}

fn effect(tool: &str, second: i64) -> Effect {
    Effect {
        at: at(second),
        tool: tool.to_owned(),
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            records: Records::default(),
            entries: Entries::default(),
            asked: Book::new(),
            effects: Effects::default(),
        };
        let records = &mut world.records;
        records.jobs = [
            (FIRST, job(FIRST, 1, 2, 20)),
            (SECOND, job(SECOND, 2, 1, 30)),
        ]
        .into();
        let runs = vec![
            run(FIRST, 1, 1, "taken_over"),
            run(FIRST, 2, 8, "completed"),
        ];
        records.attempts = [
            (FIRST, runs),
            (SECOND, vec![run(SECOND, 1, 20, "completed")]),
        ]
        .into();
        let stored = |job_id: Uuid, runs: &[i32]| {
            let stored = runs.iter().map(|attempt| Iteration {
                job_id,
                attempt: *attempt,
            });
            (job_id, stored.collect())
        };
        records.iterations = [stored(FIRST, &[1, 2]), stored(SECOND, &[1])].into();
        records.calls = vec![call(1, "add", 9), call(2, "sleep", 3)];
        for (id, answered) in [(FIRST, 3), (SECOND, 1)] {
            let calls = Calls {
                answered,
                broken: 5,
                ..Calls::default()
            };
            world.asked.insert(id, calls);
            let entry = Entry {
                results: 2,
                bodies: vec![json!({"job_id": id})],
                ..Entry::default()
            };
            world.entries.jobs.insert(id, entry);
        }
        let made = vec![effect("add", 2), effect("add", 8)];
        world.effects.by_key.insert((FIRST, 1, 1), made);
        let made = vec![effect("sleep", 2)];
        world.effects.by_key.insert((FIRST, 1, 2), made);
        world
    }

    /// The laws that do not hold.
    fn broken(&self) -> Vec<&'static str> {
        let laws = check(&Seen {
            records: &self.records,
            entries: &self.entries,
            asked: &self.asked,
            effects: &self.effects,
        });
        let broken = laws.into_iter().filter(|law| !law.broken.is_empty());
        broken.map(|law| law.text).collect()
    }

    fn first(&mut self) -> &mut Job {
        self.records.jobs.get_mut(&FIRST).unwrap()
    }
}

#[track_caller]
fn breaks(change: impl FnOnce(&mut World), laws: &[&str]) {
    let mut world = World::new();
    change(&mut world);
    assert_eq!(world.broken(), laws);
}

#[test]
fn a_world_without_faults_breaks_no_law() {
    breaks(|_| {}, &[]);
}

#[test]
fn a_job_that_is_lost_unfinished_or_ended_twice_is_seen() {
    let law = "every job ended once";
    breaks(|world| drop(world.records.jobs.remove(&SECOND)), &[law]);
    breaks(|world| world.first().finished_at = None, &[law]);
    breaks(
        |world| {
            let runs = world.records.attempts.get_mut(&SECOND).unwrap();
            runs.push(run(SECOND, 2, 31, "completed"));
            world.records.jobs.get_mut(&SECOND).unwrap().attempt = 2;
        },
        &[law],
    );
    breaks(|world| drop(world.entries.jobs.remove(&SECOND)), &[law]);
}

#[test]
fn a_failure_that_is_the_workers_own_is_seen() {
    let law = "no job failed but by the model";
    breaks(
        |world| world.first().error_code = Some("internal".to_owned()),
        &[law],
    );
    breaks(
        |world| world.first().error_code = Some("model_unavailable".to_owned()),
        &[],
    );
}

#[test]
fn a_missing_result_another_result_and_a_strange_one_are_seen() {
    let law = "every job was answered, and always the same";
    let bodies = |world: &mut World, bodies| {
        world.entries.jobs.get_mut(&FIRST).unwrap().bodies = bodies;
    };
    breaks(|world| bodies(world, vec![]), &[law]);
    breaks(|world| bodies(world, vec![json!(1), json!(2)]), &[law]);
    breaks(|world| world.entries.strange.push("x".to_owned()), &[law]);
}

#[test]
fn what_is_not_at_rest_is_seen() {
    let law = "nobody waits, runs or is unpublished";
    breaks(|world| world.records.health.unpublished_results = 1, &[law]);
}

#[test]
fn an_earlier_run_that_still_wrote_is_seen() {
    let law = "one run at a time wrote";
    breaks(
        |world| world.records.iterations.get_mut(&FIRST).unwrap().reverse(),
        &[law],
    );
    breaks(|world| world.first().attempt = 3, &[law]);
}

#[test]
fn an_answer_more_than_runs_were_broken_off_is_seen() {
    let law = "no stored answer of the model was paid for twice";
    let answered = |world: &mut World, id, answered| {
        world.asked.get_mut(&id).unwrap().answered = answered;
    };
    breaks(|world| answered(world, FIRST, 4), &[law]);
    breaks(|world| answered(world, FIRST, 2), &[]);
    breaks(|world| answered(world, SECOND, 2), &[law]);
    breaks(|world| answered(world, SECOND, 0), &[law]);
}

#[test]
fn a_call_after_its_result_and_an_unsafe_call_made_twice_are_seen() {
    let (again, twice) = (
        "no tool call with a stored result was made again",
        "no unsafe tool call was made twice",
    );
    let made = |world: &mut World, position, tool, second| {
        let made = world.effects.by_key.get_mut(&(FIRST, 1, position));
        made.unwrap().push(effect(tool, second));
    };
    breaks(|world| made(world, 1, "add", 10), &[again]);
    breaks(|world| made(world, 2, "sleep", 2), &[twice]);
    breaks(|world| made(world, 2, "sleep", 10), &[again, twice]);
}

#[test]
fn effects_and_rows_that_do_not_belong_together_are_seen() {
    let law = "every call and its effect are on record";
    breaks(|world| drop(world.records.calls.pop()), &[law]);
    breaks(
        |world| drop(world.effects.by_key.remove(&(FIRST, 1, 2))),
        &[law],
    );
    breaks(
        |world| world.effects.unreadable.push("x".to_owned()),
        &[law],
    );
}

#[test]
fn a_turn_that_began_or_ended_before_the_last_one_ended_is_seen() {
    let law = "turns ended in order and never ran two at once";
    breaks(
        |world| world.records.attempts.get_mut(&SECOND).unwrap()[0].started_at = at(19),
        &[law],
    );
    breaks(|world| world.first().finished_at = Some(at(40)), &[law]);
}

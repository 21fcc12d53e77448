//! The store against a real `PostgreSQL`: who gets a job, who may write, what is read again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::sync::Arc;
use std::time::Duration;

use chat_worker::chat::{
    Answer, Media, OutcomeStatus, Stop, ToolCall, ToolChoice, ToolOutcome, Usage,
};
use chat_worker::clock::{Clock as _, SystemClock};
use chat_worker::config::OnIterationLimit;
use chat_worker::conversation::{Approval, Conversation, Entry, Limits, Step, Summary};
use chat_worker::fault::{ErrorCode, Failure};
use chat_worker::ids::{ConversationId, JobId, WorkerId};
use chat_worker::store::{
    Claimed, ClaimedJob, Ending, Finished, NewIteration, NewJob, NewResult, NewSummary, RouteOf,
    Run, Written,
};
use chat_worker::wire::Status;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use serde_json::value::RawValue;
use uuid::Uuid;

use ground::{Ground, completed, job_of};

#[path = "store/approvals.rs"]
mod approvals;
#[path = "store/ground.rs"]
mod ground;
#[path = "store/locks.rs"]
mod locks;
#[path = "store/prune.rs"]
mod prune;

impl Ground {
    /// A job that `worker` runs.
    async fn running(&self, job: &NewJob<'_>, worker: WorkerId) -> ClaimedJob {
        let Claimed::Run(claimed) = self.claim(job, worker).await else {
            panic!("it is not to run");
        };
        *claimed
    }

    /// Another worker takes the job over from one that died.
    async fn taken_over(&self, run: &Run) -> ClaimedJob {
        self.dies(run.worker).await;
        match self.claim_known(run.job_id, self.worker().await).await {
            Some(Claimed::Run(claimed)) => *claimed,
            other => panic!("not to run: {other:?}"),
        }
    }

    /// All rows that a run may write.
    async fn record(&self) -> Vec<String> {
        let mut all = Vec::new();
        for table in [
            "jobs",
            "iterations",
            "tool_calls",
            "attempts",
            "dead_letters",
        ] {
            let rows = self
                .texts(&format!("SELECT * FROM chat.{table} AS t ORDER BY t::text"))
                .await;
            all.extend(rows);
        }
        all
    }
}

fn job() -> NewJob<'static> {
    job_of(Uuid::now_v7())
}

fn now() -> DateTime<Utc> {
    SystemClock.now()
}

fn answer(calls: &[&str]) -> Answer {
    let usage = Usage {
        input_tokens: 10,
        output_tokens: 5,
        total_tokens: 15,
        ..Usage::default()
    };
    Answer {
        message: RawValue::from_string(format!(
            r#"{{"role":"assistant", "calls":{}}}"#,
            calls.len()
        ))
        .unwrap()
        .into(),
        content: calls.is_empty().then(|| "done".to_owned()),
        refusal: None,
        stop: Stop::Done,
        finish_reason: Some("stop".to_owned()),
        tool_calls: calls
            .iter()
            .map(|id| ToolCall {
                call_id: (*id).to_owned(),
                name: "calc__add".to_owned(),
                arguments: r#"{ "b":1, "a":2 }"#.to_owned(),
            })
            .collect(),
        usage,
        is_estimated: false,
        model: Some("m-1".to_owned()),
        asked: Some("m-asked".into()),
        response_id: Some("r".to_owned()),
    }
}

fn result(iteration: u32, position: u32, text: &str) -> NewResult {
    let outcome = ToolOutcome {
        status: OutcomeStatus::Succeeded,
        text: text.to_owned(),
        bytes: 2,
        media: Arc::default(),
    };
    NewResult {
        iteration,
        position,
        outcome,
        started_at: now(),
        finished_at: now(),
    }
}

/// Stores an answer, of whose calls the first `starting` leave at once.
async fn append_answer(
    ground: &Ground,
    run: &Run,
    number: u32,
    answer: &Answer,
    starting: u32,
) -> Written {
    let routes = vec![
        RouteOf {
            server: Some("calc".to_owned()),
            tool: "add".to_owned()
        };
        answer.tool_calls.len()
    ];
    let iteration = NewIteration {
        number,
        requested_model: "m",
        answer,
        routes: &routes,
        calls_starting: &(1..=starting).collect::<Vec<_>>(),
        calls_held: &[],
        approval_timeout: Duration::ZERO,
        counts_for_user: false,
        started_at: now(),
        finished_at: now(),
    };
    ground
        .store
        .append(run, &[], Some(&iteration))
        .await
        .unwrap()
}

fn failed() -> Ending {
    let failure = Failure::new(ErrorCode::ModelAuth, "no");
    Ending {
        status: Status::Failed,
        finish_reason: None,
        reply: None,
        failure: Some(failure),
        ..completed()
    }
}

#[tokio::test]
async fn of_many_who_claim_a_job_at_once_exactly_one_runs_it() {
    Ground::run(async |ground| {
        for _ in 0..10 {
            let job = job();
            let workers = join_all((0..8).map(|_| ground.worker())).await;
            let claims = join_all(workers.iter().map(|worker| ground.claim(&job, *worker))).await;
            let runs = claims
                .iter()
                .filter(|claimed| matches!(claimed, Claimed::Run(_)))
                .count();
            let in_hand = claims
                .iter()
                .filter(|claimed| matches!(claimed, Claimed::InHand))
                .count();
            assert_eq!((runs, in_hand), (1, 7), "{claims:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn of_many_jobs_of_a_conversation_at_once_exactly_one_runs_and_the_rest_get_their_turns() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        for _ in 0..10 {
            let conversation = Uuid::now_v7();
            let jobs: Vec<_> = (0..8).map(|_| job_of(conversation)).collect();
            let claims = join_all(jobs.iter().map(|job| ground.claim(job, worker))).await;
            let runs = claims.iter().filter(|claimed| matches!(claimed, Claimed::Run(_))).count();
            let parked = claims.iter().filter(|claimed| matches!(claimed, Claimed::Parked(_))).count();
            assert_eq!((runs, parked), (1, 7), "{claims:?}");
            let turns = ground.texts(&format!("SELECT turn FROM chat.jobs WHERE conversation_id = '{conversation}' ORDER BY turn")).await;
            let expected: Vec<_> = (1..=8).map(|turn| format!("{{\"turn\":{turn}}}")).collect();
            assert_eq!(turns, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn of_many_who_take_a_dead_workers_job_over_exactly_one_does() {
    Ground::run(async |ground| {
        let first = ground.running(&job(), ground.worker().await).await.run;
        ground.dies(first.worker).await;
        let workers = join_all((0..8).map(|_| ground.worker())).await;
        let claims = join_all(
            workers
                .iter()
                .map(|worker| ground.claim_known(first.job_id, *worker)),
        )
        .await;
        let runs: Vec<_> = claims
            .iter()
            .filter_map(|claimed| match claimed {
                Some(Claimed::Run(claimed)) => Some(claimed.run.attempt),
                _ => None,
            })
            .collect();
        assert_eq!(runs, [2]);
    })
    .await;
}

#[tokio::test]
async fn what_a_run_writes_after_it_lost_its_job_is_not_written() {
    Ground::run(async |ground| {
        let first = ground.running(&job(), ground.worker().await).await.run;
        append_answer(ground, &first, 1, &answer(&["c1"]), 1).await;
        let second = ground.taken_over(&first).await.run;
        assert_eq!(second.attempt, 2);
        let before = ground.record().await;
        let results = [result(1, 1, "late")];
        assert_eq!(
            ground.store.append(&first, &results, None).await.unwrap(),
            Written::Fenced
        );
        assert_eq!(
            append_answer(ground, &first, 2, &answer(&[]), 0).await,
            Written::Fenced
        );
        for ending in [completed(), failed()] {
            assert_eq!(
                ground
                    .store
                    .finish(&first, &results, None, &ending)
                    .await
                    .unwrap(),
                Finished::Fenced
            );
        }
        // Nor does anybody else's worker get in with the right attempt.
        let stranger = Run {
            worker: ground.worker().await,
            ..second
        };
        assert_eq!(
            ground
                .store
                .append(&stranger, &results, None)
                .await
                .unwrap(),
            Written::Fenced
        );
        assert_eq!(ground.record().await, before);
        assert_eq!(
            ground
                .store
                .append(&second, &[result(1, 1, "in time")], None)
                .await
                .unwrap(),
            Written::Stored
        );
        let ended = ground
            .store
            .finish(&second, &[], None, &completed())
            .await
            .unwrap();
        assert!(matches!(ended, Finished::Ended { .. }));
        let before = ground.record().await;
        assert_eq!(
            ground.store.append(&second, &results, None).await.unwrap(),
            Written::Fenced
        );
        assert_eq!(ground.record().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_write_that_is_repeated_is_written_once() {
    Ground::run(async |ground| {
        let run = ground.running(&job(), ground.worker().await).await.run;
        for _ in 0..2 {
            assert_eq!(
                append_answer(ground, &run, 1, &answer(&["c1", "c2"]), 2).await,
                Written::Stored
            );
        }
        let first = ground
            .store
            .append(&run, &[result(1, 1, "first")], None)
            .await
            .unwrap();
        let again = ground
            .store
            .append(&run, &[result(1, 1, "second"), result(1, 2, "other")], None)
            .await
            .unwrap();
        assert_eq!((first, again), (Written::Stored, Written::Stored));
        let texts = ground
            .texts("SELECT result FROM chat.tool_calls ORDER BY position")
            .await;
        assert_eq!(texts, [r#"{"result":"first"}"#, r#"{"result":"other"}"#]);
        let ended = ground
            .store
            .finish(&run, &[], None, &failed())
            .await
            .unwrap();
        let record = ground.record().await;
        assert_eq!(
            ground
                .store
                .finish(&run, &[], None, &failed())
                .await
                .unwrap(),
            ended
        );
        assert_eq!(ground.record().await, record);
        assert_eq!(
            ground.texts("SELECT id FROM chat.dead_letters").await.len(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_turn_wakes_the_next_one_and_no_other() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        let conversation = Uuid::now_v7();
        let jobs: Vec<_> = (0..3).map(|_| job_of(conversation)).collect();
        let mut run = ground.running(&jobs[0], worker).await.run;
        for job in &jobs[1..] {
            assert!(matches!(
                ground.claim(job, worker).await,
                Claimed::Parked(_)
            ));
        }
        // Before its turn a wake-up changes nothing.
        assert!(matches!(
            ground.claim_known(jobs[2].id, worker).await,
            Some(Claimed::Parked(_))
        ));
        for (number, job) in jobs.iter().enumerate().skip(1) {
            let Finished::Ended {
                next: Some(next), ..
            } = ground
                .store
                .finish(&run, &[], None, &completed())
                .await
                .unwrap()
            else {
                panic!("nobody is woken");
            };
            assert_eq!((next.job_id, next.priority), (job.id, Some(4)));
            let Some(Claimed::Run(claimed)) = ground.claim_known(job.id, worker).await else {
                panic!("not to run");
            };
            assert_eq!(
                (claimed.run.turn, claimed.history.turns.len()),
                (i32::try_from(number).unwrap() + 1, number)
            );
            run = claimed.run;
        }
        let last = ground
            .store
            .finish(&run, &[], None, &completed())
            .await
            .unwrap();
        assert!(matches!(last, Finished::Ended { next: None, .. }));
        assert!(
            ground
                .claim_known(JobId(Uuid::now_v7()), worker)
                .await
                .is_none()
        );
    })
    .await;
}

#[tokio::test]
async fn a_turn_that_comes_while_the_one_before_it_ends_is_never_forgotten() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        for _ in 0..30 {
            let conversation = Uuid::now_v7();
            let run = ground.running(&job_of(conversation), worker).await.run;
            let second = job_of(conversation);
            let ending = completed();
            let (ended, claimed) = tokio::join!(
                ground.store.finish(&run, &[], None, &ending),
                ground.claim(&second, worker)
            );
            let Finished::Ended { next, .. } = ended.unwrap() else {
                panic!("fenced");
            };
            match (next, claimed) {
                (Some(next), Claimed::Parked(_)) => assert_eq!(next.job_id, second.id),
                (None, Claimed::Run(_)) => {}
                other => panic!("the second turn waits for ever: {other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_workers_die_is_given_up_unless_it_gets_on() {
    Ground::run(async |ground| {
        let first = ground.running(&job(), ground.worker().await).await.run;
        let second = ground.taken_over(&first).await.run;
        assert_eq!(
            append_answer(ground, &second, 1, &answer(&["c1"]), 1).await,
            Written::Stored
        );
        let third = ground.taken_over(&second).await.run;
        let fourth = ground.taken_over(&third).await.run;
        ground.dies(fourth.worker).await;
        let Some(Claimed::Closed(closed)) = ground
            .claim_known(first.job_id, ground.worker().await)
            .await
        else {
            panic!("it is run for ever");
        };
        let result = &closed.result.result;
        let code = result.error.as_ref().map(|error| error.code);
        assert_eq!(code, Some(ErrorCode::AttemptsExhausted));
        assert_eq!(
            (result.status, result.iterations, result.usage.total_tokens),
            (Status::Failed, 1, 15)
        );
        let outcomes = ground
            .texts("SELECT outcome FROM chat.attempts ORDER BY attempt")
            .await;
        assert_eq!(
            outcomes
                .iter()
                .filter(|outcome| outcome.contains("taken_over"))
                .count(),
            4
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_leaves_no_trace() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        let first = job();
        ground.running(&first, worker).await;
        let before = ground.record().await;
        let other = NewJob {
            request_hash: b"other",
            ..first
        };
        assert!(matches!(
            ground.claim(&other, worker).await,
            Claimed::Conflict
        ));
        let elsewhere = NewJob {
            conversation_id: ConversationId(Uuid::now_v7()),
            ..other
        };
        assert!(matches!(
            ground.claim(&elsewhere, worker).await,
            Claimed::Conflict
        ));
        let foreign = NewJob {
            id: JobId(Uuid::now_v7()),
            user_id: "mallory",
            ..first
        };
        assert!(matches!(
            ground.claim(&foreign, worker).await,
            Claimed::Forbidden
        ));
        assert_eq!(ground.record().await, before);
        assert_eq!(
            ground
                .texts("SELECT id FROM chat.conversations")
                .await
                .len(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_job_that_has_ended_is_told_again_to_whoever_asks() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        let first = NewJob {
            reply_to: Some("a"),
            correlation_id: Some("1"),
            metadata: Some(r#"{"z":1.50,"a":"␛0000"}"#),
            ..job()
        };
        let run = ground.running(&first, worker).await.run;
        ground
            .store
            .finish(&run, &[], None, &completed())
            .await
            .unwrap();
        let again = NewJob {
            reply_to: None,
            correlation_id: Some("2"),
            ..first
        };
        let Claimed::Finished(stored) = ground.claim(&again, worker).await else {
            panic!("it is run again");
        };
        assert_eq!(
            (stored.reply_to.as_deref(), stored.correlation_id.as_deref()),
            (None, Some("2"))
        );
        assert_eq!(
            (
                stored.result.status,
                stored.result.attempt,
                stored.result.turn
            ),
            (Status::Completed, 1, Some(1))
        );
        ground.store.mark_published(&[first.id]).await.unwrap();
        let marked = ground
            .texts("SELECT result_published_at FROM chat.jobs")
            .await;
        ground.store.mark_published(&[first.id]).await.unwrap();
        assert_eq!(
            ground
                .texts("SELECT result_published_at FROM chat.jobs")
                .await,
            marked
        );
        assert!(!marked[0].contains("null"));
    })
    .await;
}

#[tokio::test]
async fn a_result_goes_to_the_last_who_asked_while_the_job_ran() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        let first = NewJob {
            reply_to: Some("a"),
            correlation_id: Some("1"),
            ..job()
        };
        let run = ground.running(&first, worker).await.run;
        let again = NewJob {
            reply_to: Some("b"),
            correlation_id: Some("2"),
            ..first
        };
        assert!(matches!(
            ground.claim(&again, ground.worker().await).await,
            Claimed::InHand
        ));
        // Who names no queue changes nothing.
        let silent = NewJob {
            reply_to: None,
            correlation_id: Some("3"),
            ..first
        };
        assert!(matches!(
            ground.claim(&silent, ground.worker().await).await,
            Claimed::InHand
        ));
        for _ in 0..2 {
            let ended = ground
                .store
                .finish(&run, &[], None, &completed())
                .await
                .unwrap();
            let Finished::Ended { answer_to, .. } = ended else {
                panic!("fenced")
            };
            assert_eq!(
                (
                    answer_to.reply_to.as_deref(),
                    answer_to.correlation_id.as_deref()
                ),
                (Some("b"), Some("2"))
            );
        }
    })
    .await;
}

/// What is written of a job, one after the other.
#[expect(clippy::large_enum_variant, reason = "a handful of them in a test")]
enum Deed {
    Answer(Answer),
    Results(Vec<(u32, &'static str)>),
}

/// A job with calls together, one by one, and an answer at its end.
fn deeds() -> Vec<Deed> {
    let mut odd = answer(&["c1", "c2", "c3"]);
    odd.content = Some("␛0000 hm".to_owned());
    let mut cut = answer(&[]);
    cut.stop = Stop::Length;
    cut.finish_reason = Some("MAX_TOKENS".to_owned());
    let mut words = answer(&["c4"]);
    words.tool_calls = Arc::new([ToolCall {
        call_id: "c4".to_owned(),
        name: "no_tool".to_owned(),
        arguments: "no JSON \0 ␛".to_owned(),
    }]);
    vec![
        Deed::Answer(odd),
        Deed::Results(vec![(2, "two")]),
        Deed::Results(vec![(1, "one"), (3, "three")]),
        Deed::Answer(words),
        Deed::Results(vec![(1, "four")]),
        Deed::Answer(cut),
    ]
}

#[tokio::test]
async fn from_every_prefix_of_a_log_what_was_stored_is_read_again() {
    Ground::run(async |ground| {
        for length in 0..=deeds().len() {
            let mut live = resumed([]);
            let mut run = ground.running(&job(), ground.worker().await).await.run;
            let mut iteration = 0;
            for deed in deeds().into_iter().take(length) {
                match deed {
                    Deed::Answer(answer) => {
                        iteration += 1;
                        let starting = u32::try_from(answer.tool_calls.len()).unwrap();
                        append_answer(ground, &run, iteration, &answer, starting).await;
                        live = live.after(Entry::Answered(answer)).unwrap();
                    }
                    Deed::Results(texts) => {
                        let results: Vec<_> = texts
                            .iter()
                            .map(|(position, text)| result(iteration, *position, text))
                            .collect();
                        ground.store.append(&run, &results, None).await.unwrap();
                        for result in results {
                            live = live
                                .after(Entry::Returned {
                                    position: result.position,
                                    outcome: result.outcome,
                                })
                                .unwrap();
                        }
                    }
                }
            }
            // Twice: to read it changes nothing.
            for _ in 0..2 {
                let claimed = ground.taken_over(&run).await;
                let read = resumed(claimed.entries);
                assert_eq!(read.totals(), live.totals(), "after {length}");
                assert_eq!(next(&read), next(&live), "after {length}");
                assert_eq!(answers(&read), answers(&live), "after {length}");
                run = claimed.run;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_tools_showed_is_read_again_newest_first_up_to_a_limit() {
    Ground::run(async |ground| {
        const MIB: usize = 1024 * 1024;
        let run = ground.running(&job(), ground.worker().await).await.run;
        append_answer(ground, &run, 1, &answer(&["c1", "c2", "c3"]), 3).await;
        // What cannot be packed, so that it counts in full.
        let mut random = 1_u64;
        let mut noise = |bytes: usize| -> String {
            let digit = |random: &mut u64| {
                *random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                char::from(b'A' + u8::try_from(*random >> 33 & 15).unwrap())
            };
            (0..bytes).map(|_| digit(&mut random)).collect()
        };
        let mut showing = |position: u32, bytes: usize| {
            let mut result = result(1, position, "[image]");
            let media = Media {
                mime_type: "image/png".to_owned(),
                data: noise(bytes),
                name: Some("a.png".to_owned()),
            };
            result.outcome.media = Arc::new([media]);
            result
        };
        let stored = [
            showing(1, 20 * MIB),
            result(1, 2, "nothing"),
            showing(3, 20 * MIB),
        ];
        ground.store.append(&run, &stored, None).await.unwrap();
        let shown: Vec<_> = ground
            .taken_over(&run)
            .await
            .entries
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Returned { outcome, .. } => Some(outcome.media),
                Entry::Summarised { .. }
                | Entry::Answered(_)
                | Entry::Interrupted { .. }
                | Entry::Held { .. }
                | Entry::Approved { .. } => None,
            })
            .collect();
        assert_eq!([shown[0].len(), shown[1].len()], [0, 0], "the oldest");
        assert_eq!(shown[2], stored[2].outcome.media);
    })
    .await;
}

fn resumed(entries: impl IntoIterator<Item = Entry>) -> Conversation {
    Conversation::resume(limits(), entries).unwrap()
}

/// The next step; that a call was interrupted, and so allowed, is known to the one who reads alone.
fn next(conversation: &Conversation) -> Step {
    match conversation.next_step(now()) {
        Step::CallTools(mut calls) => {
            for call in &mut calls {
                call.interrupted = None;
                call.approval = Approval::NotAsked;
            }
            Step::CallTools(calls)
        }
        step @ (Step::AskModel(_) | Step::AwaitApproval(_) | Step::Finish(_)) => step,
    }
}

fn answers(conversation: &Conversation) -> String {
    format!("{:?}", conversation.last_answer())
}

fn limits() -> Limits {
    Limits {
        max_iterations: 10,
        on_iteration_limit: OnIterationLimit::Reply,
        total_tokens: None,
        tool_calls: None,
        cost: None,
        deadline: None,
        tool_choice: ToolChoice::Auto,
    }
}

/// A conversation of `turns` that are over, each with a message and an answer of `bytes`.
async fn long_conversation(ground: &Ground, turns: i32, bytes: i32) -> Uuid {
    let conversation = Uuid::now_v7();
    // Random, so that it is stored as long as it is.
    ground
        .sql(format!(
            "INSERT INTO chat.conversations (id, user_id, turns) VALUES ('{conversation}', 'u', {turns});
             CREATE OR REPLACE FUNCTION pg_temp.words() RETURNS text LANGUAGE sql AS $$
                 SELECT string_agg(md5(random()::text), ' ') FROM generate_series(1, {bytes} / 33) $$;
             INSERT INTO chat.jobs (id, conversation_id, turn, user_id, status, request, request_hash, attempt, finished_at)
             SELECT gen_random_uuid(), '{conversation}', turn, 'u', 'completed',
                    json_build_object('user_id', 'u', 'messages', json_build_array(
                        json_build_object('role', 'user', 'content', turn || ' ' || pg_temp.words()))), '', 1, now()
             FROM generate_series(1, {turns}) AS t (turn);
             INSERT INTO chat.iterations (job_id, number, attempt, message, content, started_at, finished_at)
             SELECT id, 1, 1, json_build_object('role', 'assistant', 'content', pg_temp.words()), 'x', now(), now()
             FROM chat.jobs WHERE conversation_id = '{conversation}';
             ANALYZE chat.jobs; ANALYZE chat.iterations"
        ))
        .await;
    conversation
}

#[tokio::test]
async fn the_newest_turns_are_read_until_they_hold_what_a_context_can_hold() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        let read = async |bytes: Option<u64>| {
            let conversation = long_conversation(ground, 100, 2000).await;
            let job = job_of(conversation);
            let store = match bytes {
                Some(bytes) => ground.store.clone().reading_history_up_to(bytes),
                None => ground.store.clone(),
            };
            let claimed = store.claim(&job, ground::claimant(worker)).await.unwrap();
            let Claimed::Run(claimed) = claimed else {
                panic!("it is not to run");
            };
            let turns = &claimed.history.turns;
            let numbers: Vec<_> = turns.iter().map(|turn| turn.number).collect();
            let expected = 101 - u32::try_from(turns.len()).unwrap()..=100;
            assert_eq!(numbers, expected.collect::<Vec<_>>());
            assert!(
                turns
                    .iter()
                    .all(|turn| turn.messages.len() == 1 && turn.rounds.len() == 1)
            );
            turns.len()
        };
        assert_eq!(read(None).await, 100);
        assert_eq!(read(Some(1 << 20)).await, 100);
        // Some 4.2 kB a turn: the one that passes the bound is read too.
        let some = read(Some(40_000)).await;
        assert!((9..=11).contains(&some), "{some}");
        assert_eq!(read(Some(1)).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_summary_stands_for_the_turns_before_it_and_counts_in_its_job() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        let conversation = long_conversation(ground, 9, 100).await;
        let job = job_of(conversation);
        let first = ground.running(&job, worker).await;
        assert_eq!(
            (first.history.summary, first.history.turns.len()),
            (None, 9)
        );
        let new = NewSummary {
            summary: Summary {
                up_to_turn: 6,
                content: "they met".into(),
            },
            model: Some("m-1".into()),
            usage: Usage {
                input_tokens: 70,
                output_tokens: 7,
                total_tokens: 77,
                ..Usage::default()
            },
            is_estimated: false,
            counts_for_user: false,
            started_at: now(),
        };
        // A repeat changes nothing.
        for _ in 0..2 {
            let written = ground.store.store_summary(&first.run, &new).await.unwrap();
            assert_eq!(written, Written::Stored);
        }
        let elsewhere = Run {
            attempt: 9,
            ..first.run
        };
        let other = NewSummary {
            summary: Summary {
                up_to_turn: 7,
                content: "nobody's".into(),
            },
            ..new.clone()
        };
        let written = ground
            .store
            .store_summary(&elsewhere, &other)
            .await
            .unwrap();
        assert_eq!(written, Written::Fenced);
        ground.dies(worker).await;
        let again = ground.worker().await;
        let Claimed::Run(second) = ground.claim(&job, again).await else {
            panic!("it is not taken over");
        };
        assert_eq!(second.history.summary, Some(new.summary));
        let numbers: Vec<_> = second
            .history
            .turns
            .iter()
            .map(|turn| turn.number)
            .collect();
        assert_eq!(numbers, [7, 8, 9]);
        assert!(
            matches!(&second.entries[..], [Entry::Summarised { usage }] if *usage == new.usage)
        );
        let totals = Conversation::resume(limits(), second.entries)
            .unwrap()
            .totals();
        assert_eq!((totals.iterations, totals.usage), (0, new.usage));
        // So it does where no run ends the job.
        let failure = Failure::new(ErrorCode::Internal, "x");
        let closed = ground.store.close_run(&second.run, failure).await.unwrap();
        let result = closed.expect("it is ended").result.result;
        assert_eq!((result.iterations, result.usage), (0, new.usage));
    })
    .await;
}

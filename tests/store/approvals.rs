//! Calls that wait for a person's word.

use std::time::Duration;

use chat_worker::conversation::Entry;
use chat_worker::ids::JobId;
use chat_worker::store::{Approvals, Claimed, ClaimedJob, Decided, Ruling, Run, Word, WordOn};

use super::ground::Ground;
use super::{answer, append_answer, job};

const HOUR: Duration = Duration::from_hours(1);

async fn settle(ground: &Ground, run: &Run) -> Approvals {
    let settled = ground
        .store
        .settle_approvals(run, 1, &[1, 2], HOUR, 1)
        .await;
    settled.unwrap()
}

async fn say(ground: &Ground, job: JobId, call: &str, approves: bool) -> Decided {
    let ruling = Ruling {
        job,
        call,
        approves,
        by: Some("ann"),
        reason: Some("because"),
    };
    ground.store.decide(ruling, false).await.unwrap()
}

/// A run that has an answer with two calls, of which none is begun.
async fn with_two_calls(ground: &Ground) -> Run {
    let run = ground.running(&job(), ground.worker().await).await.run;
    append_answer(ground, &run, 1, &answer(&["c1", "c2"]), 0).await;
    run
}

/// Another worker is woken for the job.
async fn woken(ground: &Ground, job: JobId) -> ClaimedJob {
    let worker = ground.worker().await;
    let Some(Claimed::Run(claimed)) = ground.claim_known(job, worker).await else {
        panic!("it is not to run");
    };
    *claimed
}

fn held(entries: &[Entry]) -> Vec<u32> {
    let place = |entry: &Entry| match entry {
        Entry::Held { position } => Some(*position),
        Entry::Answered(_)
        | Entry::Interrupted { .. }
        | Entry::Approved { .. }
        | Entry::Summarised { .. }
        | Entry::Returned { .. } => None,
    };
    entries.iter().filter_map(place).collect()
}

#[tokio::test]
async fn a_job_waits_until_all_is_decided_and_what_was_approved_is_begun_once() {
    Ground::run(async |ground| {
        let first = with_two_calls(ground).await;
        let job = first.job_id;
        let Approvals::Awaited { positions, .. } = settle(ground, &first).await else {
            panic!("it does not wait");
        };
        assert_eq!(positions, [1, 2]);
        assert_eq!(settle(ground, &first).await, Approvals::Fenced);
        let waits = "SELECT status, wait_reason, failures, due_at > now() + interval '59 min' AS later FROM chat.jobs";
        let waiting = r#"{"status":"waiting","wait_reason":"approval","failures":0,"later":true}"#;
        assert_eq!(ground.texts(waits).await, [waiting]);
        assert!(matches!(
            ground.claim_known(job, ground.worker().await).await,
            Some(Claimed::InHand)
        ));
        assert_eq!(say(ground, job, "c1", true).await, Decided::Now);
        assert_eq!(say(ground, job, "c1", true).await, Decided::Before);
        assert_eq!(say(ground, job, "c1", false).await, Decided::ApprovedBefore);
        assert_eq!(ground.texts(waits).await, [waiting]);
        assert_eq!(say(ground, job, "c2", false).await, Decided::Now);

        let second = woken(ground, job).await;
        assert_eq!(held(&second.entries), [1, 2]);
        let reason = Some("because".to_owned());
        let words = Approvals::Decided(vec![
            WordOn {
                position: 1,
                word: Word::Approved,
            },
            WordOn {
                position: 2,
                word: Word::Denied { reason },
            },
        ]);
        assert_eq!(settle(ground, &second.run).await, words);
        assert_eq!(settle(ground, &second.run).await, words, "said again");
        let calls = "SELECT status, approval, attempt FROM chat.tool_calls ORDER BY position";
        assert_eq!(
            ground.texts(calls).await,
            [
                r#"{"status":"started","approval":"approved","attempt":2}"#,
                r#"{"status":"requested","approval":"denied","attempt":1}"#
            ]
        );
        // From here on the approved one is a call like any other.
        let third = ground.taken_over(&second.run).await;
        assert!(matches!(
            third.entries[1..],
            [
                Entry::Interrupted { position: 1, .. },
                Entry::Held { position: 2 }
            ]
        ));
    })
    .await;
}

#[tokio::test]
async fn a_word_before_the_run_looks_is_seen_and_one_after_the_time_is_up_is_not_taken() {
    Ground::run(async |ground| {
        let run = with_two_calls(ground).await;
        assert_eq!(
            say(ground, run.job_id, "c1", true).await,
            Decided::NotNeeded
        );
        ground
            .sql("UPDATE chat.tool_calls SET approval_expires_at = now() + interval '1 h'")
            .await;
        assert_eq!(say(ground, run.job_id, "c1", true).await, Decided::Now);
        ground
            .sql("UPDATE chat.tool_calls SET approval_expires_at = now() - interval '1 s'")
            .await;
        assert_eq!(say(ground, run.job_id, "c2", true).await, Decided::Expired);
        let Approvals::Decided(words) = settle(ground, &run).await else {
            panic!("it waits");
        };
        assert_eq!(words[0].word, Word::Approved);
        assert!(matches!(words[1].word, Word::Expired { .. }));
        assert_eq!(say(ground, run.job_id, "c2", true).await, Decided::Expired);
    })
    .await;
}

//! What is done with a delivery of a job: the decision alone, over facts that were read under locks.

use crate::wire::OnBusy;

/// What a claim finds.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the conditions of a decision table"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the conversation belongs to another user.
    pub foreign_conversation: bool,
    /// The job as it is stored, if it is.
    pub job: Option<JobFacts>,
    /// Whether an earlier turn of the conversation is not finished: any turn for a job that has
    /// none yet.
    pub earlier_turn_unfinished: bool,
    /// What the job does while the conversation is busy.
    pub on_busy: OnBusy,
    /// Whether a new job is scheduled for later.
    pub scheduled: bool,
    /// Whether somebody called the job off.
    pub called_off: bool,
    /// Whether the claimant would run a job that may be what its last workers died of.
    pub takes_suspects: bool,
    /// Failures and deaths after which a job is given up.
    pub max_attempts: u32,
}

/// A stored job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// Whether its content is that of the delivery. Always so for a wake-up, which has none.
    pub same_content: bool,
    /// Where it stands.
    pub standing: Standing,
    /// Failures and deaths since its last entry.
    pub failures: u32,
    /// Workers that died over it in a row.
    pub deaths: u32,
}

/// Where a stored job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has ended.
    Finished,
    /// A worker has it.
    Running(Owner),
    /// It was ready before: it waits for its turn, or is on its way to a worker.
    Ready,
    /// It is ready for the first time, and has no turn yet.
    Fresh,
    /// It waits for something that has not come.
    NotDue,
}

/// The worker that has a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This process has it in hand.
    Me,
    /// This process is its owner and has no such run: a commit whose outcome was unknown, a run
    /// that got lost.
    MeWithoutRun,
    /// Another worker that is alive, or that cannot be judged now.
    Alive,
    /// A worker that stopped in good order and left it.
    Gone,
    /// A worker that died over it.
    Dead,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run it.
    Run(TakeOver),
    /// End it without running it.
    Close(Closing),
    /// Let it wait until a worker runs no other that may kill it.
    SetApart,
    /// Store it and let it wait for its turn.
    WaitForTurn,
    /// The same, and call off every earlier turn that is not finished.
    Interrupt,
    /// Store it and let it wait for its time.
    Schedule,
    /// Publish its stored result again.
    Republish,
    /// Nothing but to remember where this sender wants the result.
    InHand,
    /// The id was used before with other content.
    Conflict,
    /// The conversation belongs to another user.
    Forbidden,
    /// The conversation is busy, and the job would not wait.
    Busy,
}

/// Whose run a run follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// Nobody's that is not settled.
    None,
    /// One that ended without a word and without a fault of the job.
    Unfailed,
    /// One that died: that counts.
    Failed,
}

/// Why a job ends that nobody runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// It failed, or its workers died, too often.
    Exhausted,
    /// It was called off.
    CalledOff,
    /// The conversation is busy, and the job would not wait.
    Busy,
}

/// What is done with a delivery, given what was found.
#[must_use]
pub fn decide(facts: &Facts) -> Decision {
    let Some(job) = facts.job else {
        return match (facts.foreign_conversation, facts.called_off) {
            (true, _) => Decision::Forbidden,
            (false, true) => Decision::Close(Closing::CalledOff),
            (false, false) if facts.scheduled => Decision::Schedule,
            (false, false) => enter(facts, Decision::Busy),
        };
    };
    if !job.same_content {
        return Decision::Conflict;
    }
    let took_over = match job.standing {
        Standing::Finished => return Decision::Republish,
        Standing::Running(Owner::Me | Owner::Alive) => return Decision::InHand,
        Standing::Running(Owner::Dead) => TakeOver::Failed,
        Standing::Running(Owner::MeWithoutRun | Owner::Gone) => TakeOver::Unfailed,
        Standing::Ready | Standing::Fresh | Standing::NotDue => TakeOver::None,
    };
    if facts.called_off {
        return Decision::Close(Closing::CalledOff);
    }
    if job.failures + u32::from(took_over == TakeOver::Failed) >= facts.max_attempts {
        return Decision::Close(Closing::Exhausted);
    }
    match job.standing {
        Standing::NotDue => Decision::InHand,
        Standing::Fresh => enter(facts, Decision::Close(Closing::Busy)),
        Standing::Ready if facts.earlier_turn_unfinished => Decision::WaitForTurn,
        Standing::Ready if is_suspect(job.deaths) && !facts.takes_suspects => Decision::SetApart,
        Standing::Ready | Standing::Running(_) | Standing::Finished => Decision::Run(took_over),
    }
}

/// So many deaths in a row, and a job may be what its workers died of.
const SUSPECT: u32 = 2;

/// Whether a job may be what its workers died of. All that a worker runs when it dies is under
/// suspicion; what is runs one at a time on each worker, so that the innocent are soon told from
/// the one that kills.
#[must_use]
pub fn is_suspect(deaths: u32) -> bool {
    deaths >= SUSPECT
}

/// What a job does that is ready for the first time; `refusal` if it would not wait.
fn enter(facts: &Facts, refusal: Decision) -> Decision {
    if !facts.earlier_turn_unfinished {
        return Decision::Run(TakeOver::None);
    }
    match facts.on_busy {
        OnBusy::Enqueue => Decision::WaitForTurn,
        OnBusy::Reject => refusal,
        OnBusy::Interrupt => Decision::Interrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Decision = Decision::Run(TakeOver::None);

    fn facts(job: Option<JobFacts>) -> Facts {
        Facts {
            foreign_conversation: false,
            job,
            earlier_turn_unfinished: false,
            on_busy: OnBusy::Enqueue,
            scheduled: false,
            called_off: false,
            takes_suspects: true,
            max_attempts: 5,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the table has rows without a job")]
    fn job(standing: Standing, failures: u32) -> Option<JobFacts> {
        Some(JobFacts {
            same_content: true,
            standing,
            failures,
            deaths: 0,
        })
    }

    fn running(owner: Owner, failures: u32) -> Option<JobFacts> {
        job(Standing::Running(owner), failures)
    }

    #[test]
    fn the_table_of_claims() {
        let exhausted = Decision::Close(Closing::Exhausted);
        let unfailed = Decision::Run(TakeOver::Unfailed);
        for (found, decision) in [
            (None, RUN),
            (job(Standing::Fresh, 0), RUN),
            (job(Standing::Ready, 0), RUN),
            (job(Standing::Ready, 4), RUN),
            (job(Standing::Ready, 5), exhausted),
            (job(Standing::Finished, 9), Decision::Republish),
            (job(Standing::NotDue, 0), Decision::InHand),
            (running(Owner::Me, 0), Decision::InHand),
            (running(Owner::Alive, 9), Decision::InHand),
            (running(Owner::Dead, 0), Decision::Run(TakeOver::Failed)),
            (running(Owner::Dead, 4), exhausted),
            (running(Owner::MeWithoutRun, 4), unfailed),
            (running(Owner::Gone, 4), unfailed),
            (running(Owner::Gone, 5), exhausted),
        ] {
            assert_eq!(decide(&facts(found)), decision, "{found:?}");
        }
    }

    #[test]
    fn a_job_that_may_have_killed_two_workers_is_kept_apart_from_others_of_its_kind() {
        let after = |deaths, takes_suspects| {
            let found = job(Standing::Ready, 0).map(|job| JobFacts { deaths, ..job });
            decide(&Facts {
                takes_suspects,
                ..facts(found)
            })
        };
        assert_eq!(after(1, false), RUN);
        assert_eq!(after(2, true), RUN);
        assert_eq!(after(2, false), Decision::SetApart);
    }

    #[test]
    fn other_content_is_a_conflict_wherever_the_job_stands() {
        for standing in [
            Standing::Finished,
            Standing::Ready,
            Standing::Running(Owner::Dead),
        ] {
            let found = JobFacts {
                same_content: false,
                standing,
                failures: 9,
                deaths: 9,
            };
            assert_eq!(decide(&facts(Some(found))), Decision::Conflict);
        }
    }

    #[test]
    fn a_job_waits_for_the_turns_before_it_and_never_enters_a_foreign_conversation() {
        let busy = |job| Facts {
            earlier_turn_unfinished: true,
            ..facts(job)
        };
        for found in [None, job(Standing::Ready, 0), job(Standing::Fresh, 0)] {
            assert_eq!(decide(&busy(found)), Decision::WaitForTurn);
        }
        let foreign = Facts {
            foreign_conversation: true,
            ..busy(None)
        };
        assert_eq!(decide(&foreign), Decision::Forbidden);
    }

    #[test]
    fn a_job_that_would_not_wait_is_refused_or_ended_and_one_that_interrupts_makes_room() {
        let busy = |job, on_busy| Facts {
            earlier_turn_unfinished: true,
            on_busy,
            ..facts(job)
        };
        let fresh = || job(Standing::Fresh, 0);
        assert_eq!(decide(&busy(None, OnBusy::Reject)), Decision::Busy);
        let closed = Decision::Close(Closing::Busy);
        assert_eq!(decide(&busy(fresh(), OnBusy::Reject)), closed);
        for found in [None, fresh()] {
            assert_eq!(decide(&busy(found, OnBusy::Interrupt)), Decision::Interrupt);
            let idle = Facts {
                on_busy: OnBusy::Reject,
                ..facts(found)
            };
            assert_eq!(decide(&idle), RUN);
        }
        // Once it has its turn it waits like any other.
        let waiting = busy(job(Standing::Ready, 0), OnBusy::Interrupt);
        assert_eq!(decide(&waiting), Decision::WaitForTurn);
    }

    #[test]
    fn a_scheduled_job_waits_for_its_time_whatever_the_conversation_does() {
        let scheduled = Facts {
            scheduled: true,
            earlier_turn_unfinished: true,
            on_busy: OnBusy::Reject,
            ..facts(None)
        };
        assert_eq!(decide(&scheduled), Decision::Schedule);
    }

    #[test]
    fn a_job_that_was_called_off_ends_unless_somebody_has_it_or_it_has_ended() {
        let closed = Decision::Close(Closing::CalledOff);
        for (found, decision) in [
            (None, closed),
            (job(Standing::Ready, 9), closed),
            (job(Standing::Fresh, 0), closed),
            (job(Standing::NotDue, 0), closed),
            (running(Owner::Dead, 9), closed),
            (running(Owner::MeWithoutRun, 0), closed),
            (running(Owner::Alive, 0), Decision::InHand),
            (running(Owner::Me, 0), Decision::InHand),
            (job(Standing::Finished, 0), Decision::Republish),
        ] {
            let found = Facts {
                called_off: true,
                ..facts(found)
            };
            assert_eq!(decide(&found), decision, "{found:?}");
        }
    }
}

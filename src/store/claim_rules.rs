//! What is done with a delivery of a job: the decision alone, over facts that were read under locks.

/// What a claim finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the conversation belongs to another user.
    pub foreign_conversation: bool,
    /// The job as it is stored, if it is.
    pub job: Option<JobFacts>,
    /// Whether an earlier turn of the conversation is not finished: any turn for a job that has
    /// none yet.
    pub earlier_turn_unfinished: bool,
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
}

/// Where a stored job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has ended.
    Finished,
    /// A worker has it.
    Running(Owner),
    /// It waits for its turn, or is on its way to a worker.
    Ready,
    /// It waits for something else that has not come.
    NotDue,
}

/// The worker that has a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This process has it in hand.
    Me,
    /// This process is its owner and has no such run: a commit whose outcome was unknown, a run
    /// that panicked.
    MeWithoutRun,
    /// Another worker that is alive.
    Alive,
    /// A worker that is dead.
    Dead,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run it; a dead owner's run counts as a failure.
    Run {
        /// Whether an owner died over it.
        took_over: bool,
    },
    /// It failed too often: end it so.
    GiveUp,
    /// Store it and let it wait for its turn.
    WaitForTurn,
    /// Publish its stored result again.
    Republish,
    /// Nothing but to remember where this sender wants the result.
    InHand,
    /// The id was used before with other content.
    Conflict,
    /// The conversation belongs to another user.
    Forbidden,
}

/// What is done with a delivery, given what was found.
#[must_use]
pub fn decide(facts: &Facts) -> Decision {
    let Some(job) = facts.job else {
        return match (facts.foreign_conversation, facts.earlier_turn_unfinished) {
            (true, _) => Decision::Forbidden,
            (false, true) => Decision::WaitForTurn,
            (false, false) => Decision::Run { took_over: false },
        };
    };
    if !job.same_content {
        return Decision::Conflict;
    }
    let took_over = match job.standing {
        Standing::Finished => return Decision::Republish,
        Standing::Running(Owner::Me | Owner::Alive) | Standing::NotDue => return Decision::InHand,
        Standing::Running(Owner::MeWithoutRun | Owner::Dead) => true,
        Standing::Ready => false,
    };
    if job.failures + u32::from(took_over) >= facts.max_attempts {
        Decision::GiveUp
    } else if facts.earlier_turn_unfinished {
        Decision::WaitForTurn
    } else {
        Decision::Run { took_over }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(job: Option<JobFacts>) -> Facts {
        Facts {
            foreign_conversation: false,
            job,
            earlier_turn_unfinished: false,
            max_attempts: 5,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the table has rows without a job")]
    fn job(standing: Standing, failures: u32) -> Option<JobFacts> {
        Some(JobFacts {
            same_content: true,
            standing,
            failures,
        })
    }

    #[test]
    fn the_table_of_claims() {
        let run = Decision::Run { took_over: false };
        let take_over = Decision::Run { took_over: true };
        for (found, decision) in [
            (None, run),
            (job(Standing::Ready, 0), run),
            (job(Standing::Ready, 4), run),
            (job(Standing::Ready, 5), Decision::GiveUp),
            (job(Standing::Finished, 9), Decision::Republish),
            (job(Standing::NotDue, 0), Decision::InHand),
            (job(Standing::Running(Owner::Me), 0), Decision::InHand),
            (job(Standing::Running(Owner::Alive), 0), Decision::InHand),
            (job(Standing::Running(Owner::Dead), 0), take_over),
            (job(Standing::Running(Owner::MeWithoutRun), 3), take_over),
            (job(Standing::Running(Owner::Dead), 4), Decision::GiveUp),
        ] {
            assert_eq!(decide(&facts(found)), decision, "{found:?}");
        }
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
        assert_eq!(decide(&busy(None)), Decision::WaitForTurn);
        assert_eq!(
            decide(&busy(job(Standing::Ready, 0))),
            Decision::WaitForTurn
        );
        let foreign = Facts {
            foreign_conversation: true,
            ..busy(None)
        };
        assert_eq!(decide(&foreign), Decision::Forbidden);
    }
}

//! Which boundary is reached in which situation, and what is left behind there.

use std::fmt;

use chat_worker::crash::{Act, Side};

/// What a job goes through, so that a worker reaches a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Situation {
    /// It is new; the model asks for two calls and says then what came of them.
    Plain,
    /// The same, and its first worker has died over it.
    Retaken,
    /// The model is out of order at first.
    Failing,
    /// Its worker is told to stop while the model thinks.
    Draining,
    /// It is called off while a tool is at work.
    CalledOff,
    /// Its deadline passes before its time has come.
    Overdue,
    /// It is no job.
    Refused,
    /// It waits for its time, and no worker is there when that comes.
    Scheduled,
    /// Its worker has died, and so has whoever found that out.
    Orphaned,
    /// One of its calls needs a person's word, which comes at once.
    Held,
    /// The same, and the word comes when the job waits for it.
    HeldLong,
    /// It has ended, and its worker died before its result was published.
    Unpublished,
}

/// A boundary, and how a worker gets there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) act: Act,
    pub(crate) side: Side,
    /// Which visit of the boundary is the deadly one.
    pub(crate) visit: u32,
    pub(crate) situation: Situation,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let boundary = self.act.boundary(self.side);
        write!(f, "{boundary}@{} {:?}", self.visit, self.situation)
    }
}

/// Both sides of every act, some of them twice.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for act in Act::ALL.iter().copied() {
        for (situation, visit) in situations(act) {
            cases.extend([Side::Before, Side::After].map(|side| Case {
                act,
                side,
                visit,
                situation,
            }));
        }
    }
    cases
}

fn situations(act: Act) -> Vec<(Situation, u32)> {
    use Situation::{
        CalledOff, Draining, Failing, Held, HeldLong, Orphaned, Overdue, Plain, Refused, Retaken,
        Scheduled, Unpublished,
    };
    match act {
        Act::Claim => vec![(Plain, 1), (Retaken, 1)],
        Act::Ack | Act::Finish | Act::PublishResult | Act::Mark => vec![(Plain, 1)],
        // The first and the last of two.
        Act::Model | Act::Tool | Act::Append => vec![(Plain, 1), (Plain, 2)],
        Act::Park => vec![(Failing, 1)],
        // It goes on at once; it waits; it goes on then.
        Act::Await => vec![(Held, 1), (HeldLong, 1), (HeldLong, 2)],
        Act::Decide => vec![(Held, 1)],
        Act::GiveBack => vec![(Draining, 1)],
        Act::Interrupt | Act::Cancel => vec![(CalledOff, 1)],
        Act::Close | Act::PublishDeadLetter => vec![(Overdue, 1)],
        Act::Bury => vec![(Refused, 1)],
        Act::PublishWakeUp => vec![(Scheduled, 1), (Draining, 1)],
        Act::Dispatch => vec![(Scheduled, 1)],
        Act::TakeOver => vec![(Orphaned, 1)],
        Act::Lease => vec![(Unpublished, 1)],
    }
}

impl Case {
    /// How the runs of the job ended, in order; any of these.
    pub(crate) fn outcomes(self) -> &'static [&'static [&'static str]] {
        use Side::{After, Before};
        match (self.situation, self.act, self.side) {
            (Situation::Plain, Act::Claim, Before)
            | (Situation::Plain, Act::Finish, After)
            | (Situation::Plain, Act::PublishResult | Act::Mark, _)
            | (Situation::Unpublished, ..) => &[&["completed"]],
            // Where the first worker's ack got lost, the deadly claim is that of the redelivery.
            (Situation::Retaken, Act::Claim, After) => &[
                &["taken_over", "taken_over", "completed"],
                &["taken_over", "completed"],
            ],
            (Situation::Failing, _, After) => &[&["parked", "completed"]],
            (Situation::Draining, Act::GiveBack, After)
            | (Situation::Draining, Act::PublishWakeUp, _) => &[&["given_back", "completed"]],
            (Situation::CalledOff, ..) => &[&["taken_over"]],
            (Situation::Overdue | Situation::Refused, ..) => &[&[]],
            // The word may come before the job waits for it.
            (Situation::HeldLong, Act::Await, Before) if self.visit == 1 => &[
                &["taken_over", "parked", "completed"],
                &["taken_over", "completed"],
            ],
            (Situation::HeldLong, ..) if self.visit == 1 => &[&["parked", "completed"]],
            (Situation::HeldLong, ..) => &[&["parked", "taken_over", "completed"]],
            (Situation::Held, ..) => &[
                &["parked", "completed"],
                &["parked", "taken_over", "completed"],
                &["taken_over", "completed"],
                &["taken_over", "parked", "completed"],
            ],
            // The worker that dies may have taken its own wake-up.
            (Situation::Scheduled, ..) => &[&["completed"], &["taken_over", "completed"]],
            (
                Situation::Plain
                | Situation::Retaken
                | Situation::Failing
                | Situation::Draining
                | Situation::Orphaned,
                ..,
            ) => &[&["taken_over", "completed"]],
        }
    }

    /// How the job ends.
    pub(crate) fn status(self) -> &'static str {
        match self.situation {
            Situation::CalledOff => "cancelled",
            Situation::Overdue => "failed",
            Situation::Plain
            | Situation::Retaken
            | Situation::Failing
            | Situation::Draining
            | Situation::Refused
            | Situation::Scheduled
            | Situation::Orphaned
            | Situation::Held
            | Situation::HeldLong
            | Situation::Unpublished => "completed",
        }
    }
}

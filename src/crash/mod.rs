//! The boundaries of a job's life: before and after each act that leaves a trace outside this
//! process. At each of them a test may end the process, or stop it.
//!
//! Only a build with the cargo feature `failpoints` does anything here, and only if
//! `CHAT_FAILPOINT` names a boundary; in any other build the marks are empty functions. The one
//! room that names the crate `fail`. Imports nothing.

#[cfg(feature = "failpoints")]
mod armed;

#[cfg(feature = "failpoints")]
pub use armed::arm;

macro_rules! acts {
    ($($(#[$doc:meta])+ $act:ident = $name:literal,)+) => {
        /// What leaves a trace outside this process, so that dying before it and dying after it
        /// differ. (Heartbeats, the sweeper's lease and the worker's own row are left out: no job
        /// depends on one of them.)
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Act {
            $($(#[$doc])+ $act,)+
        }

        impl Act {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$act),+];

            /// The name of one of its boundaries: `claim.before`, `claim.after`.
            #[must_use]
            pub const fn boundary(self, side: Side) -> &'static str {
                match (self, side) {
                    $(
                        (Self::$act, Side::Before) => concat!($name, ".before"),
                        (Self::$act, Side::After) => concat!($name, ".after"),
                    )+
                }
            }
        }
    };
}

acts! {
    /// The commit of a claim, whatever it decides.
    Claim = "claim",
    /// The acknowledgement of a delivery, job or control message.
    Ack = "ack",
    /// One request to the model and its answer.
    Model = "model",
    /// One call of a tool and its answer.
    Tool = "tool",
    /// The commit of entries.
    Append = "append",
    /// The commit of a run's end.
    Finish = "finish",
    /// The commit of a job that waits to be tried again.
    Park = "park",
    /// The commit of a job that waits for a person's word, or that goes on with it.
    Await = "await",
    /// The commit of a job that goes back to others.
    GiveBack = "give_back",
    /// The commit of what a run that is called off leaves open.
    Interrupt = "interrupt",
    /// The commit of the end of a job that nobody runs.
    Close = "close",
    /// The commit of a dead letter without a job.
    Bury = "bury",
    /// The commit of a cancel.
    Cancel = "cancel",
    /// The commit of a person's word on a call.
    Decide = "decide",
    /// A result on its way to the broker, until it is confirmed.
    PublishResult = "publish.result",
    /// The commit of the marks of published results.
    Mark = "mark",
    /// A wake-up on its way to the broker.
    PublishWakeUp = "publish.wake_up",
    /// The copy of a dead letter on its way to the broker.
    PublishDeadLetter = "publish.dead_letter",
    /// The commit of the marks of jobs that are due; after it only if there were any.
    Dispatch = "dispatch",
    /// The commit that takes jobs from dead workers; after it only if there were any.
    TakeOver = "take_over",
    /// The commit that leases unpublished results; after it only if there were any.
    Lease = "lease",
}

/// One side of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Nothing of it has happened.
    Before,
    /// It has happened, and nothing that follows it has.
    After,
}

/// Says that nothing of `act` has happened yet.
#[inline]
pub fn before(act: Act) {
    reach(act, Side::Before);
}

/// Says that `act` has happened.
#[inline]
pub fn after(act: Act) {
    reach(act, Side::After);
}

#[cfg(feature = "failpoints")]
use armed::reach;

#[cfg(not(feature = "failpoints"))]
#[inline]
const fn reach(_act: Act, _side: Side) {}

//! Who is given which process: each call one of its own, all calls the same, or all calls of a job or
//! a user the same.

use std::ops::Deref;
use std::sync::Arc;

use super::core::{Core, Who};
use super::each::{Each, Own};
use super::error::StartError;
use super::jobs::Jobs;
use super::kept::{Hold, Kept};
use super::process::Process;
use super::seat::{Seat, start};
use crate::config::Isolation;
use crate::ids::{JobId, UserId};

/// The processes of one server.
#[derive(Clone, Debug)]
pub(super) enum Processes {
    /// Each for one call at a time.
    Each(Each),
    /// One, for all calls at once.
    One(Arc<Core>, Seat),
    /// One for each job or each user.
    Kept(Kept),
}

/// For whom a process is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// It makes no difference.
    Anybody,
    /// A job.
    Job(JobId),
    /// A user, in whatever job.
    User(UserId),
}

impl Key {
    /// For whom a call of this job and user wants its process.
    pub(super) fn new(isolation: Isolation, job: JobId, user: &UserId) -> Self {
        match isolation {
            Isolation::Call | Isolation::Shared => Self::Anybody,
            Isolation::Job => Self::Job(job),
            Isolation::User => Self::User(user.clone()),
        }
    }
}

/// A process for one call.
#[derive(Debug)]
pub(super) enum Lease {
    /// Nobody else has it.
    Own(Own),
    /// Anybody else may have it, too.
    Shared(Arc<Process>),
    /// Other calls of the same job or user may have it, too.
    Kept(Hold),
}

/// Why there is no process.
#[derive(Debug)]
pub(super) enum LeaseError {
    /// None could be started.
    Start(StartError),
    /// None are given out any more.
    Closed,
}

impl Processes {
    /// No process yet.
    pub(super) fn new(core: &Arc<Core>, jobs: &Arc<Jobs>) -> Self {
        match core.config().pool.isolation {
            Isolation::Call => Self::Each(Each::new(core)),
            Isolation::Shared => Self::One(Arc::clone(core), Seat::default()),
            Isolation::Job | Isolation::User => Self::Kept(Kept::new(core, jobs)),
        }
    }

    /// A process for one call.
    pub(super) async fn lease(&self, key: &Key) -> Result<Lease, LeaseError> {
        match self {
            Self::Each(each) => each.lease().await.map(Lease::Own),
            Self::One(core, seat) => {
                let seated = seat.lock().await;
                match seated.fit(core) {
                    Some(process) => Ok(Lease::Shared(process)),
                    None => start(core, seated, ()).await.map(Lease::Shared),
                }
            }
            Self::Kept(kept) => kept.lease(key).await.map(Lease::Kept),
        }
    }

    /// A process that is asked what has nothing to do with anybody, if there is one.
    pub(super) async fn any(&self) -> Option<Lease> {
        match self {
            Self::Each(_) | Self::One(..) => self.lease(&Key::Anybody).await.ok(),
            Self::Kept(kept) => kept.any().map(Lease::Shared),
        }
    }

    /// Whether one should be started before it is asked for.
    pub(super) fn wants(&self) -> bool {
        match self {
            Self::Each(each) => each.wants(),
            // Locked: one is being started; or calls look in vain, since none is to be started for them.
            Self::One(core, seat) => match seat.try_lock() {
                Some(seated) => seated.fit(core).is_none(),
                None => core.is_resting(),
            },
            Self::Kept(kept) => kept.wants(),
        }
    }

    /// Starts one before it is asked for.
    pub(super) async fn stock(&self) -> Result<(), StartError> {
        match self {
            Self::Each(each) => each.stock().await,
            Self::One(core, seat) => {
                let locked = seat.lock().await;
                if locked.fit(core).is_some() {
                    return Ok(());
                }
                // Calls wait here for the start that they would make otherwise; when they are not
                // to wait for any, they are not to wait for this one.
                let locked = (!core.is_resting()).then_some(locked);
                let process = core.start_process(Who::Keeper).await?;
                let mut seated = match locked {
                    Some(locked) => locked,
                    None => seat.lock().await,
                };
                seated.process = Some(Arc::new(process));
                Ok(())
            }
            Self::Kept(kept) => kept.stock().await,
        }
    }

    /// The job has ended.
    pub(super) fn end(&self, job: JobId) {
        match self {
            Self::Each(_) | Self::One(..) => {}
            Self::Kept(kept) => kept.end(&Key::Job(job)),
        }
    }

    /// Lets go of the processes that cannot be called any more.
    pub(super) fn purge(&self) {
        match self {
            Self::Each(each) => each.purge(),
            Self::One(core, seat) => {
                // Locked: one is being started, and the old one is gone already.
                if let Some(mut seated) = seat.try_lock() {
                    let unfit = seated.process.take_if(|process| !core.is_fit(process));
                    drop(seated);
                    drop(unfit);
                }
            }
            Self::Kept(kept) => kept.purge(),
        }
    }

    /// Gives no process out any more, and lets go of those that nobody has.
    pub(super) fn close(&self) {
        match self {
            Self::Each(each) => each.close(),
            // Whoever starts one now finds that it is ended at once.
            Self::One(_, seat) => {
                if let Some(mut seated) = seat.try_lock() {
                    seated.process = None;
                }
            }
            Self::Kept(kept) => kept.close(),
        }
    }
}

impl Deref for Lease {
    type Target = Process;

    fn deref(&self) -> &Process {
        match self {
            Self::Own(own) => own.process(),
            Self::Shared(process) => process,
            Self::Kept(hold) => hold.process(),
        }
    }
}

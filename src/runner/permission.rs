use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;

use super::pace::{Paced, Pass};
use super::run::{JobInHand, Runner};
use crate::chat::{Prompt, Usage};
use crate::model::Permit;
use crate::wire::Happening;

/// Lets the attempts of one call leave: when the limits of the model have room, and while the job is
/// surely this worker's own.
pub(super) struct Permission<'a> {
    runner: &'a Runner,
    job: &'a JobInHand,
    prompt: &'a Prompt,
    /// The round that is told of when the first attempt leaves; none: nobody is told.
    told: Option<u32>,
    /// The gaps between heartbeats up to when the job was last known to be this worker's own.
    gaps: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pass: Option<Pass>,
    begun: Option<DateTime<Utc>>,
    later: Option<Duration>,
}

impl<'a> Permission<'a> {
    pub(super) fn new(
        runner: &'a Runner,
        job: &'a JobInHand,
        prompt: &'a Prompt,
        gaps: u64,
    ) -> Self {
        Self {
            runner,
            job,
            prompt,
            told: None,
            gaps,
            state: Mutex::default(),
        }
    }

    /// The same, which tells of the round when it begins.
    pub(super) fn telling(self, round: u32) -> Self {
        Self {
            told: Some(round),
            ..self
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the first attempt left.
    pub(super) fn begun(&self) -> Option<DateTime<Utc>> {
        self.state().begun
    }

    /// After how long it may be asked for again, if the limits had no room.
    pub(super) fn later(&self) -> Option<Duration> {
        self.state().later
    }

    /// The last attempt took this.
    pub(super) fn settle(&self, usage: &Usage) {
        let pass = self.state().pass.take();
        if let Some(pass) = pass {
            pass.settle(usage);
        }
    }

    async fn wait(&self) -> bool {
        let entry = self.runner.models.entry(&self.prompt.model);
        let mut pass = match self.runner.pacer.pass(entry, self.prompt).await {
            Paced::Free(pass) => pass,
            Paced::Later(wait) => {
                self.state().later = Some(wait);
                return false;
            }
        };
        // A pass that is not used goes back.
        if !self.runner.is_sure(self.gaps) {
            return false;
        }
        pass.begin();
        let mut state = self.state();
        state.pass = Some(pass);
        let is_first = state.begun.is_none();
        state.begun.get_or_insert_with(|| self.runner.clock.now());
        drop(state);
        if let Some(iteration) = self.told.filter(|_| is_first) {
            self.job.events.say(|| Happening::ModelStarted {
                iteration,
                model: Arc::clone(&self.prompt.model),
            });
        }
        true
    }
}

impl Permit for Permission<'_> {
    fn attempt(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.wait())
    }
}

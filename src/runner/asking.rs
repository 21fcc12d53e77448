use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::context::{Window, counted, room_after};
use super::deltas::Deltas;
use super::permission::Permission;
use super::run::{JobInHand, Progress, Runner};
use crate::chat::{Answer, Prompt};
use crate::conversation::{Ask, Entry, Opening, estimated, most, overhead, weight};
use crate::fault::Fault;
use crate::model::{Along, ModelError};
use crate::tools::Offer;
use crate::wire::{Happening, ResultError};

/// What the model is asked, and what a prompt for another model would be made of.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) offer: &'a Offer,
    pub(super) opening: &'a Opening,
    /// The prompt, fitted to the job's own model.
    pub(super) prompt: &'a Prompt,
    pub(super) ask: Ask,
}

/// What came of asking for an answer.
pub(super) enum Asked {
    /// One model has answered.
    Answered(Box<Answered>),
    /// The run is to stop, or its time is over: the next step says which.
    Halted,
    /// Not soon: somewhere else the job may wait for this long.
    Later(Duration),
    /// The job's own model has not.
    Failed(ModelError),
    /// None of several has; this is what is worth telling.
    NoneCould(ModelError),
}

/// An answer, and when it came.
pub(super) struct Answered {
    pub(super) answer: Answer,
    pub(super) started_at: DateTime<Utc>,
    pub(super) finished_at: DateTime<Utc>,
}

impl Runner {
    /// Asks the job's model; where it stays down, those that may stand in for it, one after the other.
    pub(super) async fn ask_any(
        &self,
        job: &JobInHand,
        question: &Question<'_>,
        progress: &Progress,
    ) -> Asked {
        let at = (question.ask.iteration, progress.gaps, progress.failures);
        let fallbacks = &self.models.profile(&job.model).fallbacks;
        if fallbacks.is_empty() {
            return self.ask_one(job, question.prompt, at).await;
        }
        let others = fallbacks.iter().map(String::as_str);
        let others = others.filter(|name| *name != &*job.model);
        let names = std::iter::once(&*job.model).chain(others);
        let names = self.standby.order(names, Instant::now());
        let (mut failed, mut later) = (None, None);
        for name in names {
            let asked = if name == &*job.model {
                self.ask_one(job, question.prompt, at).await
            } else {
                self.ask_stand_in(name, job, question, progress).await
            };
            match asked {
                Asked::Failed(error) if error.lets_others_try() => {
                    // One that is held back says so at once, whoever asks.
                    if error.held_for().is_none() {
                        self.standby.rest(name, Instant::now());
                    }
                    tracing::warn!(model.name = name, %error, "the model stays down");
                    failed = Some(worth_telling(failed, (error, name == &*job.model)));
                }
                Asked::Failed(error @ ModelError::Deadline { .. }) => return Asked::Failed(error),
                // What one that stands in does not take, the job's own may.
                Asked::Failed(error) if name != &*job.model => {
                    tracing::warn!(model.name = name, %error, "the model cannot stand in");
                    failed = Some(worth_telling(failed, (error, false)));
                }
                // Others may have room where the limit of one that stands in is used up.
                Asked::Later(wait) if name != &*job.model => later = Some(wait),
                Asked::Answered(answered) => {
                    self.standby.wake(name);
                    return Asked::Answered(answered);
                }
                asked @ (Asked::Halted
                | Asked::Later(_)
                | Asked::Failed(_)
                | Asked::NoneCould(_)) => return asked,
            }
        }
        let failed = failed.map(|(error, _)| Asked::NoneCould(error));
        failed.or(later.map(Asked::Later)).unwrap_or(Asked::Halted)
    }

    /// Asks a model that stands in for the job's own. If it takes less than it was sent, it is sent less, once.
    async fn ask_stand_in(
        &self,
        name: &str,
        job: &JobInHand,
        question: &Question<'_>,
        progress: &Progress,
    ) -> Asked {
        let at = (question.ask.iteration, progress.gaps, progress.failures);
        let prompt = self.prompt_for(name, job, question, progress).await;
        let asked = self.ask_one(job, &prompt, at).await;
        let Asked::Failed(error) = &asked else {
            return asked;
        };
        let Some(overflow) = error.overflow() else {
            return asked;
        };
        let reserve = self.window(job, name).map(|window| window.reserve);
        let draft = question.opening.with(&progress.conversation);
        let (overhead, messages) = (overhead(&prompt), prompt.messages.clone());
        let shorter = counted(&prompt.model, draft, move |draft, count| {
            let sent = weight(&messages, count) + overhead;
            let room = room_after(overflow, sent, reserve);
            let fitted = draft.fit(room.saturating_sub(overhead), count);
            (fitted.weight + overhead < sent).then_some(fitted.messages)
        });
        let Some(messages) = shorter.await else {
            return asked;
        };
        job.events.say(|| restarted(question.ask.iteration, error));
        let prompt = Prompt { messages, ..prompt };
        self.ask_one(job, &prompt, at).await
    }

    /// The prompt for the model of this name, which may take less than the job's own.
    async fn prompt_for(
        &self,
        name: &str,
        job: &JobInHand,
        question: &Question<'_>,
        progress: &Progress,
    ) -> Prompt {
        let mut prompt = question.prompt.clone();
        prompt.model = name.into();
        let overhead = overhead(&prompt);
        let room = self.window(job, name).map(Window::room);
        if let Some(room) = room.filter(|room| most(&prompt.messages) + overhead > *room) {
            let draft = question.opening.with(&progress.conversation);
            let room = room.saturating_sub(overhead);
            let fitted = counted(&prompt.model, draft, move |draft, count| {
                draft.fit(room, count)
            });
            prompt.messages = fitted.await.messages;
        }
        prompt
    }

    /// Asks one model, when its limits allow it.
    async fn ask_one(
        &self,
        job: &JobInHand,
        prompt: &Prompt,
        (round, gaps, before): (u32, u64, u32),
    ) -> Asked {
        let deadline = self.deadline(job);
        let permission = Permission::new(self, job, prompt, gaps).telling(round);
        let deltas = Deltas::of(&job.events, round, job.job.stream == Some(true));
        let ear = deltas.ear();
        let along = Along {
            ear: Some(&ear),
            permit: Some(&permission),
            before,
        };
        let asked = tokio::select! {
            biased;
            () = job.leash.wait() => None,
            answer = self.model.complete_along(prompt, deadline, along) => Some(answer),
            never = deltas.keep_saying() => never,
        };
        let answer = match asked {
            None => return Asked::Halted,
            // The limits have no room; or the next step looks whether the job is this worker's own.
            Some(Err(ModelError::NotPermitted)) => {
                return permission.later().map_or(Asked::Halted, Asked::Later);
            }
            Some(Err(error)) => return Asked::Failed(error),
            Some(Ok(answer)) => estimated(answer, prompt),
        };
        permission.settle(&answer.usage);
        deltas.end(answer.content.as_deref());
        Asked::Answered(Box::new(Answered {
            answer,
            started_at: permission.begun().unwrap_or_else(|| self.clock.now()),
            finished_at: self.clock.now(),
        }))
    }
}

/// What is told of a model that is asked again with less.
pub(super) fn restarted(iteration: u32, error: &ModelError) -> Happening {
    Happening::ModelRestarted {
        iteration,
        error: ResultError {
            code: error.code(),
            message: error.to_string(),
        },
    }
}

/// A failure, and whether it is of the job's own model.
type Failing = (ModelError, bool);

/// Of two failures the one that decides what becomes of the job: one after which it may be tried again, if a
/// model was asked at all; else what the job's own model says; else the first.
fn worth_telling(first: Option<Failing>, next: Failing) -> Failing {
    let rank = |(error, is_own): &Failing| {
        let passes = matches!(error.fault(), Fault::Retry { .. });
        (passes, error.held_for().is_none(), *is_own && !passes)
    };
    match first {
        Some(first) if rank(&first) >= rank(&next) => first,
        Some(_) | None => next,
    }
}

/// What a result says when another model has answered than the one that was asked for.
pub(super) fn stood_in(requested: &str, answer: &Answer) -> Option<String> {
    let asked = answer
        .asked
        .as_deref()
        .filter(|asked| *asked != requested)?;
    Some(format!(
        "model {requested:?} did not answer; {asked:?} answered in its stead"
    ))
}

/// What an earlier run of the job has to say of an answer.
pub(super) fn stood_in_of(job: &JobInHand, entry: &Entry) -> Option<String> {
    match entry {
        Entry::Answered(answer) => stood_in(&job.model, answer),
        Entry::Interrupted { .. }
        | Entry::Held { .. }
        | Entry::Approved { .. }
        | Entry::Summarised { .. }
        | Entry::Returned { .. } => None,
    }
}

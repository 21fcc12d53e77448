use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::approval::starting;
use super::asking::{Answered, Asked, Question, restarted, stood_in, stood_in_of};
use super::calls::{routes, selection};
use super::compact::Beginning;
use super::context::Context;
use super::ending::Ended;
use super::events::JobEvents;
use super::leash::Leash;
use super::pace::Pacer;
use super::pulse::{Pulse, STALE};
use super::spending::day_is_spent;
use super::standby::Standby;
use crate::clock::Clock;
use crate::config::{JobsConfig, ModelConfig};
use crate::conversation::{Conversation, Entry, Limits, Opening, Outcome, Step, system_prompt};
use crate::fault::{Failure, Fault};
use crate::ids::UserId;
use crate::model::Model;
use crate::runner::insisting;
use crate::store::{ClaimedJob, NewIteration, NewResult, Next, Store, StoreError, Written};
use crate::tools::{Offer, Toolbox};
use crate::wire::{Happening, Job, ReplyFormat};

/// Runs jobs: the rooms that a run needs.
#[derive(Clone)]
pub struct Runner {
    /// The record.
    pub store: Store,
    /// The model server.
    pub model: Model,
    /// What is known about the models.
    pub models: Arc<ModelConfig>,
    /// The limits that all workers keep together.
    pub pacer: Pacer,
    /// Which models did not answer of late.
    pub standby: Standby,
    /// The tool servers.
    pub tools: Toolbox,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Limits and texts of jobs.
    pub jobs: Arc<JobsConfig>,
    /// Bytes of a tool's result that the model sees.
    pub model_result_bytes: usize,
    /// When this worker's last heartbeat was stored.
    pub pulse: Pulse,
}

/// A claimed job, read.
#[derive(Debug)]
pub struct JobInHand {
    /// What the claim brought.
    pub claimed: ClaimedJob,
    /// The request.
    pub job: Job,
    /// The user, checked.
    pub user: UserId,
    /// The model to be asked.
    pub model: Arc<str>,
    /// What stops the run from outside.
    pub leash: Leash,
    /// Where the run says what happens.
    pub events: JobEvents,
    /// [`Pulse::gaps`] from before the claim.
    pub gaps: u64,
}

/// How a run ended.
#[derive(Debug)]
pub enum Ran {
    /// With the job.
    Ended(Box<Ended>),
    /// It failed, and the job waits to be tried again.
    Parked,
    /// The job is marked queued and wants a wake-up: this worker stops.
    GivenBack(Next),
    /// Somebody else owns the job now; there is nothing to say.
    Fenced,
}

/// A run under way.
pub(super) struct Progress {
    pub(super) conversation: Conversation,
    /// Results that wait for the next entry to be stored with it.
    pub(super) unsaved: Vec<NewResult>,
    pub(super) warnings: Vec<String>,
    /// Failures and deaths since the last stored entry.
    pub(super) failures: u32,
    /// Gaps between heartbeats up to when the run was last known to own its job.
    pub(super) gaps: u64,
    /// What is known of the model's context.
    pub(super) context: Box<Context>,
}

/// What a step came to.
pub(super) enum Flow {
    GoOn(Progress),
    Over(Ran),
}

/// Of the runs of a job that ended because its model was held back, each of this number counts as failed.
const MOST_HELD: i32 = 5;
/// How often a worker that was not heard looks whether it is again.
const LISTENING: std::time::Duration = std::time::Duration::from_millis(100);

impl Runner {
    /// Runs a job from where its log ends to its own end.
    ///
    /// # Errors
    /// The database refuses for good; the job stays with this worker.
    pub async fn run(&self, mut job: JobInHand) -> Result<Ran, StoreError> {
        // Dropped however the run ends: done, parked, given back or called off.
        let _session = self.tools.begin(job.claimed.run.job_id);
        let entries = std::mem::take(&mut job.claimed.entries);
        let history = std::mem::take(&mut job.claimed.history);
        let limits = Limits::of(&job.job, &self.jobs);
        let stood_in: Vec<_> = entries
            .iter()
            .filter_map(|entry| stood_in_of(&job, entry))
            .collect();
        let conversation =
            Conversation::resume(limits, entries).map_err(|error| StoreError::Damaged {
                table: "chat.iterations and chat.tool_calls",
                job: job.claimed.run.job_id.to_string(),
                what: error.to_string(),
            })?;
        let options = job.job.options.clone().unwrap_or_default();
        let (conversation, unfit) = match ReplyFormat::of(&options) {
            Ok(format) => (conversation.expecting(format.map(Arc::new)), None),
            Err(failure) => (conversation, Some(failure)),
        };
        job.events.say(|| Happening::JobStarted {
            model: Arc::clone(&job.model),
            turn: u32::try_from(job.claimed.run.turn).unwrap_or_default(),
            iterations: conversation.iterations(),
        });
        let mut progress = Progress {
            conversation,
            unsaved: Vec::new(),
            warnings: Vec::new(),
            failures: job.claimed.failures,
            gaps: job.gaps,
            context: Box::default(),
        };
        progress.warn(stood_in);
        if let Some(failure) = unfit {
            let failed = self.finish(&job, progress, None, Outcome::Failed(failure));
            return Box::pin(failed).await;
        }
        let selection = selection(&job.job);
        let offer = tokio::select! {
            biased;
            () = job.leash.wait() => None,
            offer = self.tools.offer(&selection) => Some(offer),
        };
        let offer = match offer {
            None => return Box::pin(self.halt(&job, progress)).await,
            Some(Ok(offer)) => offer,
            Some(Err(error)) => {
                let failure = Failure::new(error.code(), error.to_string());
                return Box::pin(self.fail(&job, progress, error.fault(), failure)).await;
            }
        };
        progress.warn(offer.missing().iter().map(|server| missing(server)));
        progress.warn(offer.too_many().map(ToOwned::to_owned));
        if !offer.missing().is_empty() {
            let servers = offer.missing().iter().map(ToString::to_string).collect();
            job.events.say(|| Happening::ToolsMissing { servers });
        }
        progress.warnings.extend(self.unpriced(&job));
        let conversation_id = job.claimed.run.conversation_id;
        let system = system_prompt(
            &self.jobs.system_prompt,
            job.user.as_str(),
            conversation_id,
            self.clock.now(),
        );
        match Box::pin(self.begin((&job, &offer), &system, history, progress)).await? {
            Beginning::With(begun) => {
                let (opening, progress) = *begun;
                self.steps(&job, &offer, &opening, progress).await
            }
            Beginning::Over(ran) => Ok(ran),
        }
    }

    async fn steps(
        &self,
        job: &JobInHand,
        offer: &Offer,
        opening: &Opening,
        mut progress: Progress,
    ) -> Result<Ran, StoreError> {
        loop {
            if job.leash.pulled().is_some() {
                return Box::pin(self.halt(job, progress)).await;
            }
            let step;
            (progress, step) = self.next_step(job, offer, progress)?;
            let flow = match step {
                Step::Finish(outcome) => {
                    return Box::pin(self.finish(job, progress, None, outcome)).await;
                }
                Step::AskModel(_) | Step::CallTools(_)
                    if !self.holds_its_ground(job, &mut progress.gaps).await? =>
                {
                    return Ok(Ran::Fenced);
                }
                Step::AskModel(_) if self.has_spent_the_day(job).await? => {
                    let outcome = day_is_spent(&progress.conversation);
                    return Box::pin(self.finish(job, progress, None, outcome)).await;
                }
                Step::AskModel(ask) => {
                    let draft = opening.with(&progress.conversation);
                    match self.fitted((job, offer), draft, &mut progress, ask).await {
                        Ok(prompt) => {
                            let question = Question {
                                offer,
                                opening,
                                prompt: &prompt,
                                ask,
                            };
                            Box::pin(self.ask(job, question, progress)).await?
                        }
                        Err(failure) => {
                            let failed = self.fail(job, progress, Fault::Permanent, failure);
                            return Box::pin(failed).await;
                        }
                    }
                }
                Step::CallTools(calls) => {
                    Box::pin(self.call_tools(job, offer, &calls, progress)).await?
                }
                Step::AwaitApproval(calls) => {
                    Box::pin(self.await_approval(job, offer, &calls, progress)).await?
                }
            };
            match flow {
                Flow::GoOn(next) => progress = next,
                Flow::Over(ran) => return Ok(ran),
            }
        }
    }

    /// Whether a new call may be begun. A worker that was not heard for long may have lost its jobs:
    /// it waits until it is heard again, and looks. `known` are the gaps between heartbeats up to when the
    /// job was last known to be its own. True too when the run is to stop meanwhile.
    pub(super) async fn holds_its_ground(
        &self,
        job: &JobInHand,
        known: &mut u64,
    ) -> Result<bool, StoreError> {
        loop {
            if self.is_sure(*known) || job.leash.pulled().is_some() {
                return Ok(true);
            }
            let gaps = self.pulse.gaps();
            if self.pulse.age() >= STALE {
                tokio::time::sleep(LISTENING).await;
                continue;
            }
            let owns = insisting!("owner", self.store, self.store.owns(&job.claimed.run))?;
            if owns == Written::Fenced {
                return Ok(false);
            }
            *known = gaps;
        }
    }

    /// Whether a job that was this worker's own after so many gaps between heartbeats still is, as far
    /// as can be told without a look at its row.
    pub(super) fn is_sure(&self, known: u64) -> bool {
        self.pulse.age() < STALE && self.pulse.gaps() == known
    }

    async fn ask(
        &self,
        job: &JobInHand,
        question: Question<'_>,
        mut progress: Progress,
    ) -> Result<Flow, StoreError> {
        let (round, offer) = (question.ask.iteration, question.offer);
        let answered = match self.ask_any(job, &question, &progress).await {
            Asked::Answered(answered) => *answered,
            Asked::Halted => return Ok(Flow::GoOn(progress)),
            Asked::Later(wait) => {
                // Spread, so that those who wait do not come back all at once.
                let wait = wait.mul_f64(1.0 + fastrand::f64());
                let postponed =
                    self.postpone(job, progress, (wait, "the limits of the model are used up"));
                return Ok(Flow::Over(Box::pin(postponed).await?));
            }
            // The next prompt is shorter.
            Asked::Failed(error) if progress.context.takes(&error, round) => {
                job.events.say(|| restarted(round, &error));
                return Ok(Flow::GoOn(progress));
            }
            Asked::Failed(error) | Asked::NoneCould(error) => {
                // Nothing failed where nothing was asked; but no job waits so for ever.
                let is_patient = job.claimed.run.attempt % MOST_HELD != 0;
                if let Some(wait) = error.held_for().filter(|_| is_patient) {
                    let wait = wait.mul_f64(1.0 + 0.05 * fastrand::f64());
                    let postponed = self.postpone(job, progress, (wait, "the model is held back"));
                    return Ok(Flow::Over(Box::pin(postponed).await?));
                }
                let failure = Failure::new(error.code(), error.to_string());
                let failed = self.fail(job, progress, error.fault(), failure);
                return Ok(Flow::Over(Box::pin(failed).await?));
            }
        };
        let Answered {
            mut answer,
            started_at,
            finished_at,
        } = answered;
        self.put_price_on(job, &mut answer);
        if let Some(stood_in) = stood_in(&job.model, &answer) {
            progress.warn([stood_in]);
            // What it counted is not of the prompt that was fitted to the job's own model.
            progress.context.forget_sent();
        }
        job.events.say(|| Happening::ModelFinished {
            iteration: round,
            model: answer.model.clone(),
            finish_reason: answer.finish_reason.clone(),
            tool_calls: u32::try_from(answer.tool_calls.len()).unwrap_or(u32::MAX),
            usage: answer.usage,
            duration_ms: millis(started_at, finished_at),
        });
        progress = progress.after(job, Entry::Answered(answer.clone()))?;
        let next;
        (progress, next) = self.next_step(job, offer, progress)?;
        let routes = routes(offer, answer.tool_calls.iter().map(|call| &call.name));
        let iteration = NewIteration {
            number: round,
            requested_model: &job.model,
            answer: &answer,
            routes: &routes,
            calls_starting: &starting(offer, &next),
            calls_held: &progress.conversation.held_calls(),
            approval_timeout: self.jobs.approval_timeout,
            counts_for_user: self.jobs.user_daily_cost.is_some(),
            started_at,
            finished_at,
        };
        match next {
            Step::Finish(outcome) => {
                let over = Box::pin(self.finish(job, progress, Some(&iteration), outcome)).await?;
                Ok(Flow::Over(over))
            }
            Step::AskModel(_) | Step::CallTools(_) | Step::AwaitApproval(_) => {
                match Box::pin(self.append(job, &mut progress, Some(&iteration))).await? {
                    Written::Stored => Ok(Flow::GoOn(progress)),
                    Written::Fenced => Ok(Flow::Over(Ran::Fenced)),
                }
            }
        }
    }
}

impl Progress {
    /// Has the result say so, once.
    fn warn(&mut self, what: impl IntoIterator<Item = String>) {
        for what in what {
            if !self.warnings.contains(&what) {
                self.warnings.push(what);
            }
        }
    }

    pub(super) fn after(self, job: &JobInHand, entry: Entry) -> Result<Self, StoreError> {
        let conversation = self
            .conversation
            .after(entry)
            .map_err(|error| StoreError::Damaged {
                table: "the log",
                job: job.claimed.run.job_id.to_string(),
                what: error.to_string(),
            })?;
        Ok(Self {
            conversation,
            ..self
        })
    }
}

/// The time between two moments; none if the clock was set back.
pub(super) fn millis(from: DateTime<Utc>, to: DateTime<Utc>) -> u64 {
    u64::try_from((to - from).num_milliseconds()).unwrap_or_default()
}

fn missing(server: &str) -> String {
    format!("tool server {server:?} is not available; the job ran without its tools")
}

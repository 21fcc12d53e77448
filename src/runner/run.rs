use std::sync::Arc;

use super::calls::routes;
use super::ending::{self, Ended};
use super::patience::insisting;
use crate::chat::{Answer, Prompt, ToolChoice};
use crate::clock::Clock;
use crate::config::JobsConfig;
use crate::conversation::{
    Ask, Conversation, Entry, Limits, Opening, Outcome, Step, system_prompt,
};
use crate::fault::{ErrorCode, Failure};
use crate::ids::UserId;
use crate::model::Model;
use crate::store::{ClaimedJob, Finished, NewIteration, NewResult, Store, StoreError, Written};
use crate::tools::{Offer, Selection, Toolbox};
use crate::wire::Job;

/// Runs jobs: the rooms that a run needs.
#[derive(Clone)]
pub struct Runner {
    /// The record.
    pub store: Store,
    /// The model server.
    pub model: Model,
    /// The tool servers.
    pub tools: Toolbox,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Limits and texts of jobs.
    pub jobs: Arc<JobsConfig>,
    /// Bytes of a tool's result that the model sees.
    pub model_result_bytes: usize,
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
}

/// How a run ended.
#[derive(Debug)]
pub enum Ran {
    /// With the job.
    Ended(Box<Ended>),
    /// Somebody else owns the job now; there is nothing to say.
    Fenced,
}

/// A run under way.
struct Progress {
    conversation: Conversation,
    /// Results that wait for the next entry to be stored with it.
    unsaved: Vec<NewResult>,
    warnings: Vec<String>,
}

impl Runner {
    /// Runs a job from where its log ends to its own end.
    ///
    /// # Errors
    /// The database refuses for good; the job stays with this worker.
    pub async fn run(&self, mut job: JobInHand) -> Result<Ran, StoreError> {
        let entries = std::mem::take(&mut job.claimed.entries);
        let history = std::mem::take(&mut job.claimed.history);
        let limits = Limits::of(&job.job, &self.jobs);
        let conversation =
            Conversation::resume(limits, entries).map_err(|error| StoreError::Damaged {
                table: "chat.iterations and chat.tool_calls",
                job: job.claimed.run.job_id.to_string(),
                what: error.to_string(),
            })?;
        let mut progress = Progress {
            conversation,
            unsaved: Vec::new(),
            warnings: Vec::new(),
        };
        let selection = selection(&job.job);
        let offer = match self.tools.offer(&selection).await {
            Ok(offer) => offer,
            Err(error) => {
                let failure = Failure::new(error.code(), error.to_string());
                return Box::pin(self.finish(&job, progress, None, Outcome::Failed(failure))).await;
            }
        };
        progress.warnings = offer
            .missing()
            .iter()
            .map(|server| missing(server))
            .collect();
        let conversation_id = job.claimed.run.conversation_id;
        let system = system_prompt(
            &self.jobs.system_prompt,
            job.user.as_str(),
            conversation_id,
            self.clock.now(),
        );
        let opening = Opening::new(
            &system,
            &history,
            &job.job,
            self.model_result_bytes,
            self.jobs.context_tokens,
        );
        drop(history);
        self.steps(&job, &offer, &opening, progress).await
    }

    /// Ends a claimed job without running it.
    ///
    /// # Errors
    /// The database refuses for good.
    pub async fn fail(&self, mut job: JobInHand, failure: Failure) -> Result<Ran, StoreError> {
        let limits = Limits::of(&job.job, &self.jobs);
        let entries = std::mem::take(&mut job.claimed.entries);
        // Even of a log that does not fold as much is told as can be.
        let conversation = Conversation::resume(limits, entries)
            .or_else(|_damaged| Conversation::resume(limits, []))
            .map_err(|error| StoreError::Damaged {
                table: "chat.iterations",
                job: job.claimed.run.job_id.to_string(),
                what: error.to_string(),
            })?;
        let progress = Progress {
            conversation,
            unsaved: Vec::new(),
            warnings: Vec::new(),
        };
        self.finish(&job, progress, None, Outcome::Failed(failure))
            .await
    }

    async fn steps(
        &self,
        job: &JobInHand,
        offer: &Offer,
        opening: &Opening,
        mut progress: Progress,
    ) -> Result<Ran, StoreError> {
        loop {
            match progress.conversation.next_step(self.clock.now()) {
                Step::Finish(outcome) => {
                    return Box::pin(self.finish(job, progress, None, outcome)).await;
                }
                Step::AskModel(ask) => {
                    let prompt = prompt(job, offer, opening.with(&progress.conversation), ask);
                    match self.ask(job, offer, &prompt, progress, ask).await? {
                        Asked::GoOn(next) => progress = next,
                        Asked::Over(ran) => return Ok(ran),
                    }
                }
                Step::CallTools(calls) => {
                    let iteration = progress.conversation.iterations();
                    let calling = self.call_tools(job, offer, &calls, iteration);
                    let called = match Box::pin(calling).await {
                        Ok(called) => called,
                        Err(failure) => {
                            return Box::pin(self.finish(
                                job,
                                progress,
                                None,
                                Outcome::Failed(failure),
                            ))
                            .await;
                        }
                    };
                    for result in &called.results {
                        let (position, outcome) = (result.position, result.outcome.clone());
                        progress = progress.after(job, Entry::Returned { position, outcome })?;
                    }
                    progress.unsaved.extend(called.results);
                    if !called.may_wait
                        && Box::pin(self.append(job, &mut progress, None)).await? == Written::Fenced
                    {
                        return Ok(Ran::Fenced);
                    }
                }
            }
        }
    }

    async fn ask(
        &self,
        job: &JobInHand,
        offer: &Offer,
        prompt: &Prompt,
        mut progress: Progress,
        ask: Ask,
    ) -> Result<Asked, StoreError> {
        let started_at = self.clock.now();
        let answer = match self.model.complete(prompt, self.deadline(job)).await {
            Ok(answer) => answer,
            Err(error) => {
                let failure = Failure::new(error.code(), error.to_string());
                let over =
                    Box::pin(self.finish(job, progress, None, Outcome::Failed(failure))).await?;
                return Ok(Asked::Over(over));
            }
        };
        let finished_at = self.clock.now();
        progress = progress.after(job, Entry::Answered(answer.clone()))?;
        let next = progress.conversation.next_step(finished_at);
        let routes = routes(offer, answer.tool_calls.iter().map(|call| &call.name));
        let iteration = NewIteration {
            number: ask.iteration,
            answer: &answer,
            routes: &routes,
            calls_starting: match &next {
                Step::CallTools(calls) => calls.len(),
                Step::AskModel(_) | Step::Finish(_) => 0,
            },
            started_at,
            finished_at,
        };
        match next {
            Step::Finish(outcome) => {
                let over = Box::pin(self.finish(job, progress, Some(&iteration), outcome)).await?;
                Ok(Asked::Over(over))
            }
            Step::AskModel(_) | Step::CallTools(_) => {
                match Box::pin(self.append(job, &mut progress, Some(&iteration))).await? {
                    Written::Stored => Ok(Asked::GoOn(progress)),
                    Written::Fenced => Ok(Asked::Over(Ran::Fenced)),
                }
            }
        }
    }

    async fn append(
        &self,
        job: &JobInHand,
        progress: &mut Progress,
        iteration: Option<&NewIteration<'_>>,
    ) -> Result<Written, StoreError> {
        let results = std::mem::take(&mut progress.unsaved);
        insisting!(
            "append",
            self.store.append(&job.claimed.run, &results, iteration)
        )
    }

    async fn finish(
        &self,
        job: &JobInHand,
        progress: Progress,
        iteration: Option<&NewIteration<'_>>,
        outcome: Outcome,
    ) -> Result<Ran, StoreError> {
        let model = progress
            .conversation
            .last_answer()
            .and_then(|answer: &Answer| answer.model.clone());
        let totals = progress.conversation.totals();
        let ending = ending::ending(
            outcome,
            totals,
            model,
            progress.warnings,
            &self.jobs.unfinished_reply,
        );
        let run = &job.claimed.run;
        let finished = insisting!(
            "finish",
            self.store
                .finish(run, &progress.unsaved, iteration, &ending)
        );
        Ok(match finished? {
            Finished::Fenced => Ran::Fenced,
            Finished::Ended { finished_at, next } => Ran::Ended(Box::new(Ended {
                result: ending::result(job, &ending, finished_at),
                next,
            })),
        })
    }
}

/// What came of asking the model.
enum Asked {
    GoOn(Progress),
    Over(Ran),
}

impl Progress {
    fn after(self, job: &JobInHand, entry: Entry) -> Result<Self, StoreError> {
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

fn selection(job: &Job) -> Selection<'_> {
    job.tools
        .as_ref()
        .map_or_else(Selection::default, |tools| Selection {
            servers: tools.servers.as_deref(),
            allow: &tools.allow,
            deny: &tools.deny,
        })
}

fn missing(server: &str) -> String {
    format!("tool server {server:?} is not available; the job ran without its tools")
}

fn prompt(
    job: &JobInHand,
    offer: &Offer,
    messages: Vec<crate::chat::PromptMessage>,
    ask: Ask,
) -> Prompt {
    let tools = Arc::clone(offer.specs());
    Prompt {
        model: Arc::clone(&job.model),
        messages,
        tool_choice: if tools.is_empty() {
            ToolChoice::Auto
        } else {
            ask.tool_choice
        },
        tools,
        options: job.job.options.clone().unwrap_or_default(),
    }
}

/// The failure of a job whose runs died or failed too often.
#[must_use]
pub fn exhausted(max_attempts: u32) -> Failure {
    Failure::new(
        ErrorCode::AttemptsExhausted,
        format!(
            "the job's worker died, or the job failed, {max_attempts} times (CHAT_MAX_ATTEMPTS)"
        ),
    )
}

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::hygiene::{Repetition, repetition};
use super::limits::Limits;
use super::step::{Approval, Ask, Barred, Interrupted, Outcome, PendingCall, Step};
use crate::chat::{Answer, ToolCall, ToolChoice, ToolOutcome, Usage};
use crate::config::OnIterationLimit;
use crate::fault::{ErrorCode, Failure};
use crate::wire::{FinishReason, ReplyFormat};

/// What can be stored of a job.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A model summarised older turns for the job, before its first answer.
    Summarised {
        /// What that used.
        usage: Usage,
    },
    /// The model answered.
    Answered(Answer),
    /// A run began the call at this position of the last answer and died before it had its outcome.
    Interrupted {
        /// The call's place, from 1.
        position: u32,
        /// The server that it went to, if that was stored.
        server: Option<Arc<str>>,
    },
    /// The call at this position of the last answer needs a person's word before it is made.
    Held {
        /// The call's place, from 1.
        position: u32,
    },
    /// A person said that the call at this position may be made. (A denial is an outcome.)
    Approved {
        /// The call's place, from 1.
        position: u32,
    },
    /// The call at this position of the last answer came to an end.
    Returned {
        /// The call's place, from 1.
        position: u32,
        /// What it came to.
        outcome: ToolOutcome,
    },
}

/// An entry that cannot follow what is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalEntry {
    /// An answer while calls are unanswered, or after the last one allowed.
    #[error("an answer of the model does not fit here")]
    Answer,
    /// An outcome of a call that is not pending.
    #[error("call {position} has no outcome to wait for")]
    Outcome {
        /// The call's place, from 1.
        position: u32,
    },
}

/// One round: an answer and what its calls came to.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) answer: Answer,
    pub(super) calls: Vec<CallState>,
}

#[derive(Clone, Debug)]
pub(super) enum CallState {
    Pending {
        interrupted: Option<Interrupted>,
        approval: Approval,
    },
    Done(ToolOutcome),
    /// A person would not have it made.
    Denied(ToolOutcome),
}

/// A job's conversation so far.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub(super) limits: Limits,
    pub(super) format: Option<Arc<ReplyFormat>>,
    /// What summaries used. Boxed, since few jobs have any.
    beside: Option<Box<Usage>>,
    pub(super) rounds: Vec<Round>,
}

/// Sums over a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answers of the model.
    pub iterations: u32,
    /// Tool calls with an outcome.
    pub tool_calls: u32,
    /// What the model calls used.
    pub usage: Usage,
}

impl Conversation {
    /// The conversation that `entries` tell.
    ///
    /// # Errors
    /// An entry that cannot follow the ones before it: the log is damaged.
    pub fn resume(
        limits: Limits,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Self, IllegalEntry> {
        let start = Self {
            limits,
            format: None,
            beside: None,
            rounds: Vec::new(),
        };
        entries.into_iter().try_fold(start, Self::after)
    }

    /// The same conversation, in which replies have to be of `format`.
    #[must_use]
    pub fn expecting(self, format: Option<Arc<ReplyFormat>>) -> Self {
        Self { format, ..self }
    }

    /// What replies have to be.
    #[must_use]
    pub fn format(&self) -> Option<&ReplyFormat> {
        self.format.as_deref()
    }

    /// The conversation after `entry`: the only transition there is.
    ///
    /// # Errors
    /// The entry cannot follow what is there.
    pub fn after(mut self, entry: Entry) -> Result<Self, IllegalEntry> {
        match entry {
            Entry::Summarised { usage } => **self.beside.get_or_insert_default() += usage,
            Entry::Answered(answer) => {
                if self.rounds.last().is_some_and(|round| !round.is_answered()) {
                    return Err(IllegalEntry::Answer);
                }
                let pending = || CallState::Pending {
                    interrupted: None,
                    approval: Approval::NotAsked,
                };
                let calls = answer.tool_calls.iter().map(|_| pending()).collect();
                self.rounds.push(Round { answer, calls });
            }
            Entry::Interrupted { position, server } => {
                // It had been begun, so that it was approved where it had to be.
                *self.pending(position)? = CallState::Pending {
                    interrupted: Some(Interrupted { server }),
                    approval: Approval::Given,
                };
            }
            Entry::Held { position } => {
                *self.pending(position)? = CallState::Pending {
                    interrupted: None,
                    approval: Approval::Awaited,
                };
            }
            Entry::Approved { position } => {
                *self.pending(position)? = CallState::Pending {
                    interrupted: None,
                    approval: Approval::Given,
                };
            }
            Entry::Returned { position, outcome } => {
                let call = self.pending(position)?;
                *call = if call.is_awaited() {
                    CallState::Denied(outcome)
                } else {
                    CallState::Done(outcome)
                };
            }
        }
        Ok(self)
    }

    fn pending(&mut self, position: u32) -> Result<&mut CallState, IllegalEntry> {
        let index = usize::try_from(position)
            .ok()
            .and_then(|place| place.checked_sub(1));
        let call = self
            .rounds
            .last_mut()
            .zip(index)
            .and_then(|(round, index)| round.calls.get_mut(index));
        match call {
            Some(call @ CallState::Pending { .. }) => Ok(call),
            Some(CallState::Done(_) | CallState::Denied(_)) | None => {
                Err(IllegalEntry::Outcome { position })
            }
        }
    }

    /// What comes next. Asking changes nothing.
    #[must_use]
    pub fn next_step(&self, now: DateTime<Utc>) -> Step {
        if let Some(outcome) = self.ended() {
            return Step::Finish(outcome);
        }
        if self.limits.deadline.is_some_and(|deadline| deadline <= now) {
            return Step::Finish(Outcome::Failed(Failure::new(
                ErrorCode::DeadlineExceeded,
                "the job's deadline passed before it was done",
            )));
        }
        let pending = self.pending_calls();
        let totals = self.totals();
        let calls_left = self
            .limits
            .tool_calls
            .map(|budget| budget.saturating_sub(u64::from(totals.tool_calls)));
        let tokens_spent = self
            .limits
            .total_tokens
            .is_some_and(|budget| totals.usage.total_tokens >= budget);
        let money_spent = (self.limits.cost)
            .is_some_and(|budget| totals.usage.cost_usd.unwrap_or_default() >= budget);
        if tokens_spent || money_spent || (!pending.is_empty() && calls_left == Some(0)) {
            return Step::Finish(Outcome::unfinished(FinishReason::Budget));
        }
        if pending.is_empty() {
            return Step::AskModel(self.ask(totals.iterations + 1));
        }
        let most = calls_left.map_or(usize::MAX, |left| {
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        let (held, free): (Vec<_>, Vec<_>) = pending
            .into_iter()
            .take(most)
            .partition(|call| call.approval == Approval::Awaited);
        // What needs nobody's word is done first; a job that waits has nothing else to do.
        if free.is_empty() {
            Step::AwaitApproval(held)
        } else {
            Step::CallTools(free)
        }
    }

    fn ask(&self, iteration: u32) -> Ask {
        let wanted = self.limits.tool_choice;
        let is_last = iteration >= self.limits.max_iterations;
        let tool_choice = if is_last && self.answers_at_limit() {
            ToolChoice::None
        } else if wanted == ToolChoice::Required && iteration > 1 {
            ToolChoice::Auto
        } else {
            wanted
        };
        Ask {
            iteration,
            tool_choice,
        }
    }

    pub(super) fn answers_at_limit(&self) -> bool {
        self.limits.on_iteration_limit == OnIterationLimit::Answer
    }

    fn pending_calls(&self) -> Vec<PendingCall> {
        let Some(round) = self.rounds.last() else {
            return Vec::new();
        };
        let calls = round.answer.tool_calls.iter().zip(&round.calls).zip(1..);
        calls
            .filter_map(|((call, state), position)| match state {
                CallState::Pending {
                    interrupted,
                    approval,
                } => Some(PendingCall {
                    position,
                    call: call.clone(),
                    interrupted: interrupted.clone(),
                    barred: self.barred(call),
                    approval: *approval,
                }),
                CallState::Done(_) | CallState::Denied(_) => None,
            })
            .collect()
    }

    fn barred(&self, call: &ToolCall) -> Option<Barred> {
        if self.limits.tool_choice == ToolChoice::None {
            return Some(Barred::WithoutTools);
        }
        match repetition(&self.rounds, call) {
            Repetition::New => None,
            Repetition::Repeated | Repetition::Stubborn => Some(Barred::Repeated),
        }
    }

    /// Whether a run that died has left calls behind that nobody has dealt with yet.
    #[must_use]
    pub fn has_interrupted_calls(&self) -> bool {
        self.pending_calls()
            .iter()
            .any(|call| call.interrupted.is_some())
    }

    /// The places of the last answer's calls that wait for a person's word.
    #[must_use]
    pub fn held_calls(&self) -> Vec<u32> {
        let calls = self.pending_calls().into_iter();
        calls
            .filter(|call| call.approval == Approval::Awaited)
            .map(|call| call.position)
            .collect()
    }

    /// How many answers there are.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        u32::try_from(self.rounds.len()).unwrap_or(u32::MAX)
    }

    /// The last answer, if the model was asked.
    #[must_use]
    pub fn last_answer(&self) -> Option<&Answer> {
        self.rounds.last().map(|round| &round.answer)
    }

    /// Sums over all there is.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            iterations: self.iterations(),
            usage: self.beside.as_deref().copied().unwrap_or_default(),
            ..Totals::default()
        };
        for round in &self.rounds {
            totals.usage += round.answer.usage;
            let done = round.calls.iter().filter_map(CallState::outcome);
            totals.tool_calls += u32::try_from(done.count()).unwrap_or(u32::MAX);
        }
        totals
    }
}

impl Round {
    pub(super) fn is_answered(&self) -> bool {
        self.calls.iter().all(|call| call.outcome().is_some())
    }
}

impl CallState {
    /// What the model is told of it, when it is settled.
    pub(super) fn outcome(&self) -> Option<&ToolOutcome> {
        match self {
            Self::Done(outcome) | Self::Denied(outcome) => Some(outcome),
            Self::Pending { .. } => None,
        }
    }

    fn is_awaited(&self) -> bool {
        match self {
            Self::Pending { approval, .. } => *approval == Approval::Awaited,
            Self::Done(_) | Self::Denied(_) => false,
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

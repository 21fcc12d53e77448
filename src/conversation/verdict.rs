//! What the last answer means for its job.

use super::hygiene::{self, MAX_INVALID};
use super::state::{Conversation, Round};
use super::step::Outcome;
use crate::chat::{Answer, Stop, ToolChoice};
use crate::fault::{ErrorCode, Failure};
use crate::wire::FinishReason;

/// What follows an answer without a word in the prompt.
const NUDGE: &str = "Your last message was empty. Please answer, or call a tool.";

impl Conversation {
    /// How the job has ended, if its last answer ends it.
    pub(super) fn ended(&self) -> Option<Outcome> {
        let round = self.rounds.last()?;
        let answer = &round.answer;
        let is_last = self.iterations() >= self.limits.max_iterations;
        let without_tools = self.limits.tool_choice == ToolChoice::None;
        let has_text = answer.content.as_ref().is_some_and(|text| !text.is_empty());
        match answer.stop {
            Stop::ContentFilter => Some(Outcome::Failed(Failure::new(
                ErrorCode::ContentFiltered,
                "the provider's content filter stopped the answer",
            ))),
            Stop::Length => Some(completed(FinishReason::Length, answer)),
            Stop::Done if answer.refusal.is_some() => {
                Some(completed(FinishReason::Refused, answer))
            }
            Stop::Done if answer.tool_calls.is_empty() => {
                let goes_on = !is_last && self.is_sent_back(answer);
                (!goes_on).then(|| completed(FinishReason::Answered, answer))
            }
            // It was told to do without tools; what it says counts, what it calls does not.
            Stop::Done if has_text && (without_tools || (is_last && self.answers_at_limit())) => {
                Some(completed(FinishReason::Answered, answer))
            }
            Stop::Done if is_last || without_tools => {
                Some(Outcome::unfinished(FinishReason::IterationLimit))
            }
            Stop::Done if hygiene::goes_round_in_circles(&self.rounds) => {
                Some(Outcome::unfinished(FinishReason::IterationLimit))
            }
            Stop::Done if hygiene::went_wrong_too_often(&self.rounds) => {
                Some(Outcome::Failed(went_wrong(round)))
            }
            Stop::Done => None,
        }
    }

    /// Whether the model is asked again after its last answer, which has no calls.
    fn is_sent_back(&self, answer: &Answer) -> bool {
        let before = self
            .rounds
            .split_last()
            .map_or(&[][..], |(_, before)| before);
        let was_silent = || before.iter().any(|round| hygiene::is_silent(&round.answer));
        hygiene::is_silent(answer) && !was_silent()
    }

    /// What is odd about how the job ended, for people.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let Some(round) = self.rounds.last() else {
            return Vec::new();
        };
        let answer = &round.answer;
        let mut warnings = Vec::new();
        if hygiene::goes_round_in_circles(&self.rounds) {
            let name = answer.tool_calls.first().map(|call| call.name.as_str());
            warnings.push(format!(
                "the job was stopped: the model kept asking for the same call of {:?} with the same arguments",
                name.unwrap_or_default()
            ));
        }
        if hygiene::is_silent(answer) {
            warnings.push(match answer.stop {
                Stop::Length => "the model used its whole limit of output tokens without saying anything; raise options.max_output_tokens".to_owned(),
                Stop::Done | Stop::ContentFilter => "the model's answer was empty".to_owned(),
            });
        }
        warnings
    }
}

/// What the model is told after an answer that was not taken; none after one that asks for tools.
pub(super) fn told_after(round: &Round) -> Option<String> {
    hygiene::is_silent(&round.answer).then(|| NUDGE.to_owned())
}

fn completed(reason: FinishReason, answer: &Answer) -> Outcome {
    Outcome::Completed {
        reason,
        content: Some(answer.content.clone().unwrap_or_default()),
        refusal: answer.refusal.clone(),
    }
}

fn went_wrong(last: &Round) -> Failure {
    let name = last
        .answer
        .tool_calls
        .first()
        .map(|call| call.name.as_str());
    let text = format!(
        "the model asked {MAX_INVALID} times in a row only for tools that do not exist or with arguments that do not fit, the last time for {:?}; what it was told each time stands in chat.tool_calls",
        name.unwrap_or_default()
    );
    Failure::new(ErrorCode::ModelProtocol, text)
}

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
                (!goes_on).then(|| self.take(answer))
            }
            // It was told to do without tools; what it says counts, what it calls does not.
            Stop::Done if has_text && (without_tools || (is_last && self.answers_at_limit())) => {
                Some(self.take(answer))
            }
            Stop::Done if is_last => Some(Outcome::unfinished(FinishReason::IterationLimit)),
            Stop::Done if hygiene::goes_round_in_circles(&self.rounds) => {
                Some(Outcome::unfinished(FinishReason::IterationLimit))
            }
            // It asks for tools again and again that it may not use.
            Stop::Done if without_tools && hygiene::went_wrong_too_often(&self.rounds) => {
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
        // Each kind once: an answer without calls that was gone on from was sent back.
        let sent_back = |is_silent: bool| {
            let words = before.iter().filter(|round| round.calls.is_empty());
            let mut words = words.map(|round| hygiene::is_silent(&round.answer));
            words.any(|was_silent| was_silent == is_silent)
        };
        if hygiene::is_silent(answer) {
            return !sent_back(true);
        }
        self.misfit(answer).is_some() && !sent_back(false)
    }

    /// Why an answer in words is not what the job asks for, if it is not.
    fn misfit(&self, answer: &Answer) -> Option<String> {
        let content = answer.content.as_deref().unwrap_or_default();
        self.format.as_ref()?.misfit(content)
    }

    /// The end of a job with this answer in words.
    fn take(&self, answer: &Answer) -> Outcome {
        match self.misfit(answer) {
            None => completed(FinishReason::Answered, answer),
            Some(why) => Outcome::Failed(Failure::new(
                ErrorCode::ModelProtocol,
                format!(
                    "the model's reply is not what options.response_format asks for, after it was told so or without an iteration left: {why}"
                ),
            )),
        }
    }

    /// What the model is told after an answer that was not taken; none after one that asks for tools.
    pub(super) fn told_after(&self, round: &Round) -> Option<String> {
        if hygiene::is_silent(&round.answer) {
            return Some(NUDGE.to_owned());
        }
        if !round.calls.is_empty() {
            return None;
        }
        let why = self.misfit(&round.answer)?;
        Some(format!(
            "Your last message is not the JSON that was asked for: {why}\nPlease reply again, with that JSON and nothing around it."
        ))
    }

    /// What is odd about how the job ended, for people.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let Some(round) = self.rounds.last() else {
            return Vec::new();
        };
        let answer = &round.answer;
        let mut warnings = Vec::new();
        if self.rounds.iter().any(|round| round.answer.is_estimated) {
            let text = "the model's server counted no tokens; usage and cost are estimated from the length of what was said";
            warnings.push(text.to_owned());
        }
        if hygiene::goes_round_in_circles(&self.rounds) {
            let name = answer.tool_calls.first().map(|call| call.name.as_str());
            warnings.push(format!(
                "the job was stopped: the model kept asking for the same call of {:?} with the same arguments",
                name.unwrap_or_default()
            ));
        }
        let content = answer.content.as_deref().unwrap_or_default();
        let is_reply = answer.stop == Stop::Done && answer.refusal.is_none();
        if is_reply
            && answer.tool_calls.is_empty()
            && let Some(format) = &self.format
            && format.misfit(content).is_none()
            && format.read(content).is_err()
        {
            let text = "the reply is no JSON object, which options.response_format asks for";
            warnings.push(text.to_owned());
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

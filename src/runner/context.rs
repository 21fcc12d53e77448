//! How much of a conversation a prompt holds.

use std::sync::Arc;

use super::run::{JobInHand, Progress, Runner};
use crate::chat::{Prompt, PromptMessage, ToolChoice};
use crate::conversation::{Ask, Draft, Fitted, least, overhead};
use crate::fault::{ErrorCode, Failure};
use crate::model::{ModelError, Overflow, count_tokens};
use crate::tools::Offer;

/// What a run knows of its model's context beside what is configured.
#[derive(Default)]
pub(super) struct Context {
    sent: Option<Sent>,
    /// Tokens that a prompt may have by our own count, since the provider refused a longer one.
    learnt: Option<u64>,
    refused: Option<Refused>,
}

/// A prompt that was sent, tools and all, in tokens.
#[derive(Clone, Copy)]
struct Sent {
    iteration: u32,
    /// The most that it can have had.
    most: u64,
    /// What we counted, if it was counted.
    weight: Option<u64>,
    /// Whether nothing was left out.
    is_whole: bool,
}

struct Refused {
    iteration: u32,
    overflow: Overflow,
    /// What the job fails with if there is nothing to be cut.
    failure: Failure,
    is_cut: bool,
}

/// A model's context.
#[derive(Clone, Copy)]
pub(super) struct Window {
    /// Tokens of prompt and answer together.
    pub(super) tokens: u64,
    /// Of these, kept free for the answer.
    pub(super) reserve: u64,
    /// Whether it is said of the model itself, and not of how long conversations may grow.
    pub(super) is_certain: bool,
}

impl Window {
    /// Tokens that a prompt may have.
    pub(super) fn room(self) -> u64 {
        self.tokens.saturating_sub(self.reserve)
    }
}

impl Context {
    /// Whether the refusal of a prompt is one that a shorter prompt may cure. Once an iteration.
    pub(super) fn takes(&mut self, error: &ModelError, iteration: u32) -> bool {
        let before = self.refused.as_ref().map(|refused| refused.iteration);
        let Some(overflow) = error.overflow().filter(|_| before != Some(iteration)) else {
            return false;
        };
        self.refused = Some(Refused {
            iteration,
            overflow,
            failure: Failure::new(error.code(), error.to_string()),
            is_cut: false,
        });
        true
    }

    /// The next answer's count is of another prompt than the last one that was fitted here.
    pub(super) fn forget_sent(&mut self) {
        self.sent = None;
    }

    /// The refusal that the next prompt is an answer to.
    fn refusal(&mut self, iteration: u32) -> Option<(Overflow, Failure)> {
        let refused = self.refused.as_mut()?;
        (refused.iteration == iteration && !refused.is_cut).then(|| {
            refused.is_cut = true;
            (refused.overflow, refused.failure.clone())
        })
    }
}

impl Runner {
    /// The prompt of the next model call, cut to what its model takes.
    ///
    /// # Errors
    /// The provider refused a longer one, and there is nothing left to be cut.
    pub(super) async fn fitted(
        &self,
        (job, offer): (&JobInHand, &Offer),
        draft: Draft,
        progress: &mut Progress,
        ask: Ask,
    ) -> Result<Prompt, Failure> {
        let mut prompt = prompt(job, offer, ask);
        let overhead = overhead(&prompt);
        let window = self.window(job, &job.model);
        let most = draft.most() + overhead;
        let real = real_tokens(progress, ask);
        let context = &mut progress.context;
        let mut sent = Sent {
            iteration: ask.iteration,
            most,
            weight: None,
            is_whole: true,
        };
        let before = context
            .sent
            .filter(|sent| sent.iteration + 1 == ask.iteration);
        if let Some((overflow, failure)) = context.refusal(ask.iteration) {
            let last = context.sent.and_then(|sent| sent.weight);
            let reserve = window.map(|window| window.reserve);
            let (fitted, last, room) = counted(&job.model, draft, move |draft, count| {
                let last = last.unwrap_or_else(|| draft.weight(count) + overhead);
                let room = room_after(overflow, last, reserve);
                (draft.fit(room.saturating_sub(overhead), count), last, room)
            })
            .await;
            if fitted.weight + overhead >= last {
                return Err(failure);
            }
            context.learnt = Some(room);
            tracing::info!(
                tokens = fitted.weight + overhead,
                turns_left_out = fitted.turns_left_out,
                "the model takes less than was sent; asking again with less"
            );
            context.sent = Some(sent.cut(&fitted, overhead));
            prompt.messages = fitted.messages;
            return Ok(prompt);
        }
        let room = [window.map(Window::room), context.learnt]
            .into_iter()
            .flatten()
            .min();
        let known = before
            .zip(real)
            .and_then(|(before, real)| before.bound(most, real));
        let Some(room) = room.filter(|room| known.unwrap_or(most).min(most) > *room) else {
            context.sent = Some(sent);
            prompt.messages = draft.whole();
            return Ok(prompt);
        };
        let (fitted, least) = counted(&job.model, draft, move |draft, count| {
            let off = before.zip(real).map(|(before, real)| {
                let ours = before
                    .weight
                    .unwrap_or_else(|| draft.weight_before_last(count) + overhead);
                corrected(room, ours, real)
            });
            let fitted = draft.fit(off.unwrap_or(room).saturating_sub(overhead), count);
            // What was sent before is known to fit, however we count.
            let is_over = off.is_none() && fitted.weight + overhead > room;
            let least = is_over.then(|| least(&fitted.messages, count));
            (fitted, least)
        })
        .await;
        // Another model may take it.
        let is_alone = self.models.profile(&job.model).fallbacks.is_empty();
        let window = window.filter(|window| window.is_certain && is_alone);
        if let Some((window, least)) = window.zip(least)
            && least > window.tokens.saturating_add(window.tokens / 4)
        {
            return Err(too_long(&job.model, window.tokens, least));
        }
        if fitted.turns_left_out > 0 || fitted.is_trimmed {
            tracing::info!(
                tokens = fitted.weight + overhead,
                turns_left_out = fitted.turns_left_out,
                results_cut = fitted.is_trimmed,
                "the conversation is cut to the model's context"
            );
        }
        sent = sent.cut(&fitted, overhead);
        context.sent = Some(sent);
        prompt.messages = fitted.messages;
        Ok(prompt)
    }

    /// The context of a model that is asked for a job, if it is known.
    pub(super) fn window(&self, job: &JobInHand, model: &str) -> Option<Window> {
        let profile = self.models.profile(model);
        let tokens = u64::from(profile.context_window.or(self.jobs.context_tokens)?);
        let options = job.job.options.as_ref();
        let asked = options.and_then(|options| options.max_output_tokens);
        let reserve = match asked.or(profile.max_output_tokens) {
            // A limit that leaves nothing for the prompt is no plan.
            Some(most) => u64::from(most).min(tokens / 4 * 3),
            None => reserve_of(tokens),
        };
        Some(Window {
            tokens,
            reserve,
            is_certain: profile.context_window.is_some(),
        })
    }
}

/// What is said of a job that no cut makes short enough. Where the model's own tokenizer makes fewer tokens of it than ours, it may
/// still fit: so it has to be longer by a quarter.
fn too_long(model: &str, window: u64, least: u64) -> Failure {
    let text = format!(
        "the job alone is longer than the model takes: its messages have some {least} tokens, and the context_window of {model:?} is {window}; send less, or ask a model that takes more"
    );
    Failure::new(ErrorCode::ContextTooLong, text)
}

/// What is kept free for an answer of which nothing is said.
fn reserve_of(window: u64) -> u64 {
    /// More is rarely said.
    const MOST: u64 = 4096;
    (window / 16).min(MOST)
}

/// What the provider counted of the last prompt of this run.
fn real_tokens(progress: &Progress, ask: Ask) -> Option<u64> {
    let answer = progress.conversation.last_answer()?;
    let is_last = progress.conversation.iterations() + 1 == ask.iteration;
    let is_real = answer.usage.input_tokens > 0 && !answer.is_estimated;
    (is_last && is_real).then_some(answer.usage.input_tokens)
}

impl Sent {
    fn cut(self, fitted: &Fitted, overhead: u64) -> Self {
        Self {
            weight: Some(fitted.weight + overhead),
            is_whole: fitted.turns_left_out == 0 && !fitted.is_trimmed,
            ..self
        }
    }

    /// The most that a prompt can have that goes on from this one, of which the provider counted `real`
    /// tokens; none if that cannot be told.
    fn bound(self, most: u64, real: u64) -> Option<u64> {
        // A count that is far too small is none: some servers count nothing.
        let is_credible = real <= self.most && real >= self.most / 16;
        (self.is_whole && is_credible).then(|| real + most.saturating_sub(self.most))
    }
}

/// The room by our own count, where the provider counted `real` tokens of what were `ours`.
fn corrected(room: u64, ours: u64, real: u64) -> u64 {
    if real < ours / 2 {
        return room;
    }
    (room + ours).saturating_sub(real)
}

/// What a prompt may have by our own count, after one of `sent` was refused so.
pub(super) fn room_after(overflow: Overflow, sent: u64, reserve: Option<u64>) -> u64 {
    let half = sent / 2;
    let Some(limit) = overflow.limit else {
        return half;
    };
    let free = limit.saturating_sub(reserve.unwrap_or_else(|| reserve_of(limit)));
    let room = match overflow.prompt {
        // Their tokens in ours.
        Some(prompt) => free.saturating_mul(sent) / prompt.max(1),
        None => free,
    };
    // A little less, since no two counts are alike.
    let room = room / 20 * 19;
    if room < sent { room } else { half }
}

/// Has a draft counted off the runtime's threads: it may take long.
pub(super) async fn counted<T: Send + 'static>(
    model: &Arc<str>,
    draft: Draft,
    work: impl FnOnce(Draft, &dyn Fn(&str) -> u64) -> T + Clone + Send + 'static,
) -> T {
    let (name, copy, same) = (Arc::clone(model), draft.clone(), work.clone());
    let counting =
        tokio::task::spawn_blocking(move || same(copy, &|text| count_tokens(&name, text)));
    match counting.await {
        Ok(done) => done,
        // The runtime ends. What comes of this is not sent any more.
        Err(_ending) => work(draft, &|text| text.len() as u64),
    }
}

/// A prompt without its messages.
pub(super) fn prompt(job: &JobInHand, offer: &Offer, ask: Ask) -> Prompt {
    let tools = Arc::clone(offer.specs());
    Prompt {
        model: Arc::clone(&job.model),
        messages: Vec::<PromptMessage>::new(),
        tool_choice: if tools.is_empty() {
            ToolChoice::Auto
        } else {
            ask.tool_choice
        },
        tools,
        options: job.job.options.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(limit: Option<u64>, prompt: Option<u64>) -> Overflow {
        Overflow { limit, prompt }
    }

    #[test]
    fn after_a_refusal_there_is_less_room_than_was_used() {
        assert_eq!(room_after(said(None, None), 1000, None), 500);
        // Of a limit of 8000 there are 500 for the answer; a twentieth less.
        assert_eq!(room_after(said(Some(8000), None), 9000, None), 7125);
        assert_eq!(room_after(said(Some(8000), None), 9000, Some(4000)), 3800);
        // We counted a half of what they did.
        assert_eq!(room_after(said(Some(8000), Some(10_000)), 5000, None), 3553);
        // A limit that we thought we kept.
        assert_eq!(room_after(said(Some(8000), None), 5000, None), 2500);
        assert_eq!(room_after(said(Some(1), Some(5000)), 5000, None), 0);
    }

    #[test]
    fn the_providers_count_counts_if_it_can_be_one() {
        assert_eq!(corrected(1000, 800, 900), 900);
        assert_eq!(corrected(1000, 800, 700), 1100);
        assert_eq!(corrected(1000, 800, 9), 1000);
        assert_eq!(corrected(1000, 800, 5000), 0);
        let sent = Sent {
            iteration: 1,
            most: 4000,
            weight: None,
            is_whole: true,
        };
        assert_eq!(sent.bound(4100, 1000), Some(1100));
        assert_eq!(sent.bound(4100, 7), None);
        assert_eq!(sent.bound(4100, 5000), None);
    }
}

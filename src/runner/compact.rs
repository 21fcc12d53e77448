//! Older turns in fewer words, before a long conversation goes on.

use std::sync::Arc;

use super::context::{Window, counted, prompt};
use super::patience::insisting;
use super::permission::Permission;
use super::run::{JobInHand, Progress, Ran, Runner};
use crate::chat::{Answer, ModelOptions, Prompt, Stop, ToolChoice};
use crate::conversation::{Ask, Entry, History, Older, Opening, Summary, estimated, overhead};
use crate::model::Along;
use crate::store::{NewSummary, StoreError, Written};
use crate::tools::Offer;

/// The most tokens of a summary, thinking included; of a small context at most a quarter.
const MOST_TOKENS: u32 = 4096;

/// How a job begins.
pub(super) enum Beginning {
    /// So.
    With(Box<(Opening, Progress)>),
    /// It is somebody else's now.
    Over(Ran),
}

impl Runner {
    /// The opening of a job. If its prompt would pass four fifths of the context, the model is asked for
    /// a summary of the older turns first, which is stored and stands for them from now on.
    ///
    /// # Errors
    /// The database refuses for good.
    pub(super) async fn begin(
        &self,
        (job, offer): (&JobInHand, &Offer),
        system: &str,
        mut history: History,
        mut progress: Progress,
    ) -> Result<Beginning, StoreError> {
        let opening =
            |history: &History| Opening::new(system, history, &job.job, self.model_result_bytes);
        let first = opening(&history);
        let Some(older) = self
            .to_be_summarised((job, offer), &first, &history, &progress)
            .await
        else {
            return Ok(begun(first, progress));
        };
        if !self.holds_its_ground(job, &mut progress.gaps).await? {
            return Ok(Beginning::Over(Ran::Fenced));
        }
        if self.has_spent_the_day(job).await? {
            return Ok(begun(first, progress));
        }
        let Some(new) = Box::pin(self.summarise(job, &older, progress.gaps)).await else {
            return Ok(begun(first, progress));
        };
        let run = &job.claimed.run;
        let written = insisting!("summary", self.store, self.store.store_summary(run, &new))?;
        if written == Written::Fenced {
            return Ok(Beginning::Over(Ran::Fenced));
        }
        progress = progress.after(job, Entry::Summarised { usage: new.usage })?;
        // It was paid for, and there is no use in it.
        if new.summary.content.is_empty() {
            return Ok(begun(first, progress));
        }
        tracing::info!(
            up_to_turn = new.summary.up_to_turn,
            "older turns are summarised"
        );
        history
            .turns
            .retain(|turn| turn.number > new.summary.up_to_turn);
        history.summary = Some(new.summary);
        Ok(begun(opening(&history), progress))
    }

    /// The turns to be summarised, if it is time. Never once the model has been asked: what it has read
    /// stays as it is.
    async fn to_be_summarised(
        &self,
        (job, offer): (&JobInHand, &Offer),
        opening: &Opening,
        history: &History,
        progress: &Progress,
    ) -> Option<Older> {
        let Window {
            tokens, reserve, ..
        } = self.window(job, &job.model).filter(|_| self.jobs.compact)?;
        let window = tokens;
        if progress.conversation.iterations() > 0 || history.turns.is_empty() {
            return None;
        }
        let ask = Ask {
            iteration: 1,
            tool_choice: ToolChoice::Auto,
        };
        let overhead = overhead(&prompt(job, offer, ask));
        let draft = opening.with(&progress.conversation);
        // Before turns would have to be left out, where more than a fifth is kept for the answer.
        let four_fifths = (window / 5 * 4).min(window - reserve.min(window));
        if draft.most() + overhead <= four_fifths {
            return None;
        }
        let (history, result_bytes) = (history.clone(), self.model_result_bytes);
        counted(&job.model, draft, move |draft, count| {
            let is_long = draft.weight(count) + overhead > four_fifths;
            is_long
                .then(|| history.older(window, result_bytes, count))
                .flatten()
        })
        .await
    }

    /// Asks for a summary. None: there is none now, and the turns are left out instead.
    async fn summarise(&self, job: &JobInHand, older: &Older, gaps: u64) -> Option<NewSummary> {
        let quarter = self.window(job, &job.model).map(|window| window.tokens / 4);
        let most = quarter.and_then(|quarter| u32::try_from(quarter).ok());
        let options = ModelOptions {
            max_output_tokens: Some(most.unwrap_or(MOST_TOKENS).clamp(1, MOST_TOKENS)),
            ..ModelOptions::default()
        };
        let prompt = Prompt {
            model: Arc::clone(&job.model),
            messages: older.prompt(),
            tools: [].into(),
            tool_choice: ToolChoice::Auto,
            options: options.into(),
        };
        let deadline = self.deadline(job);
        let permission = Permission::new(self, job, &prompt, gaps);
        let along = Along {
            permit: Some(&permission),
            ..Along::default()
        };
        let answer = tokio::select! {
            biased;
            () = job.leash.wait() => return None,
            answer = self.model.complete_along(&prompt, deadline, along) => answer,
        };
        let mut answer: Answer = match answer {
            Ok(answer) => estimated(answer, &prompt),
            Err(error) => {
                tracing::warn!(
                    error.code = error.code().as_str(),
                    "no summary of the older turns; they are left out instead"
                );
                return None;
            }
        };
        permission.settle(&answer.usage);
        self.put_price_on(job, &mut answer);
        // One that was cut off stands for nothing, and is paid for all the same.
        let said = answer.content.filter(|_| answer.stop == Stop::Done);
        let content = said.unwrap_or_default().trim().to_owned();
        Some(NewSummary {
            summary: Summary {
                up_to_turn: older.up_to_turn,
                content,
            },
            model: answer.model,
            usage: answer.usage,
            is_estimated: answer.is_estimated,
            counts_for_user: self.jobs.user_daily_cost.is_some(),
            started_at: permission.begun().unwrap_or_else(|| self.clock.now()),
        })
    }
}

fn begun(opening: Opening, progress: Progress) -> Beginning {
    Beginning::With(Box::new((opening, progress)))
}

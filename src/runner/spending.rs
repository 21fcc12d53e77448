use super::patience::insisting;
use super::run::{JobInHand, Runner};
use crate::chat::Answer;
use crate::conversation::{Conversation, Outcome};
use crate::fault::{ErrorCode, Failure};
use crate::store::StoreError;
use crate::wire::FinishReason;

impl Runner {
    /// Notes what an answer cost. One that stood in has a price of its own.
    pub(super) fn put_price_on(&self, job: &JobInHand, answer: &mut Answer) {
        let asked = answer.asked.as_deref().unwrap_or(&job.model);
        let price = self.models.profile(asked).price;
        answer.usage.cost_usd = price.map(|price| answer.usage.at(price));
    }

    /// Whether the job's user has spent what a user may spend today.
    pub(super) async fn has_spent_the_day(&self, job: &JobInHand) -> Result<bool, StoreError> {
        let Some(most) = self.jobs.user_daily_cost else {
            return Ok(false);
        };
        let spent = insisting!("spent", self.store, self.store.spent_today(&job.user))?;
        Ok(spent >= most)
    }
}

impl Runner {
    /// What is said of a job that may spend so much money and whose model has no price.
    pub(super) fn unpriced(&self, job: &JobInHand) -> Option<String> {
        let limits = job
            .job
            .budget
            .is_some_and(|budget| budget.cost_usd.is_some());
        let is_unpriced = self.models.profile(&job.model).price.is_none();
        (limits && is_unpriced).then(|| {
            format!(
                "the price of {:?} is not known here; budget.cost_usd was not kept",
                job.model
            )
        })
    }
}

/// How a job ends whose user has spent it all: one that has begun keeps what it has.
pub(super) fn day_is_spent(conversation: &Conversation) -> Outcome {
    if conversation.iterations() > 0 {
        return Outcome::unfinished(FinishReason::Budget);
    }
    Outcome::Failed(Failure::new(
        ErrorCode::BudgetExceeded,
        "the user has spent what a user may spend in one UTC day; try again tomorrow, or have CHAT_USER_DAILY_COST raised",
    ))
}

use std::time::Duration;

use futures_util::future::join_all;

use super::run::{JobInHand, Runner};
use crate::chat::{OutcomeStatus, ToolOutcome};
use crate::clock::Deadline;
use crate::conversation::PendingCall;
use crate::escape::armour_text;
use crate::fault::{ErrorCode, Failure};
use crate::store::{NewResult, RouteOf};
use crate::tools::{CallMeta, Invocation, Offer, RetryClass};

/// Calls of one answer that run at the same time.
const AT_ONCE: usize = 16;
/// Results of safe calls that took less than this together may wait for the next entry to be
/// stored with it: to lose them costs less than the commit.
const CHEAP: Duration = Duration::from_millis(250);

/// What came of the calls of an answer.
pub(super) struct Called {
    pub(super) results: Vec<NewResult>,
    /// Whether they may be stored with the next entry instead of at once.
    pub(super) may_wait: bool,
}

impl Runner {
    /// Makes the calls together; their results come in the order of the calls.
    ///
    /// # Errors
    /// A call was interrupted whose tool is configured to fail the job then.
    pub(super) async fn call_tools(
        &self,
        job: &JobInHand,
        offer: &Offer,
        calls: &[PendingCall],
        iteration: u32,
    ) -> Result<Called, Failure> {
        let class =
            |call: &PendingCall| offer.find(&call.call.name).map(crate::tools::Route::retry);
        if let Some(call) = calls
            .iter()
            .find(|call| call.interrupted && class(call) == Some(RetryClass::Fail))
        {
            return Err(Failure::new(
                ErrorCode::ToolsUnavailable,
                format!(
                    "the call of tool {:?} was under way when its worker died, its outcome is unknown, and its server is configured with on_interrupt=fail",
                    call.call.name
                ),
            ));
        }
        let started = tokio::time::Instant::now();
        let mut results = Vec::with_capacity(calls.len());
        for together in calls.chunks(AT_ONCE) {
            let calls = together
                .iter()
                .map(|call| self.call_tool(job, offer, call, iteration));
            results.extend(join_all(calls).await);
        }
        // A call that no tool answers has no effect: it is safe too.
        let safe = calls
            .iter()
            .all(|call| class(call).is_none_or(|class| class == RetryClass::Safe));
        Ok(Called {
            results,
            may_wait: safe && started.elapsed() < CHEAP,
        })
    }

    async fn call_tool(
        &self,
        job: &JobInHand,
        offer: &Offer,
        call: &PendingCall,
        iteration: u32,
    ) -> NewResult {
        let started_at = self.clock.now();
        let class = offer.find(&call.call.name).map(crate::tools::Route::retry);
        let unsafe_to_repeat = matches!(class, Some(RetryClass::Tell | RetryClass::Fail));
        let outcome = if call.interrupted && unsafe_to_repeat {
            unknown_outcome()
        } else {
            let run = &job.claimed.run;
            let key = format!("{}/{iteration}/{}", run.job_id, call.position);
            let invocation = Invocation {
                tool: &call.call.name,
                arguments: &call.call.arguments,
                meta: CallMeta {
                    job_id: run.job_id,
                    user_id: &job.user,
                    conversation_id: run.conversation_id,
                    idempotency_key: &key,
                },
                deadline: self.deadline(job),
            };
            self.tools.call(offer, &invocation).await
        };
        NewResult {
            iteration,
            position: call.position,
            outcome,
            started_at,
            finished_at: self.clock.now(),
        }
    }

    /// When the job is out of time; far away if it has no deadline.
    pub(super) fn deadline(&self, job: &JobInHand) -> Deadline {
        let left = job.job.deadline.map_or(Duration::MAX, |deadline| {
            (deadline - self.clock.now()).to_std().unwrap_or_default()
        });
        Deadline::after(left)
    }
}

fn unknown_outcome() -> ToolOutcome {
    let text = "This call was interrupted: whether it had its effect is unknown. Check before you repeat it.";
    ToolOutcome {
        status: OutcomeStatus::Interrupted,
        text: text.to_owned(),
        bytes: 0,
    }
}

/// Where each call of an answer goes, for the record.
pub(super) fn routes(offer: &Offer, names: impl Iterator<Item = impl AsRef<str>>) -> Vec<RouteOf> {
    names
        .map(|name| match offer.find(name.as_ref()) {
            Some(route) => RouteOf {
                server: Some(route.server().to_owned()),
                tool: armour_text(route.tool()).into_owned(),
            },
            None => RouteOf {
                server: None,
                tool: name.as_ref().to_owned(),
            },
        })
        .collect()
}

use std::sync::Arc;

use super::calls::named;
use super::run::{Flow, JobInHand, Progress, Ran, Runner};
use crate::chat::{OutcomeStatus, ToolOutcome};
use crate::conversation::{Approval, Entry, PendingCall, Step};
use crate::runner::insisting;
use crate::store::{Approvals, NewResult, StoreError, Word, WordOn, Written};
use crate::tools::{Offer, Route};
use crate::wire::{Happening, WaitReason};

/// Calls that need a person's word.
impl Runner {
    /// What comes next. Calls whose tools need a person's word are held from here on, whatever the
    /// configuration says later.
    pub(super) fn next_step(
        &self,
        job: &JobInHand,
        offer: &Offer,
        mut progress: Progress,
    ) -> Result<(Progress, Step), StoreError> {
        let now = self.clock.now();
        let step = progress.conversation.next_step(now);
        let Step::CallTools(calls) = &step else {
            return Ok((progress, step));
        };
        let held = to_hold(offer, calls);
        if held.is_empty() {
            return Ok((progress, step));
        }
        for position in held {
            progress = progress.after(job, Entry::Held { position })?;
        }
        let step = progress.conversation.next_step(now);
        Ok((progress, step))
    }

    /// Goes on with calls that are decided; else parks the job until they are, and holds no slot
    /// meanwhile.
    ///
    /// # Errors
    /// The database refuses for good.
    pub(super) async fn await_approval(
        &self,
        job: &JobInHand,
        offer: &Offer,
        calls: &[PendingCall],
        mut progress: Progress,
    ) -> Result<Flow, StoreError> {
        if !progress.unsaved.is_empty()
            && self.append(job, &mut progress, None).await? == Written::Fenced
        {
            return Ok(Flow::Over(Ran::Fenced));
        }
        let run = &job.claimed.run;
        let iteration = progress.conversation.iterations();
        let places: Vec<_> = calls.iter().map(|call| call.position).collect();
        let timeout = self.jobs.approval_timeout;
        let waiting = job.events.said() + 1;
        let settled = insisting!(
            "approvals",
            self.store,
            self.store
                .settle_approvals(run, iteration, &places, timeout, waiting)
        )?;
        let words = match settled {
            Approvals::Decided(words) => words,
            Approvals::Awaited { positions, until } => {
                tracing::info!(calls = positions.len(), "the job waits for approval");
                let waits = |call: &&PendingCall| positions.contains(&call.position);
                let named = |call| named(offer, call, iteration);
                job.events.say(|| Happening::JobWaiting {
                    reason: WaitReason::Approval,
                    due_at: Some(until),
                    calls: calls.iter().filter(waits).map(named).collect(),
                    error: None,
                });
                return Ok(Flow::Over(Ran::Parked));
            }
            Approvals::Fenced => return Ok(Flow::Over(Ran::Fenced)),
        };
        for WordOn { position, word } in words {
            let Some(outcome) = refusal(word) else {
                progress = progress.after(job, Entry::Approved { position })?;
                continue;
            };
            let now = self.clock.now();
            progress.unsaved.push(NewResult {
                iteration,
                position,
                outcome: outcome.clone(),
                started_at: now,
                finished_at: now,
            });
            progress = progress.after(job, Entry::Returned { position, outcome })?;
        }
        Ok(Flow::GoOn(progress))
    }
}

/// The places of the calls that are not to be made before a person says so. One that a run had begun
/// was allowed then, and one that is not made needs nobody's word.
fn to_hold(offer: &Offer, calls: &[PendingCall]) -> Vec<u32> {
    let needs = |call: &&PendingCall| {
        call.approval == Approval::NotAsked
            && call.barred.is_none()
            && offer
                .find(&call.call.name)
                .is_some_and(Route::needs_approval)
    };
    calls
        .iter()
        .filter(needs)
        .map(|call| call.position)
        .collect()
}

/// What the model is told of a call that is not made; none of one that is.
fn refusal(word: Word) -> Option<ToolOutcome> {
    let text = match word {
        Word::Approved => return None,
        Word::Denied { reason } => {
            let reason = reason.filter(|reason| !reason.trim().is_empty());
            let because = reason.map_or(String::new(), |reason| format!(" The reason: {reason}"));
            format!("A person denied this call, so it was not made.{because}")
        }
        Word::Expired { at } => format!(
            "Nobody approved this call in time (by {}), so it was not made.",
            at.format("%Y-%m-%d %H:%M:%S UTC")
        ),
    };
    Some(ToolOutcome {
        status: OutcomeStatus::Refused,
        bytes: u64::try_from(text.len()).unwrap_or(u64::MAX),
        media: Arc::default(),
        text,
    })
}

/// The places of the calls that leave at once. One that nobody offers does not: should it be looked at
/// again by a worker that knows the tool, it has not begun, and needs a person's word where the tool does.
pub(super) fn starting(offer: &Offer, next: &Step) -> Vec<u32> {
    match next {
        Step::CallTools(calls) => calls
            .iter()
            .filter(|call| call.barred.is_none() && offer.find(&call.call.name).is_some())
            .map(|call| call.position)
            .collect(),
        Step::AskModel(_) | Step::AwaitApproval(_) | Step::Finish(_) => Vec::new(),
    }
}

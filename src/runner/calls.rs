use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::Instant;

use super::leash::Halt;
use super::run::{Flow, JobInHand, Progress, Ran, Runner, millis};
use crate::chat::{OutcomeStatus, ToolOutcome};
use crate::clock::Deadline;
use crate::config::OnInterrupt;
use crate::conversation::{Entry, Outcome, PendingCall, not_made};
use crate::escape::armour_text;
use crate::fault::{ErrorCode, Failure};
use crate::store::{NewResult, RouteOf, StoreError, Written};
use crate::tools::{
    CallMeta, Invocation, Listener, Offer, RetryClass, Route, Selection, ToolProgress, Toolbox,
};
use crate::wire::{EventCall, Happening, Job};

/// Calls of one answer that run at the same time.
const AT_ONCE: usize = 16;
/// Results of safe calls that took less than this together may wait for the next entry to be
/// stored with it: to lose them costs less than the commit.
const CHEAP: Duration = Duration::from_millis(250);

/// Results that are there while other calls go on are stored after this long: a tool that is slow
/// must not put what others did at risk.
const GATHER: Duration = Duration::from_millis(100);

impl Runner {
    /// Makes the calls together and stores what they come to. A run that is to stop leaves the
    /// calls that are under way; what has come back is kept.
    ///
    /// # Errors
    /// The database refuses for good.
    pub(super) async fn call_tools(
        &self,
        job: &JobInHand,
        offer: &Offer,
        calls: &[PendingCall],
        mut progress: Progress,
    ) -> Result<Flow, StoreError> {
        if let Some(failure) = forbidden_repeat(&self.tools, offer, calls) {
            let failed = self.finish(job, progress, None, Outcome::Failed(failure));
            return Ok(Flow::Over(Box::pin(failed).await?));
        }
        let (iteration, gaps) = (progress.conversation.iterations(), progress.gaps);
        let started = Instant::now();
        // Made before they are polled: a stream that maps over borrowed calls is not `Send`.
        let calling: Vec<_> = calls
            .iter()
            .map(|call| self.call_tool(job, offer, call, (iteration, gaps)))
            .collect();
        let mut running = stream::iter(calling).buffer_unordered(AT_ONCE);
        // Results of the entry before may be waiting too; these gather from their own first.
        let mut store_at = None;
        loop {
            let due = async {
                match store_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let returned = tokio::select! {
                biased;
                () = job.leash.wait() => return Ok(Flow::GoOn(progress)),
                returned = running.next() => returned,
                () = due => {
                    store_at = None;
                    if Box::pin(self.append(job, &mut progress, None)).await? == Written::Fenced {
                        return Ok(Flow::Over(Ran::Fenced));
                    }
                    continue;
                }
            };
            let Some(result) = returned else { break };
            let (position, outcome) = (result.position, result.outcome.clone());
            progress = progress.after(job, Entry::Returned { position, outcome })?;
            progress.unsaved.push(result);
            store_at.get_or_insert_with(|| Instant::now() + GATHER);
        }
        // A call that no tool answers has no effect: it is safe too.
        let is_safe = |call| class(offer, call).is_none_or(|class| class == RetryClass::Safe);
        let may_wait = calls.iter().all(is_safe) && started.elapsed() < CHEAP;
        if !may_wait
            && !progress.unsaved.is_empty()
            && Box::pin(self.append(job, &mut progress, None)).await? == Written::Fenced
        {
            return Ok(Flow::Over(Ran::Fenced));
        }
        Ok(Flow::GoOn(progress))
    }

    async fn call_tool(
        &self,
        job: &JobInHand,
        offer: &Offer,
        call: &PendingCall,
        (iteration, gaps): (u32, u64),
    ) -> NewResult {
        let started_at = self.clock.now();
        let named = || named(offer, call, iteration);
        // A tool whose server is away now may have done something then.
        let is_safe = class(offer, call) == Some(RetryClass::Safe);
        let outcome = if let Some(barred) = call.barred {
            refused(not_made(&call.call, barred))
        } else if call.interrupted.is_some() && !is_safe {
            unknown_outcome()
        } else {
            self.hold_ground_or_halt(job, gaps).await;
            let run = &job.claimed.run;
            let key = format!("{}/{iteration}/{}", run.job_id, call.position);
            let tell = |said: ToolProgress| {
                job.events.say(|| Happening::ToolProgress {
                    call: named(),
                    progress: said.progress,
                    total: said.total,
                    message: said.message,
                });
            };
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
                listener: Some(Listener(&tell)),
            };
            job.events.say(|| Happening::ToolStarted { call: named() });
            self.tools.call(offer, &invocation).await
        };
        let finished_at = self.clock.now();
        job.events.say(|| Happening::ToolFinished {
            call: named(),
            status: outcome.status,
            bytes: outcome.bytes,
            duration_ms: millis(started_at, finished_at),
        });
        NewResult {
            iteration,
            position: call.position,
            outcome,
            started_at,
            finished_at,
        }
    }

    /// Waits until a call may be begun; if the job is not this run's any more, the run stops instead.
    async fn hold_ground_or_halt(&self, job: &JobInHand, mut gaps: u64) {
        let holds = self.holds_its_ground(job, &mut gaps).await;
        if !holds.is_ok_and(|holds| holds) {
            job.leash.pull(Halt::GiveBack);
            std::future::pending::<()>().await;
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

/// A call, as events name it.
pub(super) fn named(offer: &Offer, call: &PendingCall, iteration: u32) -> EventCall {
    let name = &call.call.name;
    EventCall {
        iteration,
        position: call.position,
        call_id: call.call.call_id.clone(),
        tool: name.clone(),
        server: offer.find(name).map(|route| route.server().to_owned()),
    }
}

fn class(offer: &Offer, call: &PendingCall) -> Option<RetryClass> {
    offer.find(&call.call.name).map(Route::retry)
}

/// Why the job fails, if one of the calls was interrupted and its tool is configured so.
fn forbidden_repeat(tools: &Toolbox, offer: &Offer, calls: &[PendingCall]) -> Option<Failure> {
    let call = calls.iter().find(|call| {
        let Some(interrupted) = call.interrupted.as_ref().filter(|_| call.barred.is_none()) else {
            return false;
        };
        match class(offer, call) {
            Some(class) => class == RetryClass::Fail,
            // Its server is away now.
            None => (interrupted.server.as_deref())
                .is_some_and(|server| tools.on_interrupt(server) == Some(OnInterrupt::Fail)),
        }
    })?;
    Some(Failure::new(
        ErrorCode::ToolsUnavailable,
        format!(
            "the call of tool {:?} was under way when its worker stopped, its outcome is unknown, and its server is configured with on_interrupt=fail",
            call.call.name
        ),
    ))
}

fn unknown_outcome() -> ToolOutcome {
    let text = "This call was interrupted: whether it had its effect is unknown. Check before you repeat it.";
    ToolOutcome {
        status: OutcomeStatus::Interrupted,
        text: text.to_owned(),
        bytes: 0,
        media: Arc::default(),
    }
}

fn refused(text: String) -> ToolOutcome {
    ToolOutcome {
        status: OutcomeStatus::Refused,
        bytes: text.len() as u64,
        text,
        media: std::sync::Arc::default(),
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

/// Which tools a job wants.
pub(super) fn selection(job: &Job) -> Selection<'_> {
    job.tools
        .as_ref()
        .map_or_else(Selection::default, |tools| Selection {
            servers: tools.servers.as_deref(),
            allow: &tools.allow,
            deny: &tools.deny,
        })
}

use std::time::Duration;

use super::Worker;
use super::outgoing::{self, Kind};
use crate::broker::{Address, Outgoing, PublishError};
use crate::crash::{self, Act};
use crate::escape::disarm_text;
use crate::fault::Fault;
use crate::meter;
use crate::store::{Next, StoredResult};

/// Names under which the broker keeps the requesters of direct reply-to.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to.";
/// How long a message on the side is tried.
const ERRAND: Duration = Duration::from_mins(10);
/// How long a result is tried before the sweep may try it: less than a job's row says.
const LEASE: Duration = Duration::from_secs(25);
/// How long a producer's own queue is tried while the broker confirms what others publish.
const INBOX: Duration = Duration::from_secs(15);
/// How often a queue of somebody else may refuse a message (it is full) before it is given up.
const REFUSALS: u8 = 3;
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// Where a result can go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// To the queue that the producer named; if it is gone or takes nothing, to the results queue.
    Inbox(String),
    /// To a requester of direct reply-to; if it is gone, to the results queue.
    Direct(String),
    /// To the results queue, naming the queue that the producer wanted and may not have.
    NotAllowed(String),
    /// To the results queue.
    Results,
}

impl Worker {
    /// Publishes a job's result until the broker has confirmed it, and marks it then. What is not
    /// confirmed in time is left to the sweep.
    pub(super) async fn publish_result(&self, stored: &StoredResult) {
        let job = stored.result.job_id;
        crash::before(Act::PublishResult);
        match tokio::time::timeout(LEASE, self.deliver(stored, Kind::OfJob)).await {
            Ok(Ok(())) => {
                crash::after(Act::PublishResult);
                if !stored.is_copy {
                    self.0.marks.confirmed(job).await;
                }
            }
            Ok(Err(error)) => {
                tracing::error!(job.id = %job, %error, "a result is stored and not published");
            }
            Err(_elapsed) => {
                tracing::warn!(job.id = %job, "a result is stored and not published yet");
            }
        }
    }

    /// Tells the sender of one delivery what became of it.
    ///
    /// # Errors
    /// The broker never confirmed it, and never will.
    pub(super) async fn deliver(
        &self,
        stored: &StoredResult,
        kind: Kind,
    ) -> Result<(), PublishError> {
        let results = || Address::Queue(self.0.broker.names().results.clone());
        let to_results = |wanted: &str| {
            outgoing::result(stored, kind, results()).with_header("x-chat-reply-to", wanted)
        };
        match self.way(stored.reply_to.as_deref()) {
            Way::Results => {
                self.try_hard(outgoing::result(stored, kind, results()))
                    .await
            }
            Way::NotAllowed(wanted) => self.try_hard(to_results(&wanted)).await,
            Way::Inbox(name) => {
                let message = outgoing::result(stored, kind, Address::Queue(name.clone()));
                match tokio::time::timeout(INBOX, self.try_hard(message)).await {
                    Ok(Err(PublishError::Unroutable { .. } | PublishError::Refused { .. })) => {}
                    Ok(sent) => return sent,
                    // Not its fault: the broker takes nothing of anybody.
                    Err(_elapsed) if !self.0.broker.health().publishing => {
                        return Err(PublishError::Timeout { after: INBOX });
                    }
                    Err(_elapsed) => {}
                }
                tracing::warn!(
                    to = name,
                    "a producer's queue takes no result; it goes to the results queue"
                );
                self.try_hard(to_results(&name)).await
            }
            Way::Direct(name) => {
                // Such a message is delivered and returned as well, so its confirm says nothing.
                let message = outgoing::result(stored, kind, Address::Queue(name.clone()));
                let there = self.0.publisher.queue_exists(&name).await.unwrap_or(false);
                if there && self.try_hard(message.may_get_lost()).await.is_ok() {
                    return Ok(());
                }
                self.try_hard(to_results(&name)).await
            }
        }
    }

    /// Tells the sender in its own queue, or not at all.
    pub(super) async fn deliver_to_inbox_alone(&self, stored: &StoredResult) {
        let sent = match self.way(stored.reply_to.as_deref()) {
            Way::Results | Way::NotAllowed(_) => return,
            Way::Inbox(name) => {
                let to = Address::Queue(name);
                self.try_hard(outgoing::result(stored, Kind::Refusal, to))
                    .await
            }
            Way::Direct(name) => {
                let to = Address::Queue(name);
                self.try_hard(outgoing::result(stored, Kind::Refusal, to).may_get_lost())
                    .await
            }
        };
        if let Err(error) = sent {
            tracing::info!(%error, "a sender could not be told that its message is refused");
        }
    }

    fn way(&self, reply_to: Option<&str>) -> Way {
        let Some(name) = reply_to.filter(|name| !name.is_empty()) else {
            return Way::Results;
        };
        let name = disarm_text(name).into_owned();
        if !self.0.config.broker.reply_to_allow.is_match(&name) {
            Way::NotAllowed(name)
        } else if name.starts_with(DIRECT_REPLY_TO) {
            Way::Direct(name)
        } else {
            Way::Inbox(name)
        }
    }

    /// Sends the wake-up of a job that is marked, on the side.
    pub(super) fn wake(&self, next: Next) {
        meter::dispatched();
        let message = outgoing::wake_up(self.0.broker.names(), next);
        self.errand(Act::PublishWakeUp, message);
    }

    /// Publishes on the side: what is published waits for nobody's slot. A wake-up or the copy of a
    /// dead letter that does not get out is no loss, since rows say the same.
    pub(super) fn errand(&self, act: Act, message: Outgoing) {
        let worker = self.clone();
        self.0.errands.spawn(async move {
            crash::before(act);
            if tokio::time::timeout(ERRAND, worker.insist(message))
                .await
                .is_err()
            {
                tracing::warn!("a message on the side was given up; rows say what it says");
            }
            crash::after(act);
        });
    }

    /// Publishes until it is confirmed; gives up when the worker stops, or when it never will be.
    async fn insist(&self, message: Outgoing) {
        if let Err(error) = self.try_hard(message).await {
            tracing::error!(%error, "a message was not published; what it says is stored");
        }
    }

    /// Publishes until it is confirmed or the address turns out to be none.
    async fn try_hard(&self, message: Outgoing) -> Result<(), PublishError> {
        let names = self.0.broker.names();
        let ours = [&names.results, &names.jobs, &names.jobs_dead];
        let is_ours = matches!(&message.to, Address::Queue(name) if ours.contains(&name));
        let mut pause = FIRST;
        let mut refusals = 0;
        loop {
            let error = match self.0.publisher.publish(message.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            refusals += u8::from(matches!(error, PublishError::Refused { .. }));
            let gone = !is_ours
                && (matches!(error, PublishError::Unroutable { .. }) || refusals >= REFUSALS);
            match error.fault() {
                Fault::Retry { .. } if !gone => {}
                Fault::Retry { .. } | Fault::Permanent | Fault::Cancelled => return Err(error),
            }
            tracing::warn!(%error, "a message was not confirmed; trying again");
            if let PublishError::Unroutable { .. } = error
                && let Err(error) = self.0.broker.declare_again().await
            {
                tracing::warn!(%error, "the queues could not be declared again");
            }
            tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST);
        }
    }
}

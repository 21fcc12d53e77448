use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::delivery::PAUSE;
use super::outgoing::Original;
use crate::broker::Delivery;
use crate::fault::{ErrorCode, Failure};
use crate::runner::insisting;
use crate::store::{Cancelled, Ruling, StoreError};
use crate::wire::{Control, decode_control};

/// Control messages that the broker sends ahead.
const AHEAD: u16 = 32;

impl Worker {
    /// Does what control messages ask for, until `stop`.
    pub(super) async fn obey(self, stop: CancellationToken) {
        let mut intake = self.0.broker.control(AHEAD);
        let turns = self.0.loops.control.clone();
        while let Some(Some(delivery)) = stop
            .run_until_cancelled(turns.awaiting(intake.next()))
            .await
        {
            // On the side: one job whose row somebody has locked must not hold up the others.
            let worker = self.clone();
            self.0
                .errands
                .spawn(async move { worker.obey_one(delivery).await });
        }
        intake.stop().await;
    }

    async fn obey_one(&self, mut delivery: Delivery) {
        let original = Original {
            body: Bytes::from(std::mem::take(&mut delivery.body)),
            properties: std::mem::take(&mut delivery.properties),
        };
        let done = match decode_control(&original.body, self.0.config.jobs.max_job_bytes) {
            Ok(control) => self.control(control, delivery.redelivered).await,
            Err(failure) => Ok(Err(failure)),
        };
        let kept = match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => self.refuse_control(&original, failure).await,
            // What the database cannot take it cannot take tomorrow either.
            Err(error) => {
                let text = format!("it cannot be obeyed: {error}");
                let failure = Failure::new(ErrorCode::InvalidJob, text);
                self.refuse_control(&original, failure).await
            }
        };
        match kept {
            Ok(()) => delivery.ack(),
            Err(error) => {
                tracing::error!(%error, "a control message cannot be stored; it goes back to the broker");
                tokio::time::sleep(PAUSE).await;
                delivery.requeue();
            }
        }
    }

    /// Does what `control` says; `again` if the broker may have brought it before.
    async fn control(
        &self,
        control: Control,
        again: bool,
    ) -> Result<Result<(), Failure>, StoreError> {
        match control {
            Control::Cancel {
                job_id,
                reason,
                user_id,
            } => {
                let (why, user) = (reason.as_deref(), user_id.as_deref());
                let done = insisting!(
                    "cancel",
                    self.0.store,
                    self.0.store.request_cancel(job_id, why, user)
                )?;
                tracing::info!(job.id = %job_id, outcome = ?done, "a job is called off");
                Ok(match done {
                    Cancelled::Requested | Cancelled::Finished | Cancelled::Kept => Ok(()),
                    Cancelled::Forbidden => Err(Failure::new(
                        ErrorCode::Unauthorized,
                        "/user_id: the job belongs to another user",
                    )),
                })
            }
            Control::Approve {
                job_id,
                call_id,
                by,
                reason,
            } => {
                let (call, by, reason) = (&*call_id, by.as_deref(), reason.as_deref());
                let ruling = Ruling {
                    job: job_id,
                    call,
                    approves: true,
                    by,
                    reason,
                };
                self.rule(ruling, again).await
            }
            Control::Deny {
                job_id,
                call_id,
                by,
                reason,
            } => {
                let (call, by, reason) = (&*call_id, by.as_deref(), reason.as_deref());
                let ruling = Ruling {
                    job: job_id,
                    call,
                    approves: false,
                    by,
                    reason,
                };
                self.rule(ruling, again).await
            }
        }
    }

    async fn rule(
        &self,
        ruling: Ruling<'_>,
        mut again: bool,
    ) -> Result<Result<(), Failure>, StoreError> {
        let decided = insisting!("decide", self.0.store, {
            // A try that was not answered may have been obeyed.
            let again = std::mem::replace(&mut again, true);
            self.0.store.decide(ruling, again)
        })?;
        let (job, approves) = (ruling.job, ruling.approves);
        tracing::info!(job.id = %job, approves, outcome = ?decided, "a person says whether a call may be made");
        Ok(match decided.complaint() {
            None => Ok(()),
            Some((field, text)) => Err(Failure::new(
                ErrorCode::InvalidJob,
                format!("/{field}: {text}"),
            )),
        })
    }
}

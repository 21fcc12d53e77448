use std::time::Duration;

use tokio::time::timeout;

use super::Worker;
use super::outgoing::{self, Kind, Original};
use crate::crash::Act;
use crate::escape::armour_text;
use crate::fault::{ErrorCode, Failure};
use crate::ids::JobId;
use crate::meter;
use crate::runner::insisting;
use crate::store::{DeadLetter, StoreError, StoredResult};
use crate::wire::{JobResult, Refused, ResultError, Status};

/// How long a delivery waits until its sender was told. Then it is acknowledged, and the sender is told on
/// the side: whoever names a queue that takes nothing must not hold a slot with it.
const TELLING: Duration = Duration::from_secs(2);
/// How long it is tried in all.
const TOLD: Duration = Duration::from_mins(1);

/// Who is told of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Whoever waits: the sender's queue, else the results queue.
    Sender,
    /// The sender's own queue and no other: the job's result is somebody else's.
    ReplyToAlone,
    /// Nobody can be.
    Nobody,
}

impl Worker {
    /// Keeps a delivery that is not taken in: a row, a copy in the dead letters' queue, and a
    /// result for a sender who can be told.
    ///
    /// # Errors
    /// The database refuses for good; the delivery must not be acknowledged then.
    pub(super) async fn refuse(
        &self,
        original: &Original,
        refused: &Refused,
        job_id: JobId,
    ) -> Result<(), StoreError> {
        let failure = &refused.failure;
        tracing::info!(job.id = %job_id, error.code = %failure.code, "a message is refused");
        self.bury(original, failure, Some(job_id)).await?;
        let told = told(failure.code, original);
        if told == Told::Nobody {
            return Ok(());
        }
        let (worker, stored) = (self.clone(), self.refusal(original, refused, job_id));
        let telling = self.0.errands.spawn(async move {
            if timeout(TOLD, worker.tell(told, &stored)).await.is_err() {
                tracing::info!("a sender could not be told in time that its message is refused");
            }
        });
        // Whether it was told by then or not: the record is there.
        drop(timeout(TELLING, telling).await);
        Ok(())
    }

    async fn tell(&self, told: Told, refusal: &StoredResult) {
        match told {
            Told::Nobody => {}
            Told::Sender => {
                if let Err(error) = self.deliver(refusal, Kind::Refusal).await {
                    tracing::info!(%error, "a sender could not be told that its message is refused");
                }
            }
            Told::ReplyToAlone => self.deliver_to_inbox_alone(refusal).await,
        }
    }

    /// Keeps a control message that cannot be obeyed: a row, and a copy in the dead letters' queue.
    ///
    /// # Errors
    /// The database refuses for good.
    pub(super) async fn refuse_control(
        &self,
        original: &Original,
        failure: Failure,
    ) -> Result<(), StoreError> {
        tracing::info!(error.code = %failure.code, error = failure.message, "a control message is refused");
        self.bury(original, &failure, None).await
    }

    async fn bury(
        &self,
        original: &Original,
        failure: &Failure,
        job_id: Option<JobId>,
    ) -> Result<(), StoreError> {
        let properties = original.properties.to_json().to_string();
        let letter = DeadLetter {
            job_id,
            failure,
            body: &original.body,
            properties: &properties,
        };
        insisting!("dead_letter", self.0.store, self.0.store.bury(&letter))?;
        meter::refused(failure.code.as_str());
        let copy = outgoing::dead_letter(self.0.broker.names(), original, failure, 0, self.0.id);
        self.errand(Act::PublishDeadLetter, copy);
        Ok(())
    }

    fn refusal(&self, original: &Original, refused: &Refused, job_id: JobId) -> StoredResult {
        let now = self.0.clock.now();
        let properties = &original.properties;
        // As a row would hold it: what is sent is disarmed.
        let armoured =
            |text: &Option<String>| text.as_deref().map(|text| armour_text(text).into_owned());
        StoredResult {
            result: JobResult {
                version: 1,
                job_id,
                conversation_id: refused.conversation_id,
                user_id: refused.user_id.clone(),
                turn: None,
                success: false,
                status: Status::Failed,
                finish_reason: None,
                message: None,
                parsed: None,
                error: Some(ResultError {
                    code: refused.failure.code,
                    message: refused.failure.message.clone(),
                }),
                iterations: 0,
                tool_calls: 0,
                usage: crate::chat::Usage::default(),
                model: None,
                attempt: 0,
                warnings: Vec::new(),
                received_at: now,
                started_at: None,
                finished_at: now,
                metadata: None,
            },
            reply_to: armoured(&properties.reply_to),
            correlation_id: armoured(&properties.correlation_id),
            traceparent: properties.traceparent().map(str::to_owned),
            is_copy: false,
        }
    }
}

fn told(code: ErrorCode, original: &Original) -> Told {
    let properties = &original.properties;
    let addressed = properties.reply_to.is_some() || properties.correlation_id.is_some();
    match code {
        ErrorCode::JobIdConflict => Told::ReplyToAlone,
        // A readable job: its sender reads the results queue.
        ErrorCode::ConversationForbidden
        | ErrorCode::ConversationBusy
        | ErrorCode::Unauthorized
        | ErrorCode::UnknownModel
        | ErrorCode::UnknownToolServer => Told::Sender,
        // No job at all, or none that a refusal is ever made of: told to whoever gave an address.
        ErrorCode::InvalidJson
        | ErrorCode::InvalidJob
        | ErrorCode::UnsupportedVersion
        | ErrorCode::JobTooLarge
        | ErrorCode::ModelRejected
        | ErrorCode::ModelAuth
        | ErrorCode::ModelQuota
        | ErrorCode::ContextTooLong
        | ErrorCode::ContentFiltered
        | ErrorCode::ModelUnavailable
        | ErrorCode::ModelProtocol
        | ErrorCode::ToolsUnavailable
        | ErrorCode::BudgetExceeded
        | ErrorCode::DeadlineExceeded
        | ErrorCode::Cancelled
        | ErrorCode::AttemptsExhausted
        | ErrorCode::Internal => {
            if addressed {
                Told::Sender
            } else {
                Told::Nobody
            }
        }
    }
}

/// What a message is refused with that is a job, but not for here.
pub(super) fn not_here(job: &crate::wire::Job, failure: Failure) -> Refused {
    Refused {
        failure,
        job_id: job.job_id,
        conversation_id: job.conversation_id,
        user_id: Some(job.user_id.clone()),
    }
}

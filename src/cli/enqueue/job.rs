use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::super::failure::Usage;
use crate::broker::{Address, Names, Outgoing};
use crate::chat::{Content, Message, Role};
use crate::clock::{Clock as _, SystemClock};
use crate::ids::{ConversationId, JobId};
use crate::wire::{self, JOB_TYPE, Job};

/// A job that is ready to be sent.
pub(super) struct NewJob {
    /// Its id; it stands in the body, or is the `message_id` alone.
    pub(super) id: JobId,
    /// The body, checked.
    pub(super) body: Bytes,
    /// Its line in the file, from 1.
    pub(super) line: usize,
    /// Whether its reply comes word by word.
    pub(super) stream: bool,
}

/// What the command line says of one job.
pub(super) struct Wish {
    pub(super) text: String,
    pub(super) user: String,
    pub(super) conversation: Option<Uuid>,
    pub(super) job_id: Option<Uuid>,
    pub(super) model: Option<String>,
    pub(super) system: Option<String>,
    pub(super) stream: bool,
}

impl Wish {
    /// The job, checked as a worker would.
    pub(super) fn into_job(self, max_bytes: usize) -> anyhow::Result<NewJob> {
        if self.text.trim().is_empty() {
            return Err(Usage("TEXT is empty: nothing to ask".to_owned()).into());
        }
        let id = JobId(self.job_id.unwrap_or_else(Uuid::now_v7));
        let say = |role, text| {
            let content = Content::Text(text);
            Arc::new(Message { role, content })
        };
        let mut messages = Vec::new();
        messages.extend(self.system.map(|rules| say(Role::System, rules)));
        messages.push(say(Role::User, self.text));
        let job = Job {
            version: Some(1),
            job_id: Some(id),
            conversation_id: self.conversation.map(ConversationId),
            user_id: self.user,
            messages,
            model: self.model,
            max_iterations: None,
            tools: None,
            options: None,
            budget: None,
            stream: self.stream.then_some(true),
            not_before: None,
            deadline: None,
            on_busy: None,
            metadata: None,
        };
        let body = Bytes::from(serde_json::to_vec(&job)?);
        wire::decode(&body, max_bytes)
            .map_err(|refused| Usage(format!("this is no job: {}", refused.failure)))?;
        let (line, stream) = (1, self.stream);
        Ok(NewJob {
            id,
            body,
            line,
            stream,
        })
    }
}

impl NewJob {
    /// The message for the jobs queue.
    pub(super) fn message(&self, names: &Names, reply_to: Option<&str>) -> Outgoing {
        let to = Address::Queue(names.jobs.clone());
        let mut message =
            Outgoing::new(to, JOB_TYPE, self.body.clone()).with_message_id(self.id.to_string());
        message.properties.timestamp = u64::try_from(SystemClock.now().timestamp()).ok();
        if let Some(reply_to) = reply_to {
            message.properties.reply_to = Some(reply_to.to_owned());
            message = message.with_correlation_id(Some(self.id.to_string()));
        }
        message
    }
}

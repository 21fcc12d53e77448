use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::job::NewJob;
use crate::broker::{BrokerError, Names, PublishError, Publisher, ReplyInbox};
use crate::config::BrokerConfig;

/// What the broker's own tools show.
const NAME: &str = "chat-worker enqueue";
/// How long the end of the connection may take; all is confirmed by then.
const CLOSE: Duration = Duration::from_secs(5);

/// Sends jobs, each confirmed by the broker.
pub(super) struct Sender {
    publisher: Publisher,
    names: Names,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Sender {
    pub(super) async fn connect(config: &BrokerConfig) -> Result<Self, BrokerError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let publisher = Publisher::connect(config, NAME, &tasks, stop.clone()).await?;
        Ok(Self {
            publisher,
            names: Names::new(&config.prefix),
            tasks,
            stop,
        })
    }

    pub(super) async fn send(
        &self,
        job: &NewJob,
        reply_to: Option<&str>,
    ) -> Result<(), PublishError> {
        self.publisher
            .publish(job.message(&self.names, reply_to))
            .await
    }

    pub(super) async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        // Whatever is left ends with this process.
        timeout(CLOSE, self.tasks.wait()).await.unwrap_or_default();
    }
}

/// An inbox whose name the workers accept.
pub(super) async fn open_inbox(config: &BrokerConfig) -> anyhow::Result<ReplyInbox> {
    let inbox = ReplyInbox::open(config, NAME).await?;
    if !config.reply_to_allow.is_match(inbox.name()) {
        anyhow::bail!(
            "CHAT_REPLY_TO_ALLOW does not allow amq.gen-*, so the result could not come here; add it, or leave --wait out"
        );
    }
    Ok(inbox)
}

//! A publisher for the time of one command.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{BrokerError, Names, Outgoing, PublishError, Publisher};
use crate::config::BrokerConfig;

/// How long the end of the connection may take; all is confirmed by then.
const CLOSE: Duration = Duration::from_secs(5);

/// Sends messages, each confirmed by the broker.
pub(super) struct Sender {
    publisher: Publisher,
    names: Names,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Sender {
    /// `name` is what the broker's own tools show.
    pub(super) async fn connect(config: &BrokerConfig, name: &str) -> Result<Self, BrokerError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let publisher = Publisher::connect(config, name, &tasks, stop.clone()).await?;
        Ok(Self {
            publisher,
            names: Names::new(&config.prefix),
            tasks,
            stop,
        })
    }

    /// What things are called on this broker.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) async fn send(&self, message: Outgoing) -> Result<(), PublishError> {
        self.publisher.publish(message).await
    }

    pub(super) async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        // Whatever is left ends with this process.
        timeout(CLOSE, self.tasks.wait()).await.unwrap_or_default();
    }
}

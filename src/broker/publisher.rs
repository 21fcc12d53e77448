use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{BrokerError, PublishError};
use super::link::Link;
use super::outgoing::Outgoing;
use super::parcel::Parcel;
use super::post::Post;
use super::topology;
use crate::config::BrokerConfig;
use crate::meter;

/// How long a sender waits, reconnects and a blocked broker included.
const WAIT: Duration = Duration::from_secs(30);
/// How long the last messages may take after a stop.
const FLUSH: Duration = Duration::from_secs(5);
/// Messages that wait for room; beyond it senders wait.
const DESK: usize = 256;

/// Publishes, and says when the broker has the message.
#[derive(Clone)]
pub struct Publisher {
    desk: mpsc::Sender<Parcel>,
    link: Link,
}

impl Publisher {
    /// A publisher with a connection of its own, for who consumes nothing.
    ///
    /// Tasks on `tasks` keep it alive until `stop`; then it sends what it holds, for 5 s at most.
    ///
    /// # Errors
    ///
    /// As [`super::Broker::connect`].
    pub async fn connect(
        config: &BrokerConfig,
        name: &str,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, BrokerError> {
        // The connection outlives the stop until the last message is confirmed.
        let close = CancellationToken::new();
        let link = Link::connect(config, &format!("{name} publish"), tasks, close.clone()).await?;
        let (desk, parcels) = mpsc::channel(DESK);
        let post = Post::new(link.clone(), parcels, stop.clone());
        tasks.spawn(async move {
            let _closes = close.drop_guard();
            tokio::select! {
                () = post.run() => {}
                () = async { stop.cancelled().await; sleep(FLUSH).await } => {
                    tracing::warn!("stopped with messages that the broker did not confirm");
                }
            }
        });
        Ok(Self { desk, link })
    }

    /// Publishes and returns when the broker has confirmed.
    ///
    /// While there is no connection, and while the broker takes no messages, it waits. A message
    /// whose connection ended before its confirm is sent again, so it may arrive twice, with the
    /// same `message_id`. Dropping the future before the message was sent takes it back.
    ///
    /// # Errors
    ///
    /// When the message may not be in its queue; see [`PublishError`].
    pub async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let parcel = Parcel::new(message)?;
        let sent = async {
            let (settle, outcome) = oneshot::channel();
            if self.desk.send(parcel.awaited(settle)).await.is_err() {
                return Err(PublishError::Stopped);
            }
            outcome.await.unwrap_or(Err(PublishError::Stopped))
        };
        let begun = Instant::now();
        let outcome = match timeout(WAIT, sent).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(PublishError::Timeout { after: WAIT }),
        };
        meter::published(outcome.is_ok(), begun.elapsed());
        outcome
    }

    /// Whether there is such a queue: for the direct reply-to of a requester
    /// (`amq.rabbitmq.reply-to.…`), whether the requester is still there.
    ///
    /// # Errors
    ///
    /// When the broker could not be asked.
    pub async fn queue_exists(&self, name: &str) -> Result<bool, PublishError> {
        // No queue has a longer name.
        if name.len() > 255 {
            return Ok(false);
        }
        let asked = async {
            let connection = self.link.clone().connection().await?;
            topology::queue_exists(&connection, name).await
        };
        match timeout(WAIT, asked).await {
            Ok(Ok(exists)) => Ok(exists),
            Ok(Err(BrokerError::Stopped)) => Err(PublishError::Stopped),
            Ok(Err(error)) => Err(PublishError::Lost {
                reason: error.to_string(),
            }),
            Err(_elapsed) => Err(PublishError::Timeout { after: WAIT }),
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }
}

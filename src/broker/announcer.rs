use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Connection};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::dial::Dial;
use super::error::BrokerError;
use super::link::{Backoff, Link};
use super::names::Names;
use super::topology::{open, short};
use crate::config::BrokerConfig;
use crate::ids::JobId;

/// Frames of this connection: most events are smaller, and the library keeps 64 frames.
const FRAME: u32 = 32 << 10;
/// A broker that takes nothing for so long, and does not say why, is given up for a new connection.
const SILENCE: Duration = Duration::from_secs(30);
/// The largest message that every `RabbitMQ` from 3.10 to 4.x takes, by default.
const MAX_BODY: usize = 16 << 20;
const TRANSIENT: u8 = 1;

/// An event, ready to be sent.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// The job.
    pub job: JobId,
    /// The event's name, such as `tool.finished`.
    pub event: &'static str,
    /// JSON.
    pub body: Bytes,
}

/// Publishes events: transient, to whoever has bound a queue, with no confirm, and on a connection
/// of its own. What cannot be sent now is lost.
pub struct Announcer {
    link: Link,
    exchange: String,
    kind: String,
    open: Option<(Arc<Connection>, Channel)>,
    /// After a channel that broke: when the next is opened.
    next: Instant,
    pause: Backoff,
    /// Closes the connection.
    _close: DropGuard,
}

impl Announcer {
    /// Connects. A task on `tasks` keeps the connection alive until this is dropped. `kind` is the
    /// property `type` of what is published.
    ///
    /// # Errors
    ///
    /// As [`super::Broker::connect`].
    pub async fn connect(
        config: &BrokerConfig,
        name: &str,
        kind: &str,
        tasks: &TaskTracker,
    ) -> Result<Self, BrokerError> {
        let close = CancellationToken::new();
        let dial = Dial::new(config, &format!("{name} events"))?.with_frames_of(FRAME);
        let link = Link::keep(dial, tasks, close.clone()).await?;
        Ok(Self {
            link,
            exchange: Names::new(&config.prefix).events,
            kind: kind.to_owned(),
            open: None,
            next: Instant::now(),
            pause: Backoff::default(),
            _close: close.drop_guard(),
        })
    }

    /// Writes events to the broker, in their order; how many of them got lost, as far as is known.
    ///
    /// Returns when they are written: a broker that reads slowly is waited for. Without a connection
    /// nothing is.
    pub async fn announce(&mut self, events: &[Announcement]) -> usize {
        let Some((connection, channel)) = self.channel().await else {
            return events.len();
        };
        let writing = events.iter().map(|event| self.write(&channel, event));
        let mut link = self.link.clone();
        let written = tokio::select! {
            written = timeout(SILENCE, join_all(writing)) => written,
            () = link.gone(&connection) => return self.broken(&connection, "the connection ended", events.len()),
        };
        let Ok(written) = written else {
            return self.broken(&connection, "the broker takes nothing", events.len());
        };
        let lost = written.iter().filter(|written| written.is_err()).count();
        if !channel.status().connected() {
            return self.broken(&connection, "the channel was closed", lost);
        }
        if lost == 0 {
            self.pause = Backoff::default();
        }
        lost
    }

    async fn write(&self, channel: &Channel, event: &Announcement) -> Result<(), ()> {
        if event.body.len() > MAX_BODY {
            return Err(());
        }
        let (Ok(exchange), Ok(key), Ok(kind)) = (
            short(&self.exchange),
            short(&Names::event_key(event.job, event.event)),
            short(&self.kind),
        ) else {
            return Err(());
        };
        let properties = BasicProperties::default()
            .with_type(kind)
            .with_content_type("application/json".into())
            .with_delivery_mode(TRANSIENT);
        let options = BasicPublishOptions::default();
        let written = channel
            .basic_publish(exchange, key, options, &event.body, properties)
            .await;
        // Not in confirm mode: there is nothing more to come.
        written.map(drop).map_err(drop)
    }

    /// The channel; none while there is none to be had at once.
    async fn channel(&mut self) -> Option<(Arc<Connection>, Channel)> {
        let connection = self.link.current()?;
        if let Some((of, channel)) = &self.open
            && Arc::ptr_eq(of, &connection)
            && channel.status().connected()
        {
            return Some((connection, channel.clone()));
        }
        if Instant::now() < self.next {
            return None;
        }
        match open(&connection).await {
            Ok(channel) => {
                self.open = Some((Arc::clone(&connection), channel.clone()));
                Some((connection, channel))
            }
            Err(error) => {
                self.broken(&connection, &error.to_string(), 0);
                None
            }
        }
    }

    /// A new connection declares the exchange again, which somebody may have deleted.
    fn broken(&mut self, connection: &Arc<Connection>, reason: &str, lost: usize) -> usize {
        tracing::info!(reason, "events cannot be sent for a moment");
        self.open = None;
        self.next = Instant::now() + self.pause.next();
        self.link.give_up(connection);
        lost
    }
}

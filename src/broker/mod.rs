//! `RabbitMQ`: connections that come back, deliveries, and publishes that the broker confirmed.
//!
//! The only module that names `lapin`. It knows bytes and properties, not what a job is: decoding
//! is `wire`'s, deciding what becomes of a delivery is `worker`'s. It may import the leaves and
//! `config`, and no other adapter.
//!
//! Two connections, because a broker short of memory or disk stops reading from one that publishes:
//! acknowledgements must not wait behind it
//! (<https://www.rabbitmq.com/docs/connection-blocked>). Events have a third, so that nobody who
//! listens to them can slow results. The client library's own recovery is off:
//! it tells a consumer nothing of the messages that come a second time.

mod announcer;
mod attempt;
mod delivery;
mod dial;
mod error;
mod health;
mod inbox;
mod intake;
mod ledger;
mod link;
mod names;
mod outgoing;
mod parcel;
mod post;
mod properties;
mod publisher;
mod topology;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::BrokerConfig;

pub use announcer::{Announcement, Announcer};
pub use delivery::Delivery;
pub use error::{BrokerError, PublishError};
pub use health::{BrokerHealth, IntakeState};
pub use inbox::{Letter, ReplyInbox};
pub use intake::Intake;
pub use names::Names;
pub use outgoing::{Address, IfUnroutable, MAX_HEADER_TEXT, Outgoing, header_text};
pub use properties::Properties;
pub use publisher::Publisher;

use health::IntakeGauge;
use link::Link;

/// Both connections of a worker to its broker.
#[derive(Clone)]
pub struct Broker {
    names: Names,
    consuming: Link,
    publisher: Publisher,
    gauge: IntakeGauge,
}

impl Broker {
    /// Connects both connections and declares what is missing on the broker.
    ///
    /// Tasks on `tasks` keep both alive until `stop`; then the publisher sends what it holds, for
    /// 5 s at most, and both are closed. `stop` is the last step of a drain: deliveries that are
    /// not settled by then are redelivered. `name` is what the broker's own tools show.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached, refuses, or lacks a thing that may not be declared. It
    /// is tried once; [`BrokerError::fault`] says whether trying again can help.
    pub async fn connect(
        config: &BrokerConfig,
        name: &str,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, BrokerError> {
        // Should the second fail, the first is not left behind.
        let stop = stop.child_token();
        let half_way = stop.clone().drop_guard();
        let publisher = Publisher::connect(config, name, tasks, stop.clone()).await?;
        let consuming = Link::connect(config, &format!("{name} consume"), tasks, stop).await?;
        drop(half_way.disarm());
        Ok(Self {
            names: Names::new(&config.prefix),
            consuming,
            publisher,
            gauge: IntakeGauge::default(),
        })
    }

    /// What things are called on this broker.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The confirmed publisher; clones share one channel.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Deliveries of the jobs queue, over reconnects, until it or the broker is stopped.
    ///
    /// `prefetch` is how many deliveries may be unsettled at once, at least 1. One intake at a
    /// time: [`Broker::health`] tells of the one that moved last.
    #[must_use]
    pub fn intake(&self, prefetch: u16) -> Intake {
        let gauge = Some(self.gauge.clone());
        Intake::new(self.consuming.clone(), &self.names.jobs, prefetch, gauge)
    }

    /// Deliveries of the control queue, like [`Broker::intake`], but no part of the health.
    #[must_use]
    pub fn control(&self, prefetch: u16) -> Intake {
        Intake::new(self.consuming.clone(), &self.names.control, prefetch, None)
    }

    /// Looks everything up once more and declares what is missing: somebody deleted a queue while
    /// the connections lived.
    ///
    /// # Errors
    ///
    /// As [`Broker::connect`].
    pub async fn declare_again(&self) -> Result<(), BrokerError> {
        let connection = self.publisher.link().clone().connection().await?;
        topology::declare(&connection, &self.names).await
    }

    /// Whether it consumes and can publish, at this moment.
    #[must_use]
    pub fn health(&self) -> BrokerHealth {
        BrokerHealth::read(&self.gauge, &self.consuming, self.publisher.link())
    }
}

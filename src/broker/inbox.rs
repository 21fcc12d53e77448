use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::time::timeout;

use super::dial::{close, connect_once};
use super::error::BrokerError;
use super::names::Names;
use super::properties::Properties;
use super::topology::{answered, open, short};
use crate::config::BrokerConfig;
use crate::ids::JobId;

/// A queue of one's own to wait for an answer in; the broker deletes it with its connection.
///
/// It does not outlive that connection: what is answered later goes to the results queue.
pub struct ReplyInbox {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    name: String,
    names: Names,
}

/// A message of a [`ReplyInbox`]; it needs no settling.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The content.
    pub body: Vec<u8>,
    /// The properties.
    pub properties: Properties,
    /// The key it was published with: `<job_id>.<event>` for an event.
    pub routing_key: String,
}

impl ReplyInbox {
    /// Connects and opens an inbox.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached or refuses.
    pub async fn open(config: &BrokerConfig, name: &str) -> Result<Self, BrokerError> {
        let lost = |error: lapin::Error| BrokerError::lost(&error);
        let connection = connect_once(config, &format!("{name} inbox")).await?;
        let channel = open(&connection).await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        // The broker names it: amq.gen-…
        let declared = channel.queue_declare("".into(), options, FieldTable::default());
        let queue = answered(declared).await?.map_err(lost)?.name().clone();
        let options = BasicConsumeOptions {
            no_ack: true,
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let name = queue.as_str().to_owned();
        let consume = channel.basic_consume(queue, "".into(), options, FieldTable::default());
        let consumer = answered(consume).await?.map_err(lost)?;
        Ok(Self {
            connection,
            channel,
            consumer,
            name,
            names: Names::new(&config.prefix),
        })
    }

    /// What a message's `reply_to` has to say.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has the events of a job come here too, from now on.
    ///
    /// # Errors
    ///
    /// When the broker refuses: the events exchange must exist.
    pub async fn also_events(&self, job: JobId) -> Result<(), BrokerError> {
        let bound = self.channel.queue_bind(
            short(&self.name)?,
            short(&self.names.events)?,
            short(&Names::events_of(job))?,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        answered(bound)
            .await?
            .map_err(|error| BrokerError::Topology {
                what: format!("the exchange {}", self.names.events),
                reason: error.to_string(),
            })
    }

    /// The next message; none when there was none for `wait`.
    ///
    /// # Errors
    ///
    /// When the connection ended, and the inbox with it.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<Letter>, BrokerError> {
        match timeout(wait, self.consumer.next()).await {
            Err(_elapsed) => Ok(None),
            Ok(Some(Ok(raw))) => Ok(Some(Letter {
                properties: Properties::from(&raw.properties),
                routing_key: raw.routing_key.as_str().to_owned(),
                body: raw.data,
            })),
            Ok(Some(Err(error))) => Err(BrokerError::lost(&error)),
            Ok(None) => Err(BrokerError::Lost {
                reason: "the inbox was deleted".to_owned(),
            }),
        }
    }

    /// Closes it, for 2 s at most.
    pub async fn close(self) {
        close(&self.connection).await;
    }
}

use std::collections::HashSet;
use std::sync::Mutex;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use serde_json::Value;

use super::setup::needed;
use super::{lock, soon};
use crate::services;

pub(crate) use lapin::BasicProperties as Properties;

/// The test's own line to the broker.
pub(crate) struct Broker {
    prefix: String,
    connection: Connection,
    channel: Channel,
    /// Queues beside the installation's own.
    more: Mutex<HashSet<String>>,
}

/// A queue that is read from now on.
pub(crate) struct Inbox {
    queue: String,
    consumer: tokio::sync::Mutex<Consumer>,
    kept: Mutex<Vec<Received>>,
}

/// A message.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) body: Vec<u8>,
    pub(crate) properties: Properties,
    /// The routing key.
    pub(crate) key: String,
}

impl Broker {
    pub(crate) async fn connect(prefix: &str) -> Self {
        Self::connect_to(prefix, &broker_url()).await
    }

    /// A line that takes another way.
    pub(crate) async fn connect_to(prefix: &str, url: &str) -> Self {
        let connection = connect_to(url).await;
        let channel = connection.create_channel().await.unwrap();
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await.unwrap();
        Self {
            prefix: prefix.to_owned(),
            connection,
            channel,
            more: Mutex::default(),
        }
    }

    /// Publishes to a queue, which must be there.
    pub(crate) async fn publish(&self, queue: &str, body: &[u8], properties: Properties) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let publishing = self
            .channel
            .basic_publish("".into(), queue.into(), options, body, properties)
            .await
            .unwrap();
        let confirmed = soon("a confirm", publishing).await.unwrap();
        assert!(
            matches!(confirmed, Confirmation::Ack(None)),
            "{queue} took no message: {confirmed:?}"
        );
    }

    /// Declares a queue that this test alone uses. An empty name: the broker gives one.
    pub(crate) async fn declare(&self, name: &str) -> String {
        self.declare_with(name, FieldTable::default()).await
    }

    /// A queue of this test that holds so many messages and drops the oldest.
    pub(crate) async fn declare_short(&self, most: i32) -> String {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(most));
        self.declare_with("", arguments).await
    }

    /// A queue of this name that is full and refuses what comes.
    pub(crate) async fn declare_full(&self, name: &str) -> String {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(0));
        let refuse = AMQPValue::LongString("reject-publish".into());
        arguments.insert("x-overflow".into(), refuse);
        self.declare_with(name, arguments).await
    }

    async fn declare_with(&self, name: &str, arguments: FieldTable) -> String {
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let declaring = self
            .channel
            .queue_declare(name.into(), exclusive, arguments);
        let queue = declaring.await.unwrap().name().to_string();
        lock(&self.more).insert(queue.clone());
        queue
    }

    /// Has what an exchange carries under `key` come into a queue.
    pub(crate) async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let options = QueueBindOptions::default();
        let arguments = FieldTable::default();
        self.channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                key.into(),
                options,
                arguments,
            )
            .await
            .unwrap();
    }

    /// Deletes a queue, as its owner may.
    pub(crate) async fn delete(&self, queue: &str) {
        let options = QueueDeleteOptions::default();
        self.channel
            .queue_delete(queue.into(), options)
            .await
            .unwrap();
    }

    /// Loses what is in a queue and on its way to nobody; how many messages that were.
    pub(super) async fn purge(&self, queue: &str) -> u32 {
        let options = QueuePurgeOptions::default();
        self.channel
            .queue_purge(queue.into(), options)
            .await
            .unwrap()
    }

    /// Reads a queue from now on. On the channel that publishes, as direct reply-to demands.
    pub(crate) async fn consume(&self, queue: &str) -> Inbox {
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consuming =
            self.channel
                .basic_consume(queue.into(), "".into(), options, FieldTable::default());
        Inbox {
            queue: queue.to_owned(),
            consumer: tokio::sync::Mutex::new(consuming.await.unwrap()),
            kept: Mutex::default(),
        }
    }

    /// All that came into a queue until now and was not read.
    pub(crate) async fn all_of(&self, queue: &str, inbox: &Inbox) -> Vec<Received> {
        let end = uuid::Uuid::new_v4().to_string();
        let mark = Properties::default().with_message_id(end.as_str().into());
        self.publish(queue, b"", mark).await;
        let mut all = std::mem::take(&mut *lock(&inbox.kept));
        loop {
            let message = inbox.receive().await;
            if message.message_id() == end {
                return all;
            }
            all.push(message);
        }
    }

    pub(super) async fn clear_up(self) {
        // Afresh, in case the test did something that ended the other line.
        self.connection.close(200, "bye".into()).await.ok();
        let connection = connect().await;
        let channel = connection.create_channel().await.unwrap();
        let mut queues: Vec<_> = lock(&self.more).drain().collect();
        for rest in ["jobs", "jobs.dead", "results", "control"] {
            queues.push(format!("{}.{rest}", self.prefix));
        }
        for queue in queues {
            // Not there is as good as deleted.
            let options = QueueDeleteOptions::default();
            channel
                .queue_delete(queue.as_str().into(), options)
                .await
                .ok();
        }
        for rest in ["dlx", "events"] {
            let name = format!("{}.{rest}", self.prefix);
            let options = ExchangeDeleteOptions::default();
            channel
                .exchange_delete(name.as_str().into(), options)
                .await
                .ok();
        }
        connection.close(200, "bye".into()).await.ok();
    }
}

/// Where the broker is, as others reach it.
pub(crate) fn broker_url() -> String {
    needed(services::BROKER)
}

async fn connect() -> Connection {
    connect_to(&broker_url()).await
}

async fn connect_to(url: &str) -> Connection {
    let connecting = Connection::connect(url, ConnectionProperties::default());
    soon("a connection", connecting)
        .await
        .expect("the URL leads to no broker")
}

impl Inbox {
    /// The next message, the first that came if some were passed over.
    pub(crate) async fn next(&self) -> Received {
        self.find(|_| true).await
    }

    /// The first message that fits; others are kept.
    pub(crate) async fn find(&self, fits: impl Fn(&Received) -> bool) -> Received {
        let kept = {
            let mut kept = lock(&self.kept);
            let at = kept.iter().position(&fits);
            at.map(|at| kept.remove(at))
        };
        if let Some(message) = kept {
            return message;
        }
        loop {
            let message = self.receive().await;
            if fits(&message) {
                return message;
            }
            lock(&self.kept).push(message);
        }
    }

    async fn receive(&self) -> Received {
        let mut consumer = self.consumer.lock().await;
        let what = format!("a message in {}", self.queue);
        let delivery = soon(&what, consumer.next()).await.unwrap().unwrap();
        Received {
            body: delivery.data,
            properties: delivery.properties,
            key: delivery.routing_key.to_string(),
        }
    }
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of UTF-8")
    }

    pub(crate) fn message_id(&self) -> String {
        let id = self.properties.message_id().as_ref();
        id.map(ToString::to_string).unwrap_or_default()
    }

    pub(crate) fn correlation_id(&self) -> String {
        let id = self.properties.correlation_id().as_ref();
        id.map(ToString::to_string).unwrap_or_default()
    }

    /// A header that is a text.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let value = self.properties.headers().as_ref()?.inner().get(name)?;
        let text = value.as_long_string();
        Some(
            text.unwrap_or_else(|| panic!("the header {name} is no text: {value:?}"))
                .to_string(),
        )
    }
}

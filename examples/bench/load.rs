//! The driver: publishes jobs and takes their results, as cheaply as it can, since it shares the machine.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, PublisherConfirm,
};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::stage::{Ground, Place};
use crate::tally::Tally;

/// Publishes that may be unconfirmed at once.
pub(crate) const WINDOW: usize = 512;
const PREFETCH: u16 = 1000;
/// Results that are acknowledged together, or after this time.
const BATCH: usize = 200;
const LINGER: Duration = Duration::from_millis(50);

/// A job that is ready to go.
pub(crate) struct Prepared {
    pub(crate) id: Uuid,
    body: Vec<u8>,
    properties: BasicProperties,
}

/// The driver's two connections: one publishes, one consumes.
pub(crate) struct Load {
    pub(crate) tally: Tally,
    channel: Channel,
    queue: String,
    _publishing: Connection,
    _consuming: Connection,
    _consumer: JoinSet<()>,
}

impl Load {
    /// Declares the results queue as the worker would, and consumes it.
    pub(crate) async fn open(place: &Place, ground: &Ground) -> anyhow::Result<Self> {
        let publishing = connect(&place.amqp_url).await?;
        let channel = publishing.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let results = ground.name("results");
        declare(&channel, &results, &[("x-overflow", "reject-publish")]).await?;
        let consuming = connect(&place.amqp_url).await?;
        let results_channel = consuming.create_channel().await?;
        results_channel
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await?;
        let consumer = results_channel
            .basic_consume(
                results.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let tally = Tally::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(consume(results_channel, consumer, tally.clone()));
        Ok(Self {
            tally,
            channel,
            queue: ground.name("jobs"),
            _publishing: publishing,
            _consuming: consuming,
            _consumer: tasks,
        })
    }

    /// Makes jobs, each with a sum of its own, so that a mixed-up answer would be seen.
    pub(crate) fn prepare(&self, count: usize) -> Vec<Prepared> {
        (0..count).map(|number| self.prepare_one(number)).collect()
    }

    fn prepare_one(&self, number: usize) -> Prepared {
        let id = Uuid::now_v7();
        self.tally
            .expect(id, format!("The answer is {}", number + 22));
        let body = format!(
            r#"{{"user_id":"bench","messages":[{{"role":"user","content":"What is {number} plus 22?"}}]}}"#
        );
        Prepared {
            id,
            body: body.into_bytes(),
            properties: BasicProperties::default()
                .with_content_type("application/json".into())
                .with_delivery_mode(2)
                .with_message_id(id.to_string().as_str().into()),
        }
    }

    /// Publishes one job; its confirm comes later.
    pub(crate) async fn publish(&self, job: &Prepared) -> anyhow::Result<PublisherConfirm> {
        publish(
            &self.channel,
            &self.queue,
            &job.body,
            job.properties.clone(),
        )
        .await
    }

    /// Publishes all, pipelined, and waits for every confirm.
    pub(crate) async fn publish_all(&self, jobs: &[Prepared]) -> anyhow::Result<()> {
        let mut pipeline = Pipeline::default();
        for job in jobs {
            pipeline.push(self.publish(job).await?).await?;
        }
        pipeline.finish().await
    }
}

/// Confirms that are still to come.
#[derive(Default)]
pub(crate) struct Pipeline(VecDeque<PublisherConfirm>);

impl Pipeline {
    /// Takes another one; when there are too many, the oldest is waited for.
    pub(crate) async fn push(&mut self, confirm: PublisherConfirm) -> anyhow::Result<()> {
        self.0.push_back(confirm);
        if self.0.len() > WINDOW
            && let Some(oldest) = self.0.pop_front()
        {
            confirmed(oldest).await?;
        }
        Ok(())
    }

    /// Waits for the rest.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        for confirm in self.0 {
            confirmed(confirm).await?;
        }
        Ok(())
    }
}

/// Waits until the broker has a message.
///
/// # Errors
/// It refuses it.
pub(crate) async fn confirmed(confirm: PublisherConfirm) -> anyhow::Result<()> {
    let confirmation = confirm.await?;
    if !confirmation.is_ack() || confirmation.take_message().is_some() {
        bail!("the broker did not take a message");
    }
    Ok(())
}

/// Publishes a persistent message to a queue.
pub(crate) async fn publish(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) -> anyhow::Result<PublisherConfirm> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    Ok(channel
        .basic_publish("".into(), queue.into(), options, body, properties)
        .await?)
}

/// Declares a durable quorum queue.
pub(crate) async fn declare(
    channel: &Channel,
    queue: &str,
    more: &[(&'static str, &str)],
) -> anyhow::Result<()> {
    let mut arguments = FieldTable::default();
    for (name, value) in [("x-queue-type", "quorum")].iter().chain(more) {
        arguments.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    let options = QueueDeclareOptions::durable();
    channel
        .queue_declare(queue.into(), options, arguments)
        .await
        .with_context(|| format!("cannot declare {queue}"))?;
    Ok(())
}

async fn connect(url: &str) -> anyhow::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name("chat-bench".into());
    Ok(Connection::connect(url, properties).await?)
}

/// Counts results, and acknowledges many at once.
async fn consume(channel: Channel, mut consumer: Consumer, tally: Tally) {
    let mut pending = 0;
    let mut last = 0;
    loop {
        match timeout(LINGER, consumer.next()).await {
            Ok(Some(Ok(delivery))) => {
                let id = delivery.properties.message_id().as_ref();
                let id = id.and_then(|id| Uuid::parse_str(id.as_str()).ok());
                tally.note(id, &delivery.data, Instant::now());
                last = delivery.delivery_tag;
                pending += 1;
                if pending < BATCH {
                    continue;
                }
            }
            Ok(Some(Err(_)) | None) => return,
            Err(_elapsed) => {}
        }
        if pending > 0 {
            let options = BasicAckOptions { multiple: true };
            if channel.basic_ack(last, options).await.is_err() {
                return;
            }
            pending = 0;
        }
    }
}

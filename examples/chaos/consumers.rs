//! Those who read results, whatever happens to their connections.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::ground::{Ground, PATIENCE};
use crate::ledger::Ledger;

const PAUSE: Duration = Duration::from_millis(200);

/// One for each queue of results, at work until dropped.
pub(crate) struct Consumers(JoinSet<()>);

impl Consumers {
    /// Notes every result from now on.
    pub(crate) fn start(ground: &Arc<Ground>, ledger: &Ledger) -> Self {
        let mut tasks = JoinSet::new();
        for queue in ground.results() {
            tasks.spawn(consume(Arc::clone(ground), ledger.clone(), queue));
        }
        Self(tasks)
    }

    /// Waits until all that is in the queues by now is noted.
    pub(crate) async fn finish(mut self, ground: &Ground, ledger: &Ledger) -> anyhow::Result<()> {
        let (_connection, channel) = ground.connect().await?;
        for queue in ground.results() {
            let mark = Uuid::new_v4().to_string();
            let properties = BasicProperties::default().with_message_id(mark.as_str().into());
            let options = BasicPublishOptions::default();
            let publishing =
                channel.basic_publish("".into(), queue.as_str().into(), options, b"", properties);
            publishing.await?.await?;
            timeout(PATIENCE, ledger.marked(&mark))
                .await
                .with_context(|| format!("{queue} is not read to its end"))?;
        }
        self.0.shutdown().await;
        Ok(())
    }
}

async fn consume(ground: Arc<Ground>, ledger: Ledger, queue: String) {
    loop {
        // It ends with its connection; the messages that were not acknowledged come again.
        read(&ground, &ledger, &queue).await.ok();
        sleep(PAUSE).await;
    }
}

async fn read(ground: &Ground, ledger: &Ledger, queue: &str) -> anyhow::Result<()> {
    let (_connection, channel) = ground.connect().await?;
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut deliveries = timeout(PATIENCE, consuming).await??;
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        let id = delivery.properties.message_id().as_ref();
        let id = id.map(ToString::to_string).unwrap_or_default();
        ledger.note(&id, &delivery.data);
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

//! The producer's side: the job goes out, the result comes back.

use std::time::Duration;

use anyhow::{Context as _, bail};
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::report;
use crate::stage::{Ground, Worker};

const PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(10);

/// A job that the broker has.
pub(crate) struct Sent {
    pub(crate) id: Uuid,
    pub(crate) user: &'static str,
    pub(crate) correlation_id: String,
    pub(crate) metadata: Value,
}

/// A result, read.
pub(crate) struct ReadBack {
    pub(crate) body: Value,
    pub(crate) kind: String,
    pub(crate) message_id: String,
    pub(crate) correlation_id: String,
}

/// Publishes a job as any producer would, and waits for the broker's confirm.
pub(crate) async fn publish(
    ground: &Ground,
    question: &str,
    insist_on_tools: bool,
) -> anyhow::Result<Sent> {
    let sent = Sent {
        id: Uuid::now_v7(),
        user: "demo-user",
        correlation_id: "demo-1".to_owned(),
        metadata: json!({"from": "the demo"}),
    };
    let mut body = json!({
        "job_id": sent.id,
        "user_id": sent.user,
        "messages": [{"role": "user", "content": question}],
        "metadata": sent.metadata,
    });
    if insist_on_tools && let Some(body) = body.as_object_mut() {
        // A real model might add up by itself.
        body.insert("tools".to_owned(), json!({"choice": "required"}));
    }
    let channel = ground.broker.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_correlation_id(sent.correlation_id.as_str().into());
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let queue = ground.name("jobs");
    let body = serde_json::to_vec(&body)?;
    let confirm = channel
        .basic_publish("".into(), queue.as_str().into(), options, &body, properties)
        .await?
        .await?;
    if !confirm.is_ack() || confirm.take_message().is_some() {
        bail!("the broker did not take the job into {queue}");
    }
    channel.close(200, "done".into()).await?;
    Ok(sent)
}

/// Reads the job's result from the results queue, and acknowledges it.
pub(crate) async fn read_back(
    ground: &Ground,
    sent: &Sent,
    worker: &mut Worker,
) -> anyhow::Result<ReadBack> {
    let queue = ground.name("results");
    let channel = ground.broker.create_channel().await?;
    let begin = Instant::now();
    loop {
        let options = BasicGetOptions { no_ack: false };
        let got = channel.basic_get(queue.as_str().into(), options).await?;
        if let Some(message) = got {
            message.acker.ack(BasicAckOptions::default()).await?;
            let text = String::from_utf8_lossy(&message.data).into_owned();
            report::line("result", &format!("read back from {queue}: {text}"));
            let properties = &message.properties;
            let read = |text: &Option<lapin::types::ShortString>| {
                text.as_ref().map(ToString::to_string).unwrap_or_default()
            };
            let read = ReadBack {
                body: serde_json::from_str(&text).context("the result is no JSON")?,
                kind: read(properties.kind()),
                message_id: read(properties.message_id()),
                correlation_id: read(properties.correlation_id()),
            };
            channel.close(200, "done".into()).await?;
            return Ok(read);
        }
        worker.check()?;
        if begin.elapsed() > PATIENCE {
            bail!(
                "no result of {} in {queue} after {} s{}",
                sent.id,
                PATIENCE.as_secs(),
                worker.last_words()
            );
        }
        sleep(POLL).await;
    }
}

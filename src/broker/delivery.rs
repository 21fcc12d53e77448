use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Acker, Channel};
use tokio::time::timeout;

use super::properties::Properties;

const SETTLE: Duration = Duration::from_secs(5);

/// A message of a queue, which the broker keeps until it is settled.
///
/// Dropped unsettled, it goes back into its queue.
#[must_use = "a delivery is settled by `ack` or `requeue`"]
pub struct Delivery {
    /// The content.
    pub body: Vec<u8>,
    /// The properties.
    pub properties: Properties,
    /// Whether it may have been delivered before. The reverse does not hold: a message that its
    /// sender published twice looks new.
    pub redelivered: bool,
    receipt: Receipt,
}

/// The right to settle, once.
struct Receipt {
    acker: Option<Acker>,
    /// A channel that closes returns everything unsettled, so each delivery keeps its own open.
    _channel: Arc<Channel>,
}

impl Delivery {
    pub(super) fn new(raw: lapin::message::Delivery, channel: Arc<Channel>) -> Self {
        Self {
            properties: Properties::from(&raw.properties),
            body: raw.data,
            redelivered: raw.redelivered,
            receipt: Receipt {
                acker: Some(raw.acker),
                _channel: channel,
            },
        }
    }

    /// The broker may forget it.
    ///
    /// Returns when that is written. Whether the broker read it is never known, so a failure is
    /// only logged: the message is redelivered then, and has to be recognised.
    pub async fn ack(mut self) {
        if let Some(acker) = self.receipt.acker.take() {
            settled("ack", acker.ack(BasicAckOptions::default())).await;
        }
    }

    /// The broker shall deliver it again, to anybody.
    pub async fn requeue(mut self) {
        if let Some(acker) = self.receipt.acker.take() {
            settled("requeue", acker.nack(REQUEUE)).await;
        }
    }
}

const REQUEUE: BasicNackOptions = BasicNackOptions {
    multiple: false,
    requeue: true,
};

impl Drop for Receipt {
    fn drop(&mut self) {
        let Some(acker) = self.acker.take().filter(Acker::usable) else {
            return;
        };
        tracing::debug!("a delivery was dropped unsettled and goes back into its queue");
        // The first poll hands the command over; nobody needs to know when it is written.
        if let Some(Err(error)) = acker.nack(REQUEUE).now_or_never() {
            tracing::debug!(%error, "it goes back when its channel closes");
        }
    }
}

async fn settled(what: &'static str, writing: impl Future<Output = lapin::Result<bool>>) {
    match timeout(SETTLE, writing).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => tracing::debug!(what, "its channel is gone; it is redelivered"),
        Ok(Err(error)) => tracing::debug!(what, %error, "its channel ended; it is redelivered"),
        Err(_elapsed) => tracing::debug!(what, "not written in time; it may be redelivered"),
    }
}

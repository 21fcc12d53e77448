use std::sync::Arc;

use futures_util::future::FutureExt;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};

use super::properties::Properties;
use crate::crash::{self, Act};

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
    tag: Option<u64>,
    /// A channel that closes returns everything unsettled, so each delivery keeps its own open.
    ///
    /// It is settled on the channel itself, whose frames leave in their order. What the library's
    /// `Acker` sends may be overtaken by the end of the channel, if this was its last delivery.
    channel: Arc<Channel>,
}

impl Delivery {
    pub(super) fn new(raw: lapin::message::Delivery, channel: Arc<Channel>) -> Self {
        Self {
            properties: Properties::from(&raw.properties),
            body: raw.data,
            redelivered: raw.redelivered,
            receipt: Receipt {
                tag: Some(raw.delivery_tag),
                channel,
            },
        }
    }

    /// The broker may forget it.
    ///
    /// Returns at once: whether the broker read it is never known anyway, and to wait until it is
    /// written costs more than everything else that is done for a delivery. If it does not arrive,
    /// the message is redelivered and has to be recognised.
    pub fn ack(mut self) {
        crash::before(Act::Ack);
        if let Some(tag) = self.receipt.tag.take() {
            let ack = BasicAckOptions::default();
            hand_over("ack", self.receipt.channel.basic_ack(tag, ack));
        }
        crash::after(Act::Ack);
    }

    /// The broker shall deliver it again, to anybody.
    pub fn requeue(mut self) {
        if let Some(tag) = self.receipt.tag.take() {
            hand_over("requeue", self.receipt.channel.basic_nack(tag, REQUEUE));
        }
    }
}

const REQUEUE: BasicNackOptions = BasicNackOptions {
    multiple: false,
    requeue: true,
};

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(tag) = self.tag.take() {
            tracing::debug!("a delivery was dropped unsettled and goes back into its queue");
            hand_over("requeue", self.channel.basic_nack(tag, REQUEUE));
        }
    }
}

/// The first poll puts the frame where the connection writes from; what comes after only tells when
/// it is written.
fn hand_over(what: &'static str, command: impl Future<Output = lapin::Result<()>>) {
    if let Some(Err(error)) = command.now_or_never() {
        tracing::debug!(what, %error, "not sent; it is redelivered");
    }
}

use std::sync::Arc;

use futures_util::future::FutureExt;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Acker, Channel};

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
    /// Returns at once: whether the broker read it is never known anyway, and to wait until it is
    /// written costs more than everything else that is done for a delivery. If it does not arrive,
    /// the message is redelivered and has to be recognised.
    pub fn ack(mut self) {
        crash::before(Act::Ack);
        if let Some(acker) = self.receipt.acker.take() {
            hand_over("ack", acker.ack(BasicAckOptions::default()));
        }
        crash::after(Act::Ack);
    }

    /// The broker shall deliver it again, to anybody.
    pub fn requeue(mut self) {
        if let Some(acker) = self.receipt.acker.take() {
            hand_over("requeue", acker.nack(REQUEUE));
        }
    }
}

const REQUEUE: BasicNackOptions = BasicNackOptions {
    multiple: false,
    requeue: true,
};

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            tracing::debug!("a delivery was dropped unsettled and goes back into its queue");
            hand_over("requeue", acker.nack(REQUEUE));
        }
    }
}

/// The first poll hands the command to the connection's own task; what comes after only tells when
/// it is written.
fn hand_over(what: &'static str, command: impl Future<Output = lapin::Result<bool>>) {
    match command.now_or_never() {
        None | Some(Ok(true)) => {}
        Some(Ok(false)) => tracing::debug!(what, "its channel is gone; it is redelivered"),
        Some(Err(error)) => tracing::debug!(what, %error, "not sent; it is redelivered"),
    }
}

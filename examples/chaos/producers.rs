//! Those who publish jobs: each has a connection of its own, and sends a message until the broker confirms it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ground::{Ground, PATIENCE};
use crate::jobs::{Orders, PRODUCERS};
use crate::ledger::Ledger;

const PAUSE: Duration = Duration::from_millis(200);

/// All of them, at work.
pub(crate) struct Producers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// What one of them is given to send.
struct Letter {
    body: String,
    properties: BasicProperties,
}

impl Producers {
    /// Publishes so many jobs a second from now on.
    pub(crate) fn start(ground: &Arc<Ground>, ledger: &Ledger, seed: u64, rate: f64) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let mut trays = Vec::new();
        for _ in 0..PRODUCERS {
            let (tray, letters) = unbounded_channel();
            trays.push(tray);
            tasks.spawn(publish(Arc::clone(ground), ledger.clone(), letters));
        }
        let orders = Orders::new(seed);
        let pace = Duration::from_secs_f64(1.0 / rate);
        let hand_out = hand_out(orders, trays, ground.replies(), ledger.clone(), pace);
        tasks.spawn(stopped(stop.clone(), hand_out));
        Self { tasks, stop }
    }

    /// Ends when all jobs are published, no more being made.
    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn stopped(stop: CancellationToken, work: impl Future<Output = ()>) {
    stop.run_until_cancelled(work).await;
}

/// Makes a job at each tick. Repeats that are not due when this is dropped are never sent.
async fn hand_out(
    mut orders: Orders,
    trays: Vec<UnboundedSender<Letter>>,
    replies: String,
    ledger: Ledger,
    pace: Duration,
) {
    let mut repeats = JoinSet::new();
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while repeats.try_join_next().is_some() {}
        let order = orders.next();
        ledger.expect(&order);
        let letter = || {
            let mut properties = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_delivery_mode(2)
                .with_message_id(order.id.to_string().into());
            if order.wants_reply {
                properties = properties.with_reply_to(replies.as_str().into());
            }
            Letter {
                body: order.body.clone(),
                properties,
            }
        };
        let Some(tray) = trays.get(order.producer) else {
            return;
        };
        // Who reads a tray lives until it is closed.
        tray.send(letter()).ok();
        for (later, producer) in &order.repeats {
            let (later, letter) = (*later, letter());
            if let Some(tray) = trays.get(*producer).cloned() {
                repeats.spawn(async move {
                    sleep(later).await;
                    tray.send(letter).ok();
                });
            }
        }
    }
}

async fn publish(ground: Arc<Ground>, ledger: Ledger, mut letters: UnboundedReceiver<Letter>) {
    let queue = ground.jobs();
    let mut line = None;
    while let Some(letter) = letters.recv().await {
        while let Err(_unsure) = send(&ground, &mut line, &queue, &letter).await {
            // The same message again: the worker knows it by its id.
            ledger.unsure();
            line = None;
            sleep(PAUSE).await;
        }
        ledger.confirmed();
    }
}

async fn send(
    ground: &Ground,
    line: &mut Option<(Connection, Channel)>,
    queue: &str,
    letter: &Letter,
) -> anyhow::Result<()> {
    if line.is_none() {
        *line = Some(ground.connect().await?);
    }
    let Some((_, channel)) = line else {
        bail!("no line");
    };
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let properties = letter.properties.clone();
    let body = letter.body.as_bytes();
    let publishing = channel.basic_publish("".into(), queue.into(), options, body, properties);
    let confirming = async { anyhow::Ok(publishing.await?.await?) };
    let confirmed = timeout(PATIENCE, confirming).await??;
    if !matches!(confirmed, Confirmation::Ack(None)) {
        bail!("{confirmed:?}");
    }
    Ok(())
}

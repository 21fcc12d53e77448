use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::time::{Instant, sleep_until, timeout};

use super::delivery::Delivery;
use super::error::BrokerError;
use super::health::{IntakeGauge, IntakeState};
use super::link::{Backoff, Link};
use super::topology::{ANSWER, answered, open, short};

/// After so long without a delivery the consumer is made anew: one whose quorum queue was deleted
/// and declared again waits for ever and is told nothing.
const IDLE: Duration = Duration::from_mins(5);

/// For so long after a loss one delivery is taken at a time. A message that the client library
/// cannot read (a property that is not UTF-8) ends the connection whenever it comes; then it comes
/// alone, until the broker's delivery limit moves it away, and costs no other message a delivery.
const WARY: Duration = Duration::from_secs(5);

/// The deliveries of a queue.
///
/// Nothing runs by itself here: connections are looked after elsewhere, and a consumer is
/// established, replaced and read within [`Intake::next`]. Stop it and empty it before dropping it:
/// what is prefetched and not handed over goes back only with the last unsettled delivery.
pub struct Intake {
    link: Link,
    queue: String,
    prefetch: u16,
    gauge: Option<IntakeGauge>,
    pause: Backoff,
    lost: Option<Instant>,
    state: State,
}

enum State {
    /// No consumer; none before this moment.
    Wanting(Instant),
    Consuming(Subscription),
    /// Cancelled; what was prefetched is still to be handed over.
    Emptying(Subscription),
    Ended,
}

struct Subscription {
    connection: Arc<Connection>,
    channel: Arc<Channel>,
    consumer: Consumer,
    last: Instant,
    /// When it is replaced by one with the full prefetch.
    wary_until: Option<Instant>,
}

/// Why a subscription is replaced.
enum Loss {
    /// Because it was idle for long, or had served its purpose.
    OnPurpose,
    /// Because it broke.
    Suffered(String),
}

impl Intake {
    pub(super) fn new(link: Link, queue: &str, prefetch: u16, gauge: Option<IntakeGauge>) -> Self {
        let intake = Self {
            link,
            queue: queue.to_owned(),
            // 0 means without limit.
            prefetch: prefetch.max(1),
            gauge,
            pause: Backoff::default(),
            lost: None,
            state: State::Wanting(Instant::now()),
        };
        intake.note(IntakeState::Waiting);
        intake
    }

    /// The next delivery; none only when it was stopped and everything is handed over, or when the
    /// broker was stopped.
    ///
    /// May be dropped and called again at any time: no delivery gets lost.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            match &mut self.state {
                State::Wanting(when) => {
                    let when = *when;
                    sleep_until(when).await;
                    self.subscribe().await?;
                }
                State::Consuming(subscription) => match subscription.next(&mut self.link).await {
                    Ok(delivery) => return Some(delivery),
                    Err(reason) => self.lose(&reason),
                },
                State::Emptying(subscription) => match subscription.prefetched().await {
                    Some(delivery) => return Some(delivery),
                    None => self.state = State::Ended,
                },
                State::Ended => return None,
            }
        }
    }

    /// Takes nothing more from the broker. What is prefetched still comes from [`Intake::next`],
    /// before its `None`.
    pub async fn stop(&mut self) {
        self.note(IntakeState::Stopped);
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Consuming(subscription) => {
                // Set first: dropped half-way, what is prefetched is not lost either.
                let (channel, tag) = (
                    Arc::clone(&subscription.channel),
                    subscription.consumer.tag(),
                );
                self.state = State::Emptying(subscription);
                let cancelled = channel.basic_cancel(tag, BasicCancelOptions::default());
                let reason = match timeout(ANSWER, cancelled).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error.to_string(),
                    Err(_elapsed) => "no answer".to_owned(),
                };
                tracing::debug!(queue = self.queue, reason, "cancelling failed");
                // The stream would not end; with its channel everything unsettled goes back.
                self.state = State::Ended;
            }
            State::Emptying(subscription) => self.state = State::Emptying(subscription),
            State::Wanting(_) | State::Ended => {}
        }
    }

    /// Consumes, or plans the next try; none when the broker was stopped.
    async fn subscribe(&mut self) -> Option<()> {
        self.note(IntakeState::Waiting);
        let Ok(connection) = self.link.connection().await else {
            self.state = State::Ended;
            self.note(IntakeState::Stopped);
            return None;
        };
        let wary_until = self
            .lost
            .map(|lost| lost + WARY)
            .filter(|until| *until > Instant::now());
        let prefetch = if wary_until.is_some() {
            1
        } else {
            self.prefetch
        };
        match Subscription::new(&connection, &self.queue, prefetch).await {
            Ok(mut subscription) => {
                subscription.wary_until = wary_until;
                self.pause = Backoff::default();
                self.state = State::Consuming(subscription);
                self.note(IntakeState::Consuming);
                tracing::debug!(queue = self.queue, prefetch, "consuming");
            }
            Err(error) => {
                tracing::warn!(queue = self.queue, %error, "cannot consume yet");
                // A new connection declares the topology again, which a deleted queue needs.
                self.link.give_up(&connection);
                self.state = State::Wanting(Instant::now() + self.pause.next());
            }
        }
        Some(())
    }

    fn lose(&mut self, loss: &Loss) {
        let reason = match loss {
            Loss::OnPurpose => "to consume as usual again",
            Loss::Suffered(reason) => {
                self.lost = Some(Instant::now());
                reason
            }
        };
        tracing::info!(queue = self.queue, reason, "consuming anew");
        self.note(IntakeState::Waiting);
        self.state = State::Wanting(Instant::now());
    }

    fn note(&self, state: IntakeState) {
        if let Some(gauge) = &self.gauge {
            gauge.set(state);
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.note(IntakeState::Stopped);
    }
}

impl Subscription {
    async fn new(
        connection: &Arc<Connection>,
        queue: &str,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let lost = |error: lapin::Error| BrokerError::lost(&error);
        let channel = open(connection).await?;
        // Before consuming, or the first deliveries are not limited.
        let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
        answered(qos).await?.map_err(lost)?;
        let consume = channel.basic_consume(
            short(queue)?,
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = answered(consume).await?.map_err(lost)?;
        Ok(Self {
            connection: Arc::clone(connection),
            channel: Arc::new(channel),
            consumer,
            last: Instant::now(),
            wary_until: None,
        })
    }

    /// The next delivery, or why there will be none.
    async fn next(&mut self, link: &mut Link) -> Result<Delivery, Loss> {
        let suffered = |reason: &str| Err(Loss::Suffered(reason.to_owned()));
        loop {
            let all_settled = Arc::strong_count(&self.channel) == 1;
            if all_settled && self.wary_until.is_some_and(|until| until <= Instant::now()) {
                return Err(Loss::OnPurpose);
            }
            let wary_until = self.wary_until.unwrap_or(self.last + IDLE);
            tokio::select! {
                biased;
                next = self.consumer.next() => {
                    self.last = Instant::now();
                    return match next {
                        Some(Ok(raw)) => Ok(Delivery::new(raw, Arc::clone(&self.channel))),
                        Some(Err(error)) => suffered(&error.to_string()),
                        None => suffered("the broker cancelled the consumer"),
                    };
                }
                () = link.gone(&self.connection) => return suffered("the connection ended"),
                () = sleep_until(wary_until), if self.wary_until.is_some() && all_settled => {}
                () = sleep_until(self.last + IDLE) => {
                    // With deliveries unsettled the channel would take them back; and a full
                    // prefetch explains the silence.
                    if Arc::strong_count(&self.channel) == 1 {
                        return Err(Loss::OnPurpose);
                    }
                    self.last = Instant::now();
                }
            }
        }
    }

    async fn prefetched(&mut self) -> Option<Delivery> {
        match self.consumer.next().await {
            Some(Ok(raw)) => Some(Delivery::new(raw, Arc::clone(&self.channel))),
            Some(Err(_)) | None => None,
        }
    }
}

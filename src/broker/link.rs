use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use lapin::{Connection, Event};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dial::{Dial, close};
use super::error::BrokerError;
use crate::config::BrokerConfig;

/// Between two looks at a connection that says nothing.
const LOOK: Duration = Duration::from_secs(2);

/// One connection that is kept alive by a task of its own.
#[derive(Clone)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    doubt: Arc<Notify>,
}

/// What the task knows about the connection.
#[derive(Clone)]
struct State {
    connection: Option<Arc<Connection>>,
    problem: Option<Arc<str>>,
    /// When it got or lost the connection, or last tried to get one.
    at: Instant,
}

impl State {
    fn new(connection: Option<Arc<Connection>>, problem: Option<Arc<str>>) -> Self {
        Self {
            connection,
            problem,
            at: Instant::now(),
        }
    }
}

impl Link {
    /// Connects, declares the topology and hands the connection to a task on `tasks`.
    pub(super) async fn connect(
        config: &BrokerConfig,
        name: &str,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, BrokerError> {
        Self::keep(Dial::new(config, name)?, tasks, stop).await
    }

    /// The same, with a dial that is set.
    pub(super) async fn keep(
        dial: Dial,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let connection = dial.connect().await?;
        let doubt = Arc::new(Notify::new());
        let (sender, state) = watch::channel(State::new(Some(Arc::clone(&connection)), None));
        let keeper = Keeper {
            dial,
            state: sender,
            doubt: Arc::clone(&doubt),
            stop,
        };
        tasks.spawn(keeper.run(connection));
        Ok(Self { state, doubt })
    }

    /// The connection; waits for it while there is none.
    pub(super) async fn connection(&mut self) -> Result<Arc<Connection>, BrokerError> {
        let state = self.state.wait_for(|state| state.connection.is_some());
        match state.await {
            Ok(state) => state.connection.clone().ok_or(BrokerError::Stopped),
            // The keeper ends only when it is stopped.
            Err(_closed) => Err(BrokerError::Stopped),
        }
    }

    /// The connection, if there is one now that the broker reads from.
    pub(super) fn current(&self) -> Option<Arc<Connection>> {
        let state = self.state.borrow();
        let current = state.connection.as_ref().filter(|current| {
            let status = current.status();
            status.connected() && !status.blocked()
        });
        current.map(Arc::clone)
    }

    /// Returns when `connection` is not the one in use any more.
    pub(super) async fn gone(&mut self, connection: &Arc<Connection>) {
        let other = |state: &State| match &state.connection {
            Some(current) => !Arc::ptr_eq(current, connection),
            None => true,
        };
        // An error means that the keeper ended, and with it every connection.
        drop(self.state.wait_for(other).await);
    }

    /// Something hung on the connection, though it looks alive: it is given up for a new one.
    pub(super) fn give_up(&self, connection: &Arc<Connection>) {
        let state = self.state.borrow();
        let current = state.connection.as_ref();
        if current.is_some_and(|current| Arc::ptr_eq(current, connection)) {
            self.doubt.notify_one();
        }
    }

    /// Whether there is a connection that the broker reads from.
    pub(super) fn is_up(&self) -> bool {
        self.current().is_some()
    }

    /// For how long there has been a connection; nothing while there is none.
    pub(super) fn standing(&self) -> Duration {
        let state = self.state.borrow();
        let since = state.connection.as_ref().map(|_| state.at.elapsed());
        since.unwrap_or_default()
    }

    /// For how long nobody has tried to bring a lost connection back.
    pub(super) fn untried(&self) -> Duration {
        let state = self.state.borrow();
        if state.connection.is_some() {
            Duration::ZERO
        } else {
            state.at.elapsed()
        }
    }

    /// What the last connection or attempt ended with; none while it is well.
    pub(super) fn problem(&self) -> Option<String> {
        self.state.borrow().problem.as_deref().map(str::to_owned)
    }
}

struct Keeper {
    dial: Dial,
    state: watch::Sender<State>,
    doubt: Arc<Notify>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self, first: Arc<Connection>) {
        let mut connection = first;
        let stop = self.stop.clone();
        loop {
            let ended = stop.run_until_cancelled(self.watch(&connection)).await;
            if let Some(reason) = &ended {
                tracing::warn!(connection = self.dial.name, reason, "connection lost");
            }
            let problem = ended.as_deref().map(Arc::from);
            self.state.send_replace(State::new(None, problem));
            close(&connection).await;
            drop(connection);
            if ended.is_none() {
                return;
            }
            let Some(next) = stop.run_until_cancelled(self.reconnect()).await else {
                return;
            };
            // A doubt about the old connection that came too late is none about this one.
            if self.doubt.notified().now_or_never().is_some() {
                tracing::debug!(connection = self.dial.name, "it was given up before");
            }
            tracing::info!(connection = self.dial.name, "connected again");
            let connected = State::new(Some(Arc::clone(&next)), None);
            self.state.send_replace(connected);
            connection = next;
        }
    }

    /// Returns why the connection is of no use any more.
    async fn watch(&self, connection: &Arc<Connection>) -> String {
        let mut events = Box::pin(connection.events_listener());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => if let Some(reason) = self.ending(event) {
                    return reason;
                },
                () = self.doubt.notified() => return "given up: the broker did not answer".to_owned(),
                // An error that came before the listener did was told to nobody.
                _ = looks.tick() => if !connection.status().connected() {
                    return "the connection is closed".to_owned();
                },
            }
        }
    }

    fn ending(&self, event: Option<Event>) -> Option<String> {
        match event {
            None => return Some("the connection is closed".to_owned()),
            Some(Event::Error(error)) => return Some(error.to_string()),
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(
                    connection = self.dial.name,
                    reason,
                    "the broker takes no messages"
                );
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!(
                    connection = self.dial.name,
                    "the broker takes messages again"
                );
            }
            Some(_) => {}
        }
        None
    }

    async fn reconnect(&self) -> Arc<Connection> {
        let mut pause = Backoff::default();
        loop {
            sleep(pause.next()).await;
            match self.dial.connect().await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!(connection = self.dial.name, %error, "cannot reconnect yet");
                    let problem = Some(Arc::from(error.to_string()));
                    self.state.send_replace(State::new(None, problem));
                }
            }
        }
    }
}

/// Pauses from 0.2 s to 10 s, each up to half shorter by chance, so that the workers of a
/// restarted broker do not come back all at once.
#[derive(Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        const FIRST: Duration = Duration::from_millis(200);
        const LONGEST: Duration = Duration::from_secs(10);
        let pause = FIRST.saturating_mul(1 << self.tries.min(6)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_ten_seconds_and_no_further() {
        let mut backoff = Backoff::default();
        let first = backoff.next();
        assert!((100..=200).contains(&first.as_millis()), "{first:?}");
        let last = (0..100).map(|_| backoff.next()).last().unwrap();
        assert!((5_000..=10_000).contains(&last.as_millis()), "{last:?}");
    }
}

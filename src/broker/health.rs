use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::link::Link;

/// What the intake of jobs is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntakeState {
    /// Nobody wants jobs: there is no intake, or it was stopped.
    Stopped,
    /// Jobs are wanted, but no consumer is established.
    Waiting,
    /// The broker sends jobs.
    Consuming,
}

/// How the connections are, at one moment.
#[derive(Clone, Debug)]
pub struct BrokerHealth {
    /// What the intake is doing.
    pub intake: IntakeState,
    /// For how long it has been doing that.
    pub since: Duration,
    /// For how long there has been a connection to consume on; nothing while there is none.
    pub connected: Duration,
    /// For how long nobody has tried to bring a lost connection back; nothing while there are both.
    pub untried: Duration,
    /// Whether a publish would go out now.
    pub publishing: bool,
    /// What the last lost connection or failed attempt ended with, while it is not mended.
    pub last_error: Option<String>,
}

impl BrokerHealth {
    /// Whether the consumer is established.
    #[must_use]
    pub fn consuming(&self) -> bool {
        self.intake == IntakeState::Consuming
    }

    pub(super) fn read(gauge: &IntakeGauge, consume: &Link, publish: &Link) -> Self {
        let (mut intake, at) = gauge.get();
        // Whoever takes no job does not notice that the connection went.
        if intake == IntakeState::Consuming && !consume.is_up() {
            intake = IntakeState::Waiting;
        }
        Self {
            intake,
            since: at.elapsed(),
            connected: consume.standing(),
            untried: consume.untried().max(publish.untried()),
            publishing: publish.is_up(),
            last_error: consume.problem().or_else(|| publish.problem()),
        }
    }
}

/// Where the intake notes what it does.
#[derive(Clone)]
pub(super) struct IntakeGauge(Arc<Mutex<(IntakeState, Instant)>>);

impl Default for IntakeGauge {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((IntakeState::Stopped, Instant::now()))))
    }
}

impl IntakeGauge {
    pub(super) fn set(&self, state: IntakeState) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 != state {
            *kept = (state, Instant::now());
        }
    }

    fn get(&self) -> (IntakeState, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

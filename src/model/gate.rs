//! Calls of one model slow down together: when its server says that calls come too fast and how
//! long to wait, no call of that model leaves before.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Until when the calls of each model are held back.
#[derive(Default)]
pub(super) struct Gate(Mutex<HashMap<Box<str>, Instant>>);

impl Gate {
    /// Holds the calls of `model` back until `until`, or longer if they already are.
    pub(super) fn hold(&self, model: &str, now: Instant, until: Instant) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Jobs name models, so the map must not grow with the names they make up.
        held.retain(|_, until| *until > now);
        let held_until = held.entry(model.into()).or_insert(until);
        *held_until = until.max(*held_until);
    }

    /// How long a call of `model` has to wait; zero when it may leave.
    pub(super) fn wait(&self, model: &str, now: Instant) -> Duration {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(model)
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

/// `wait` and up to a twentieth more, so that those who were held do not leave at the same moment.
/// `random` is in `0..1`.
pub(super) fn spread(wait: Duration, random: f64) -> Duration {
    wait.saturating_add(wait.mul_f64(0.05 * random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_held_until_the_latest_moment_named_and_others_are_not() {
        let gate = Gate::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        gate.hold("a", now, now + 5 * second);
        gate.hold("a", now, now + 2 * second);
        assert_eq!(gate.wait("a", now), 5 * second);
        assert_eq!(gate.wait("b", now), Duration::ZERO);
        assert_eq!(gate.wait("a", now + 6 * second), Duration::ZERO);
    }

    #[test]
    fn models_whose_time_is_over_are_forgotten() {
        let gate = Gate::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        for number in 0..100 {
            gate.hold(&format!("model-{number}"), now, now + second);
        }
        gate.hold("last", now + 2 * second, now + 3 * second);
        assert_eq!(gate.0.lock().unwrap().len(), 1);
    }
}

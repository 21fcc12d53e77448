use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Which models did not answer of late: those that stand in for them are asked first. A clone is the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Standby(Arc<Mutex<HashMap<Box<str>, Instant>>>);

/// For so long a model that stayed down is asked last, rather than waited for by every job.
const REST: Duration = Duration::from_secs(30);

impl Standby {
    /// `models` in the order in which they are asked.
    pub(super) fn order<'a>(
        &self,
        models: impl IntoIterator<Item = &'a str>,
        now: Instant,
    ) -> Vec<&'a str> {
        let down = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models: Vec<_> = models.into_iter().collect();
        // A stable sort: the rest stays as it is configured.
        models.sort_by_key(|model| down.get(*model).is_some_and(|until| *until > now));
        models
    }

    /// `model` stayed down, and another is asked in its stead.
    pub(super) fn rest(&self, model: &str, now: Instant) {
        let mut down = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Jobs name models, so the map must not grow with the names they make up.
        down.retain(|_, until| *until > now);
        down.insert(model.into(), now + REST);
    }

    /// `model` answers again.
    pub(super) fn wake(&self, model: &str) {
        let mut down = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        down.remove(model);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_stayed_down_is_asked_last_until_its_rest_is_over() {
        let standby = Standby::default();
        let now = Instant::now();
        let order = |at| standby.order(["a", "b", "c"], at);
        assert_eq!(order(now), ["a", "b", "c"]);
        standby.rest("a", now);
        assert_eq!(order(now), ["b", "c", "a"]);
        standby.rest("b", now);
        assert_eq!(order(now), ["c", "a", "b"]);
        standby.wake("a");
        assert_eq!(order(now), ["a", "c", "b"]);
        assert_eq!(order(now + REST), ["a", "b", "c"]);
    }

    #[test]
    fn models_whose_rest_is_over_are_forgotten() {
        let standby = Standby::default();
        let now = Instant::now();
        for number in 0..100 {
            standby.rest(&format!("model-{number}"), now);
        }
        standby.rest("last", now + REST);
        assert_eq!(standby.0.lock().unwrap().len(), 1);
    }
}

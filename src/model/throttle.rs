//! How many calls of one model may be under way at the same time: as many as come, until its server says
//! that it is too much; then fewer, and slowly more again while it goes well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// What is left of the calls under way when the server says that they are too many.
const CUT: f64 = 0.7;
/// Calls that were under way together complain together: that is one cut.
const ONE_CUT: Duration = Duration::from_secs(1);
/// Beyond this there is no limit any more.
const FREE: f64 = 1024.0;
/// A limit that nobody met for so long is forgotten.
const FORGET: Duration = Duration::from_mins(10);

/// How a call went, as far as its server's load is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// It was answered.
    Fine,
    /// The server said that it has too much to do.
    TooMuch,
    /// Neither.
    Unknown,
}

/// The calls under way, by model.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<Box<str>, Arc<Lane>>>);

#[derive(Debug, Default)]
struct Lane {
    window: Mutex<Window>,
    freed: Notify,
}

/// A call under way.
#[derive(Debug)]
pub(super) struct UnderWay<'a> {
    throttle: &'a Throttle,
    model: &'a str,
    lane: Arc<Lane>,
}

impl Throttle {
    /// Waits until one more call of `model` may be under way.
    pub(super) async fn enter<'a>(&'a self, model: &'a str) -> UnderWay<'a> {
        let lane = {
            let mut lanes = self.lock();
            Arc::clone(lanes.entry(model.into()).or_default())
        };
        loop {
            let freed = lane.freed.notified();
            if lane.lock().enter() {
                break;
            }
            freed.await;
        }
        UnderWay {
            throttle: self,
            model,
            lane,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Lane>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay<'_> {
    /// The call ended so.
    pub(super) fn ended(self, load: Load) {
        self.lane.lock().learn(load, Instant::now());
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let forgettable = {
            let mut window = self.lane.lock();
            window.leave();
            window.is_forgettable(now)
        };
        // Two may fit where one left, when the limit has grown.
        self.lane.freed.notify_one();
        self.lane.freed.notify_one();
        if forgettable {
            // Jobs name models, so the map must not grow with the names they make up.
            let mut lanes = self.throttle.lock();
            lanes.retain(|name, lane| **name != *self.model || !lane.lock().is_forgettable(now));
        }
    }
}

/// The limit of one model. Pure.
#[derive(Debug)]
struct Window {
    under_way: u32,
    limit: f64,
    cut_at: Option<Instant>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            under_way: 0,
            limit: f64::INFINITY,
            cut_at: None,
        }
    }
}

impl Window {
    fn enter(&mut self) -> bool {
        let fits = f64::from(self.under_way) + 1.0 <= self.limit;
        if fits {
            self.under_way += 1;
        }
        fits
    }

    fn leave(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    fn learn(&mut self, load: Load, now: Instant) {
        match load {
            // One more for each round of calls that all went well.
            Load::Fine if self.limit.is_finite() => {
                self.limit += 1.0 / self.limit;
                if self.limit > FREE {
                    self.limit = f64::INFINITY;
                }
            }
            Load::TooMuch if self.may_cut(now) => {
                self.limit = (f64::from(self.under_way).min(self.limit) * CUT).max(1.0);
                self.cut_at = Some(now);
            }
            Load::Fine | Load::TooMuch | Load::Unknown => {}
        }
    }

    fn may_cut(&self, now: Instant) -> bool {
        self.cut_at
            .is_none_or(|at| now.saturating_duration_since(at) >= ONE_CUT)
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        let old = self
            .cut_at
            .is_none_or(|at| now.saturating_duration_since(at) >= FORGET);
        self.under_way == 0 && (self.limit.is_infinite() || old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(calls: u32) -> Window {
        let mut window = Window::default();
        for _ in 0..calls {
            assert!(window.enter());
        }
        window
    }

    #[test]
    fn nothing_is_limited_until_the_server_complains() {
        let now = Instant::now();
        let mut window = busy(100);
        window.learn(Load::Fine, now);
        window.learn(Load::Unknown, now);
        assert!(window.enter());
    }

    #[test]
    fn a_burst_of_complaints_is_one_cut_and_one_call_is_always_left() {
        let mut now = Instant::now();
        let mut window = busy(10);
        for _ in 0..10 {
            window.learn(Load::TooMuch, now);
        }
        assert!((window.limit - 7.0).abs() < 1e-9, "{window:?}");
        assert!(!window.enter());
        for _ in 0..50 {
            now += ONE_CUT;
            window.learn(Load::TooMuch, now);
        }
        assert!((window.limit - 1.0).abs() < 1e-9, "{window:?}");
    }

    #[test]
    fn a_round_of_good_calls_makes_room_for_one_more_until_there_is_no_limit() {
        let now = Instant::now();
        let mut window = busy(10);
        window.learn(Load::TooMuch, now);
        for _ in 0..8 {
            window.learn(Load::Fine, now);
        }
        assert!((8.0..8.2).contains(&window.limit), "{window:?}");
        for _ in 0..1_000_000 {
            window.learn(Load::Fine, now);
        }
        assert!(window.limit.is_infinite());
    }

    #[tokio::test]
    async fn calls_wait_for_one_another_and_models_do_not() {
        let throttle = Throttle::default();
        let (one, two) = (throttle.enter("m").await, throttle.enter("m").await);
        one.ended(Load::TooMuch);
        // The limit is one now, and one is under way.
        let mut third = Box::pin(throttle.enter("m"));
        assert!(futures_util::poll!(&mut third).is_pending());
        assert!(futures_util::poll!(Box::pin(throttle.enter("other"))).is_ready());
        two.ended(Load::Unknown);
        third.await.ended(Load::Fine);
    }

    #[tokio::test]
    async fn a_model_without_calls_and_limit_is_forgotten() {
        let throttle = Throttle::default();
        for number in 0..100 {
            let model = format!("model-{number}");
            throttle.enter(&model).await.ended(Load::Fine);
        }
        assert_eq!(throttle.lock().len(), 0);
    }
}

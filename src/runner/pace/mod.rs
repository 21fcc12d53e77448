//! Limits of tokens and requests a minute that all workers keep together: before a model is asked, a
//! call takes its part of the limit, and leaves when its turn comes.
//!
//! Postgres holds how far each limit is used up (`Store::reserve_rate`). What arrives together asks
//! together, with one round trip; where there is plenty, a worker takes some ahead, so that most calls
//! do not ask at all.

mod lane;
mod learn;
mod share;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chat::Prompt;
use crate::config::ModelConfig;
use crate::store::Store;
use lane::Lane;

pub(super) use lane::Pass;
use share::Rates;

/// The limits that are configured. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Pacer(Arc<HashMap<String, Arc<Lane>>>);

/// Whether a call may be made.
#[derive(Debug)]
pub(super) enum Paced {
    /// Now.
    Free(Pass),
    /// Not soon: somewhere else it may wait for this long.
    Later(Duration),
}

impl Pacer {
    /// Keeps the limits of each entry of the models' file, on `tasks`, until `stop`.
    #[must_use]
    pub fn start(
        models: &ModelConfig,
        store: &Store,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let limits = models.entries().map(|(name, profile)| {
            let rates = Rates {
                tokens: profile.tokens_per_minute,
                requests: profile.requests_per_minute.map(u64::from),
            };
            (name.to_owned(), rates)
        });
        let lanes = limits
            .filter(|(_, rates)| *rates != Rates::default())
            .map(|(name, rates)| {
                let (lane, keeping) = Lane::open(&name, rates, store.clone());
                let stop = stop.clone();
                tasks.spawn(async move { stop.run_until_cancelled(keeping).await });
                (name, lane)
            });
        Self(Arc::new(lanes.collect()))
    }

    /// Waits until a call with `prompt` may be made under the limits of `name`; at once where there are
    /// none.
    pub(super) async fn pass(&self, name: Option<&str>, prompt: &Prompt) -> Paced {
        match name.and_then(|name| self.0.get(name)) {
            Some(lane) => Box::pin(lane.pass(prompt)).await,
            None => Paced::Free(Pass::free()),
        }
    }
}

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Paced;
use super::learn::{self, Learnt};
use super::share::{Rates, Share, Toll, Turn, turns};
use crate::chat::{Prompt, Usage};
use crate::meter;
use crate::runner::insisting;
use crate::store::{RateGranted, Store, StoreError};

/// Calls that ask together.
const TOGETHER: usize = 256;
/// How often the other workers are told what calls took that was not reserved, or did not take.
const SETTLE: Duration = Duration::from_secs(1);

/// The limits of one model, as this worker keeps them.
#[derive(Debug)]
pub(super) struct Lane {
    name: String,
    rates: Rates,
    state: Mutex<State>,
    queue: mpsc::UnboundedSender<Waiting>,
}

#[derive(Debug, Default)]
struct State {
    share: Share,
    learnt: Learnt,
}

/// A call that has to ask.
#[derive(Debug)]
struct Waiting {
    toll: Toll,
    answer: oneshot::Sender<Turn>,
}

impl Lane {
    /// A lane, and what keeps it.
    pub(super) fn open(
        name: &str,
        rates: Rates,
        store: Store,
    ) -> (Arc<Self>, impl Future<Output = ()> + use<>) {
        // As many as there are slots at most: each waits for its answer.
        let (queue, waiting) = mpsc::unbounded_channel();
        let lane = Arc::new(Self {
            name: name.to_owned(),
            rates,
            state: Mutex::default(),
            queue,
        });
        let keeping = keep(Arc::clone(&lane), store, waiting);
        (lane, keeping)
    }

    /// Waits until a call with `prompt` may be made.
    pub(super) async fn pass(self: &Arc<Self>, prompt: &Prompt) -> Paced {
        let bytes = learn::bytes(prompt);
        let (toll, taken) = {
            let mut state = self.lock();
            let tokens = state.learnt.tokens(bytes, prompt.options.max_output_tokens);
            let toll = self.rates.toll(tokens);
            (toll, state.share.take(toll, Instant::now()))
        };
        let pass = || Pass {
            lane: Some(Arc::clone(self)),
            toll,
            bytes,
            used: false,
        };
        if taken {
            return Paced::Free(pass());
        }
        let asked = Instant::now();
        let (answer, turn) = oneshot::channel();
        if self.queue.send(Waiting { toll, answer }).is_err() {
            return Paced::Free(Pass::free());
        }
        let paced = match turn.await {
            Ok(Turn::In(wait)) => {
                // Held while it waits: a run that stops meanwhile gives its part back.
                let pass = pass();
                tokio::time::sleep(wait).await;
                Paced::Free(pass)
            }
            Ok(Turn::Later(wait)) => Paced::Later(wait),
            // The worker stops, and the run with it.
            Err(_) => Paced::Free(Pass::free()),
        };
        meter::model_paced(asked.elapsed());
        paced
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for all of these calls.
    async fn reserve(&self, store: &Store, batch: Vec<Waiting>) {
        let tolls: Vec<_> = batch.iter().map(|waiting| waiting.toll).collect();
        let wanted = self.lock().share.ask(&tolls, Instant::now());
        let granted: Result<RateGranted, StoreError> =
            insisting!("rates", store, store.reserve_rate(&self.name, wanted));
        let granted = match granted {
            Ok(granted) => granted,
            Err(error) => {
                // A limit is there to serve the jobs and not to stop them.
                tracing::error!(model.limits = self.name, %error, "the limits of a model cannot be kept");
                RateGranted {
                    granted: true,
                    tokens_in: f64::NEG_INFINITY,
                    requests_in: f64::NEG_INFINITY,
                    ahead: 0.0,
                }
            }
        };
        self.lock().share.keep(granted, Instant::now());
        for (waiting, turn) in batch.into_iter().zip(turns(&tolls, granted)) {
            // Whoever went away meanwhile does not need its part.
            if let (Err(_), true) = (waiting.answer.send(turn), granted.granted) {
                self.lock().share.owe(-waiting.toll.tokens);
            }
        }
    }
}

/// Asks for the calls that wait, until the lane is gone.
async fn keep(lane: Arc<Lane>, store: Store, mut queue: mpsc::UnboundedReceiver<Waiting>) {
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            _ = queue.recv_many(&mut batch, TOGETHER) => {}
            () = tokio::time::sleep(SETTLE) => {
                if !lane.lock().share.is_unsettled(Instant::now()) {
                    continue;
                }
            }
        }
        batch.retain(|waiting| !waiting.answer.is_closed());
        lane.reserve(&store, batch).await;
    }
}

/// A call's part of the limits. Dropped before the call is made, it is given back.
#[derive(Debug)]
pub(in crate::runner) struct Pass {
    lane: Option<Arc<Lane>>,
    toll: Toll,
    bytes: usize,
    used: bool,
}

impl Pass {
    /// Where there is no limit.
    pub(super) fn free() -> Self {
        Self {
            lane: None,
            toll: Toll::default(),
            bytes: 0,
            used: true,
        }
    }

    /// The call is made now: whatever becomes of it, the server may have counted it.
    pub(in crate::runner) fn begin(&mut self) {
        self.used = true;
    }

    /// The call took this.
    pub(in crate::runner) fn settle(self, usage: &Usage) {
        let Some(lane) = self.lane.as_ref().filter(|_| usage.total_tokens > 0) else {
            return;
        };
        let mut state = lane.lock();
        state.learnt.see(self.bytes, usage);
        state
            .share
            .owe(lane.rates.owed(usage.total_tokens, self.toll));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.as_ref().filter(|_| !self.used) {
            lane.lock().share.owe(-self.toll.tokens);
        }
    }
}

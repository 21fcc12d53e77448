use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Paced;
use super::learn::{self, Learnt};
use super::share::{Rates, Share, Toll, Turns, together, turns};
use crate::chat::{Prompt, Usage};
use crate::meter;
use crate::runner::insisting;
use crate::store::{RateGranted, Store, StoreError};

/// How long a call waits in its slot. Then the job waits as a row, for this long and up to as long again.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the other workers are told what calls took that was not reserved, or did not take.
const SETTLE: Duration = Duration::from_secs(1);
/// Workers that were told to ask again at the same moment do so within this.
const SPREAD: Duration = Duration::from_millis(200);

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
    bytes: usize,
    since: Instant,
    /// After how long it may leave, and with what; none: not soon. An answer that nobody reads gives back
    /// what it holds.
    answer: oneshot::Sender<Option<(Duration, Pass)>>,
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
        if taken {
            return Paced::Free(self.pass_for(toll, bytes));
        }
        let since = Instant::now();
        let (answer, turn) = oneshot::channel();
        let waiting = Waiting {
            toll,
            bytes,
            since,
            answer,
        };
        if self.queue.send(waiting).is_err() {
            return Paced::Free(Pass::free());
        }
        let paced = match turn.await {
            // Held while it waits: a run that stops meanwhile gives its part back.
            Ok(Some((wait, pass))) => {
                tokio::time::sleep(wait).await;
                Paced::Free(pass)
            }
            Ok(None) => Paced::Later(PATIENCE),
            // The worker stops, and the run with it.
            Err(_) => Paced::Free(Pass::free()),
        };
        meter::model_paced(since.elapsed());
        paced
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for what these calls take together.
    async fn reserve(&self, store: &Store, tolls: &[Toll]) -> Turns {
        let wanted = self.lock().share.ask(tolls, Instant::now());
        let granted: Result<RateGranted, StoreError> =
            insisting!("rates", store, store.reserve_rate(&self.name, wanted));
        match granted {
            Ok(granted) => {
                self.lock().share.keep(granted, Instant::now());
                turns(tolls, granted)
            }
            Err(error) => {
                // A limit is there to serve the jobs and not to stop them.
                tracing::error!(model.limits = self.name, %error, "the limits of a model cannot be kept");
                Turns::In(vec![Duration::ZERO; tolls.len()])
            }
        }
    }

    /// Tells calls when they leave. Whoever went away meanwhile does not need its part.
    fn tell(self: &Arc<Self>, calls: impl Iterator<Item = Waiting>, turns: Vec<Duration>) {
        for (waiting, turn) in calls.zip(turns) {
            let pass = self.pass_for(waiting.toll, waiting.bytes);
            drop(waiting.answer.send(Some((turn, pass))));
        }
    }

    fn pass_for(self: &Arc<Self>, toll: Toll, bytes: usize) -> Pass {
        Pass {
            lane: Some(Arc::clone(self)),
            toll,
            bytes,
            used: false,
        }
    }
}

/// Asks for the calls that wait, in their order, for ever.
async fn keep(lane: Arc<Lane>, store: Store, mut queue: mpsc::UnboundedReceiver<Waiting>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            tokio::select! {
                first = queue.recv() => waiting.extend(first),
                () = tokio::time::sleep(SETTLE) => {
                    if lane.lock().share.is_unsettled(Instant::now()) {
                        lane.reserve(&store, &[]).await;
                    }
                    continue;
                }
            }
        }
        while let Ok(next) = queue.try_recv() {
            waiting.push_back(next);
        }
        send_away(&mut waiting);
        let asking = together(waiting.iter().map(|call| call.toll)).min(waiting.len());
        let tolls: Vec<_> = (waiting.iter().take(asking).map(|call| call.toll)).collect();
        if tolls.is_empty() {
            continue;
        }
        match lane.reserve(&store, &tolls).await {
            Turns::In(turns) => lane.tell(waiting.drain(..asking), turns),
            Turns::Later(wait) => {
                // Spread, so that each of the workers comes first at times.
                let spread = SPREAD.mul_f64(fastrand::f64());
                tokio::time::sleep(wait.min(SETTLE) + spread).await;
            }
        }
    }
}

/// Whoever has waited for long waits elsewhere; whoever went away does not wait.
fn send_away(waiting: &mut VecDeque<Waiting>) {
    waiting.retain(|call| !call.answer.is_closed());
    while let Some(call) = waiting.pop_front() {
        if call.since.elapsed() < PATIENCE {
            waiting.push_front(call);
            break;
        }
        // It may have gone away just now.
        call.answer.send(None).ok();
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

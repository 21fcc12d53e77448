//! The scripted model, which fails now and then, and a count of what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stub_model::{Reply, Script, StubModel};
use crate::wish::Wish;

/// What the model was asked. A clone is the same book.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<Book>>);

/// The model calls of each job.
pub(crate) type Book = BTreeMap<Uuid, Calls>;

/// The model calls of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Answered as a model should; whether anybody was there to hear it is another matter.
    pub(crate) answered: u32,
    /// 500.
    pub(crate) broken: u32,
    /// 429.
    pub(crate) held_back: u32,
    /// Answered with what nobody can read, or not at all.
    pub(crate) garbled: u32,
}

impl Asked {
    /// All of it, as it is now.
    pub(crate) fn book(&self) -> Book {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// The calls of all jobs.
    pub(crate) fn total(book: &Book) -> Self {
        let mut total = Self::default();
        for calls in book.values() {
            total.answered += calls.answered;
            total.broken += calls.broken;
            total.held_back += calls.held_back;
            total.garbled += calls.garbled;
        }
        total
    }

    fn count(self) -> u32 {
        self.answered + self.broken + self.held_back + self.garbled
    }
}

/// Starts it. How it fails depends on the seed, the job, and how often the job has asked.
pub(crate) fn start(seed: u64, asked: &Asked) -> StubModel {
    let asked = asked.clone();
    let script = Script::closure(move |request| reply(request, seed, &asked));
    StubModel::start(script).forgetful()
}

fn reply(request: &Value, seed: u64, asked: &Asked) -> Reply {
    let messages = request["messages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let turn = messages
        .iter()
        .rposition(|message| message["role"] == "user");
    let since = turn
        .and_then(|turn| messages.get(turn..))
        .unwrap_or_default();
    let text = since
        .first()
        .and_then(|message| message["content"].as_str());
    let Some(wish) = text.and_then(Wish::parse) else {
        return Reply::error(
            400,
            "invalid_request_error",
            "no_wish",
            "this is no job of chaos",
        );
    };
    let mut book = asked.lock();
    let calls = book.entry(wish.job).or_default();
    let job = wish.job.as_u64_pair();
    let mut random = Rng::with_seed(seed ^ job.0 ^ job.1.rotate_left(calls.count() % 64));
    match random.u32(0..100) {
        0..8 => {
            calls.broken += 1;
            Reply::error(500, "server_error", "internal", "something broke")
        }
        8..10 => {
            calls.held_back += 1;
            Reply::error(429, "requests", "rate_limit_exceeded", "slow down")
                .with_header("retry-after", "1")
        }
        10..14 => {
            calls.garbled += 1;
            match random.u32(0..3) {
                0 => Reply::truncated(),
                1 => Reply::close(),
                _ => Reply::raw(200, "<html>a page of a proxy</html>"),
            }
        }
        what => {
            calls.answered += 1;
            let delay = if what < 25 { 500..3000 } else { 20..300 };
            answer(wish, since).after(Duration::from_millis(random.u64(delay)))
        }
    }
}

/// Tools as often as the job wishes, then words.
fn answer(wish: Wish, since: &[Value]) -> Reply {
    let asks = |message: &&Value| message["tool_calls"].is_array();
    let done = u32::try_from(since.iter().filter(asks).count()).unwrap_or(u32::MAX);
    if done >= wish.rounds {
        return Reply::text(format!("done {}", wish.job));
    }
    Reply::calls((0..wish.calls).map(|call| match (done + call) % 3 {
        0 => ("calc__append", json!({"line": wish.job})),
        1 => ("calc__add", json!({"a": done, "b": call})),
        _ => ("calc__sleep", json!({"ms": wish.pause_ms})),
    }))
}

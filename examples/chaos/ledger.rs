//! Which jobs were published, and which results came.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::jobs::Order;

/// A clone is the same ledger.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Inner>);

#[derive(Default)]
struct Inner {
    entries: Mutex<Entries>,
    marked: Notify,
}

/// All that was noted.
#[derive(Clone, Default)]
pub(crate) struct Entries {
    /// The jobs, each once.
    pub(crate) jobs: BTreeMap<Uuid, Entry>,
    /// Messages that the broker confirmed, repeats of jobs among them.
    pub(crate) confirmed: u32,
    /// Messages that were sent again because nobody knew whether they had come.
    pub(crate) unsure: u32,
    /// Results that belong to no job, or cannot be read.
    pub(crate) strange: Vec<String>,
    marks: HashSet<String>,
}

/// A job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    /// Whether its result goes to a queue that it names.
    pub(crate) wants_reply: bool,
    /// Whether it is a turn of a longer conversation.
    pub(crate) is_turn: bool,
    /// Results that came.
    pub(crate) results: u32,
    /// The different ones among them.
    pub(crate) bodies: Vec<Value>,
}

impl Ledger {
    /// A job will be published.
    pub(crate) fn expect(&self, order: &Order) {
        let entry = Entry {
            wants_reply: order.wants_reply,
            is_turn: order.is_turn,
            ..Entry::default()
        };
        self.lock().jobs.insert(order.id, entry);
    }

    /// The broker has a job, or a repeat of one.
    pub(crate) fn confirmed(&self) {
        self.lock().confirmed += 1;
    }

    /// Nobody knows whether the broker has it.
    pub(crate) fn unsure(&self) {
        self.lock().unsure += 1;
    }

    /// A result came.
    pub(crate) fn note(&self, message_id: &str, body: &[u8]) {
        let mut entries = self.lock();
        if body.is_empty() {
            entries.marks.insert(message_id.to_owned());
            self.0.marked.notify_waiters();
            return;
        }
        let body: Option<Value> = serde_json::from_slice(body).ok();
        let id = Uuid::parse_str(message_id).ok();
        let known = id.and_then(|id| entries.jobs.get_mut(&id));
        match (known, body) {
            (Some(entry), Some(body)) if body.get("job_id").is_some_and(|id| id == message_id) => {
                entry.results += 1;
                if !entry.bodies.contains(&body) {
                    entry.bodies.push(body);
                }
            }
            (_, body) => {
                let body = body.unwrap_or_default();
                entries.strange.push(format!("{message_id:?}: {body}"));
            }
        }
    }

    /// Waits until an empty message of this id came.
    pub(crate) async fn marked(&self, id: &str) {
        loop {
            let marked = self.0.marked.notified();
            if self.lock().marks.contains(id) {
                return;
            }
            marked.await;
        }
    }

    /// Jobs and how many of them are answered.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let entries = self.lock();
        let answered = entries.jobs.values().filter(|entry| entry.results > 0);
        (entries.jobs.len(), answered.count())
    }

    /// All of it, as it is now.
    pub(crate) fn entries(&self) -> Entries {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        let entries = self.0.entries.lock();
        entries.unwrap_or_else(PoisonError::into_inner)
    }
}

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::events::JobEvents;
use crate::model::{Ear, Heard};
use crate::wire::{Happening, ResultError};

/// Between two events of what the model says: fewer than twenty a second, the last of a round, which
/// does not wait, included.
const PACE: Duration = Duration::from_millis(55);

/// What the model says in one round, gathered into events.
#[derive(Clone)]
pub(super) struct Deltas(Arc<Inner>);

struct Inner {
    events: JobEvents,
    iteration: u32,
    wants_text: bool,
    gathered: Mutex<Gathered>,
    more: Notify,
}

#[derive(Default)]
struct Gathered {
    text: String,
    /// Whether anything was heard since the model was asked, or asked again.
    has_heard: bool,
}

impl Deltas {
    pub(super) fn of(events: &JobEvents, iteration: u32, wants_text: bool) -> Self {
        Self(Arc::new(Inner {
            events: events.clone(),
            iteration,
            wants_text,
            gathered: Mutex::default(),
            more: Notify::new(),
        }))
    }

    /// Who listens to the model.
    pub(super) fn ear(&self) -> Ear {
        let deltas = self.clone();
        Ear::new(self.0.wants_text, move |heard| deltas.hear(heard))
    }

    fn hear(&self, heard: Heard<'_>) {
        match heard {
            Heard::Text(text) => {
                let mut gathered = self.gathered();
                gathered.has_heard = true;
                gathered.text.push_str(text);
                drop(gathered);
                self.0.more.notify_one();
            }
            Heard::Again(error) => {
                *self.gathered() = Gathered::default();
                self.0.events.say(|| Happening::ModelRestarted {
                    iteration: self.0.iteration,
                    error: ResultError {
                        code: error.code(),
                        message: error.to_string(),
                    },
                });
            }
        }
    }

    /// Says what is gathered, at its pace; for as long as it is polled.
    pub(super) async fn keep_saying<T>(&self) -> T {
        loop {
            self.0.more.notified().await;
            self.say_gathered();
            tokio::time::sleep(PACE).await;
        }
    }

    /// Says the rest. An answer that did not come piece by piece is one piece.
    pub(super) fn end(&self, content: Option<&str>) {
        if !self.0.wants_text {
            return;
        }
        let mut gathered = self.gathered();
        if !gathered.has_heard {
            content.unwrap_or_default().clone_into(&mut gathered.text);
        }
        drop(gathered);
        self.say_gathered();
    }

    fn say_gathered(&self) {
        let text = std::mem::take(&mut self.gathered().text);
        if !text.is_empty() {
            self.0.events.say(|| Happening::ModelDelta {
                iteration: self.0.iteration,
                text,
            });
        }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.0
            .gathered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

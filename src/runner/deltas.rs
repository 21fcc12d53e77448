use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::events::JobEvents;
use crate::fault::ErrorCode;
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
    /// What was said of it already, since the model was asked, or asked again.
    said: String,
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
                self.gathered().text.push_str(text);
                self.0.more.notify_one();
            }
            Heard::Again(error) => {
                self.restart(error.code(), error.to_string());
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

    /// Says the rest: the pieces together are the answer. One that did not come piece by piece is one piece; where
    /// the whole is not what was heard, it is said anew.
    pub(super) fn end(&self, content: Option<&str>) {
        if !self.0.wants_text {
            return;
        }
        let content = content.unwrap_or_default();
        let rest = content.strip_prefix(self.gathered().said.as_str());
        if rest.is_none() {
            let what = "the answer is not what its pieces were";
            self.restart(ErrorCode::ModelProtocol, what.to_owned());
        }
        rest.unwrap_or(content)
            .clone_into(&mut self.gathered().text);
        self.say_gathered();
    }

    fn restart(&self, code: ErrorCode, message: String) {
        *self.gathered() = Gathered::default();
        self.0.events.say(|| Happening::ModelRestarted {
            iteration: self.0.iteration,
            error: ResultError { code, message },
        });
    }

    fn say_gathered(&self) {
        let mut gathered = self.gathered();
        let text = std::mem::take(&mut gathered.text);
        if text.is_empty() {
            return;
        }
        gathered.said.push_str(&text);
        drop(gathered);
        self.0.events.say(|| Happening::ModelDelta {
            iteration: self.0.iteration,
            text,
        });
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.0
            .gathered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::{Events, Whose};
    use super::*;
    use crate::clock::SystemClock;
    use crate::ids::{ConversationId, JobId};

    /// What is told of an answer of which `heard` was heard first.
    async fn told(heard: &[&str], content: Option<&str>) -> Vec<Option<String>> {
        let (events, mut said) = Events::channel(Arc::new(SystemClock));
        let whose = Whose {
            job_id: JobId(uuid::Uuid::nil()),
            conversation_id: ConversationId(uuid::Uuid::nil()),
            user_id: Arc::from("u"),
            attempt: 1,
            metadata: None,
        };
        let deltas = Deltas::of(&events.of(whose, 0), 1, true);
        for text in heard {
            deltas.hear(Heard::Text(text));
            deltas.say_gathered();
        }
        deltas.hear(Heard::Text(""));
        deltas.end(content);
        drop((deltas, events));
        let events = said.next(usize::MAX).await.unwrap_or_default();
        let text = |event: crate::wire::Event| {
            if let Happening::ModelDelta { text, .. } = event.what {
                return Some(text);
            }
            None
        };
        events.into_iter().map(text).collect()
    }

    fn all(texts: &[&str]) -> Vec<Option<String>> {
        texts.iter().map(|text| Some((*text).to_owned())).collect()
    }

    #[tokio::test]
    async fn the_pieces_together_are_the_answer() {
        assert_eq!(
            told(&["he", "llo"], Some("hello")).await,
            all(&["he", "llo"])
        );
        assert_eq!(told(&[], Some("hello")).await, all(&["hello"]));
        assert_eq!(told(&["he"], Some("hello")).await, all(&["he", "llo"]));
        assert_eq!(told(&[], None).await, []);
        // It is said anew: what was heard is void.
        let anew = told(&["hallo"], Some("hello")).await;
        assert_eq!(
            anew,
            [all(&["hallo"]), vec![None], all(&["hello"])].concat()
        );
        let unsaid = told(&["hello"], None).await;
        assert_eq!(unsaid, [all(&["hello"]), vec![None]].concat());
    }
}

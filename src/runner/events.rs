use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::ids::{ConversationId, JobId};
use crate::meter;
use crate::wire::{Event, Happening};

/// Events that may wait to be sent; what comes then is dropped.
const MOST: usize = 4_096;
/// Places that are kept from `model.delta` and `tool.progress`: of these there are many, and one
/// that is lost is a gap; the others tell of something that happens once.
const KEPT: usize = 1_024;
/// Bytes of texts and results that may wait.
const MOST_BYTES: usize = 16 << 20;

/// Where runs say what happens: never waits, and drops what finds no room.
#[derive(Clone)]
pub struct Events {
    sender: mpsc::Sender<(Event, usize)>,
    bytes: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
}

/// What was said and is to be sent.
pub struct Said {
    receiver: mpsc::Receiver<(Event, usize)>,
    bytes: Arc<AtomicUsize>,
}

/// Whose events they are.
#[derive(Clone, Debug)]
pub struct Whose {
    /// The job.
    pub job_id: JobId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Who it speaks for.
    pub user_id: Arc<str>,
    /// The run that says it; 0 before the first.
    pub attempt: u32,
    /// The job's metadata.
    pub metadata: Option<Arc<Map<String, Value>>>,
}

/// The events of one attempt of a job. A clone counts on with it.
#[derive(Clone)]
pub struct JobEvents(Arc<Inner>);

struct Inner {
    events: Events,
    whose: Whose,
    /// The number of the last event. Held while one is put in line, so that numbers and line agree.
    last: Mutex<u64>,
}

impl std::fmt::Debug for JobEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("JobEvents").field(&self.0.whose).finish()
    }
}

impl Events {
    /// Both ends.
    #[must_use]
    pub fn channel(clock: Arc<dyn Clock>) -> (Self, Said) {
        let (sender, receiver) = mpsc::channel(MOST);
        let bytes = Arc::<AtomicUsize>::default();
        let said = Said {
            receiver,
            bytes: Arc::clone(&bytes),
        };
        let events = Self {
            sender,
            bytes,
            clock,
        };
        (events, said)
    }

    /// The events of an attempt, of which `last` were said before.
    #[must_use]
    pub fn of(&self, whose: Whose, last: u64) -> JobEvents {
        JobEvents(Arc::new(Inner {
            events: self.clone(),
            whose,
            last: Mutex::new(last),
        }))
    }
}

impl JobEvents {
    /// Says what happened, if there is room for it. It is built only then.
    pub fn say(&self, what: impl FnOnce() -> Happening) {
        let Inner {
            events,
            whose,
            last,
        } = &*self.0;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        // What is dropped is counted too: the gap tells of it.
        *last += 1;
        let Ok(room) = events.sender.try_reserve() else {
            return meter::events_dropped(1);
        };
        let what = what();
        let bytes = weight(&what);
        if is_frequent(&what) && events.sender.capacity() < KEPT
            || events.bytes.load(Ordering::Relaxed).saturating_add(bytes) > MOST_BYTES
        {
            return meter::events_dropped(1);
        }
        events.bytes.fetch_add(bytes, Ordering::Relaxed);
        let event = Event {
            version: 1,
            what,
            job_id: whose.job_id,
            conversation_id: whose.conversation_id,
            user_id: Arc::clone(&whose.user_id),
            attempt: whose.attempt,
            sequence: *last,
            at: events.clock.now(),
            metadata: whose.metadata.clone(),
        };
        room.send((event, bytes));
    }

    /// How many events there were.
    #[must_use]
    pub fn said(&self) -> u64 {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// The next events, at least one and at most `most`; none when nobody can say anything more.
    pub async fn next(&mut self, most: usize) -> Option<Vec<Event>> {
        let mut said = Vec::new();
        if self.receiver.recv_many(&mut said, most).await == 0 {
            return None;
        }
        Some(self.taken(said))
    }

    fn taken(&self, said: Vec<(Event, usize)>) -> Vec<Event> {
        let bytes = said.iter().map(|(_, bytes)| bytes).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        said.into_iter().map(|(event, _)| event).collect()
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

fn is_frequent(what: &Happening) -> bool {
    matches!(
        what,
        Happening::ModelDelta { .. } | Happening::ToolProgress { .. }
    )
}

/// Bytes that an event holds beside what all of them do.
fn weight(what: &Happening) -> usize {
    match what {
        Happening::JobFinished { result } => {
            let reply = result.message.as_ref();
            reply.map_or(0, |reply| reply.content.len())
        }
        Happening::ModelDelta { text, .. } => text.len(),
        Happening::ToolProgress { message, .. } => message.as_ref().map_or(0, String::len),
        Happening::JobStarted { .. }
        | Happening::JobWaiting { .. }
        | Happening::ModelStarted { .. }
        | Happening::ModelRestarted { .. }
        | Happening::ModelFinished { .. }
        | Happening::ToolsMissing { .. }
        | Happening::ToolStarted { .. }
        | Happening::ToolFinished { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn whose() -> Whose {
        Whose {
            job_id: JobId(uuid::Uuid::nil()),
            conversation_id: ConversationId(uuid::Uuid::nil()),
            user_id: Arc::from("u"),
            attempt: 1,
            metadata: None,
        }
    }

    fn delta(bytes: usize) -> Happening {
        Happening::ModelDelta {
            iteration: 1,
            text: "x".repeat(bytes),
        }
    }

    fn missing() -> Happening {
        Happening::ToolsMissing {
            servers: Vec::new(),
        }
    }

    async fn numbers(said: &mut Said) -> Vec<u64> {
        let events = said.next(usize::MAX).await.unwrap();
        events.into_iter().map(|event| event.sequence).collect()
    }

    #[tokio::test]
    async fn nobody_waits_when_nobody_sends_and_the_gap_tells_of_what_is_lost() {
        let (events, mut said) = Events::channel(Arc::new(SystemClock));
        let job = events.of(whose(), 0);
        for _ in 0..MOST + 10 {
            job.say(missing);
        }
        assert_eq!(
            numbers(&mut said).await,
            (1..=MOST as u64).collect::<Vec<_>>()
        );
        job.say(missing);
        assert_eq!(numbers(&mut said).await, [MOST as u64 + 11]);
    }

    #[tokio::test]
    async fn what_happens_once_finds_room_where_deltas_do_not() {
        let (events, mut said) = Events::channel(Arc::new(SystemClock));
        let job = events.of(whose(), 0);
        for _ in 0..MOST {
            job.say(|| delta(1));
        }
        job.say(missing);
        let numbers = numbers(&mut said).await;
        assert_eq!(numbers.len(), MOST - KEPT + 1);
        assert_eq!(numbers.last(), Some(&(MOST as u64 + 1)));
    }

    #[tokio::test]
    async fn texts_that_wait_are_bounded_in_bytes() {
        let (events, mut said) = Events::channel(Arc::new(SystemClock));
        let job = events.of(whose(), 0);
        for _ in 0..20 {
            job.say(|| delta(1 << 20));
        }
        assert_eq!(numbers(&mut said).await.len(), 16);
        job.say(|| delta(1 << 20));
        assert_eq!(numbers(&mut said).await, [21], "there is room again");
    }

    #[test]
    fn what_finds_no_room_is_not_built() {
        let (events, said) = Events::channel(Arc::new(SystemClock));
        drop(said);
        let job = events.of(whose(), 0);
        job.say(|| panic!("it is for nobody"));
        assert_eq!(job.said(), 1);
    }
}

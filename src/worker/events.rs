use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::broker::{Announcement, Announcer};
use crate::escape::disarm;
use crate::ids::ConversationId;
use crate::meter;
use crate::runner::{JobEvents, Said, Whose};
use crate::store::Parked;
use crate::wire::{Event, Happening, JobResult};

/// Events that are written together.
const BATCH: usize = 128;
/// How long others are waited for, to be written with the first: to write each by itself would cost the
/// worker and the broker twice as much. The end of a job waits for none, unless jobs end all the time.
const GATHER: Duration = Duration::from_millis(10);
/// The least time between two writes.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the last ones may take when the worker stops.
const LAST: Duration = Duration::from_millis(500);

/// Sends what is said until `stop`, and what is left then: in a task of its own, so that a broker
/// that is slow to read slows no run.
pub(super) async fn announce(mut said: Said, mut announcer: Announcer, stop: CancellationToken) {
    let sending = async {
        let mut next = Instant::now();
        while let Some(Some(mut events)) = stop.run_until_cancelled(said.next(BATCH)).await {
            let gathering = gather(&mut said, &mut events, next);
            stop.run_until_cancelled(gathering).await;
            send(&mut announcer, &events).await;
            next = Instant::now() + PAUSE;
        }
        while !said.is_empty()
            && let Some(events) = said.next(BATCH).await
        {
            send(&mut announcer, &events).await;
        }
    };
    let over = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST).await;
    };
    tokio::select! {
        () = sending => {}
        () = over => tracing::info!("the last events are lost"),
    }
}

/// Waits for more events, for as long as they may wait; not before `next` are they written.
async fn gather(said: &mut Said, events: &mut Vec<Event>, next: Instant) {
    let until = Instant::now() + GATHER;
    while events.len() < BATCH {
        let has_end = events
            .iter()
            .any(|event| matches!(event.what, Happening::JobFinished { .. }));
        let until = if has_end { next } else { until };
        match timeout_at(until, said.next(BATCH)).await {
            Ok(Some(more)) => events.extend(more),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Stands after whatever a run has said of which nothing more is known.
const LAST_NUMBER: u64 = 1 << 31;

impl Worker {
    /// The events of a job that ended without a run, of which `last` were said before, if that is known.
    pub(super) fn events_after(&self, result: &JobResult, last: Option<u64>) -> JobEvents {
        let whose = Whose {
            job_id: result.job_id,
            conversation_id: result
                .conversation_id
                .unwrap_or(ConversationId(result.job_id.0)),
            user_id: Arc::from(result.user_id.as_deref().unwrap_or_default()),
            attempt: result.attempt,
            metadata: result.metadata.clone().map(Arc::new),
        };
        self.0.events.of(whose, last.unwrap_or(LAST_NUMBER - 1))
    }

    /// Says that a claim let a job wait.
    pub(super) fn parked(&self, parked: Parked) {
        let metadata = parked.metadata.as_deref();
        let whose = Whose {
            job_id: parked.job_id,
            conversation_id: parked.conversation_id,
            user_id: Arc::from(parked.user_id),
            attempt: parked.attempt,
            metadata: metadata.and_then(|text| serde_json::from_str(text).ok()),
        };
        let events = self.0.events.of(whose, parked.events.saturating_sub(1));
        events.say(|| Happening::JobWaiting {
            reason: parked.reason,
            due_at: parked.due_at,
            calls: Vec::new(),
            error: None,
        });
    }
}

async fn send(announcer: &mut Announcer, events: &[Event]) {
    let events: Vec<_> = events.iter().map(announcement).collect();
    let lost = announcer.announce(&events).await;
    meter::events_published(events.len().saturating_sub(lost));
    meter::events_dropped(lost);
}

fn announcement(event: &Event) -> Announcement {
    // An event holds texts and numbers only, which always are JSON.
    let json = serde_json::to_string(event).unwrap_or_default();
    let json = match disarm(&json) {
        std::borrow::Cow::Borrowed(_) => json,
        std::borrow::Cow::Owned(disarmed) => disarmed,
    };
    Announcement {
        job: event.job_id,
        event: event.what.name(),
        body: Bytes::from(json),
    }
}

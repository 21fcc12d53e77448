//! Waiting for the answer to a call: how long, and what else may come.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::progress::{Following, ToolProgress};
use super::session::{Halt, LAST_BYTES};

/// Progress is passed on no more often than this, whatever a server does.
const PASS_ON: Duration = Duration::from_millis(100);

/// How long the answer to a call is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Without any sign of life: each progress begins it anew.
    pub(super) idle: Duration,
    /// All in all.
    pub(super) total: Duration,
    /// What has passed of the first silence before the call was made.
    pub(super) waited: Duration,
}

/// What came of waiting.
#[derive(Debug)]
pub(super) enum Waited<T> {
    /// The answer.
    Answered(T),
    /// Nothing for this long, and no progress before.
    TimedOut(Duration),
    /// There was progress, and then nothing for this long.
    Silent(Duration),
    /// The process ended.
    Ended,
    /// Nobody waits for the answer any more.
    Cancelled,
}

impl Patience {
    /// What is left of it `elapsed` later.
    pub(super) fn after(self, elapsed: Duration) -> Self {
        self.within(self.total.saturating_sub(elapsed))
    }

    /// With no more than `left` all in all.
    pub(super) fn within(self, left: Duration) -> Self {
        Self {
            total: self.total.min(left),
            ..self
        }
    }

    /// How long the first silence may be.
    pub(super) fn first(self) -> Duration {
        self.idle.saturating_sub(self.waited).min(self.total)
    }

    /// Waits for `answer` and passes on to `listener` what is said meanwhile; who does not listen
    /// misses it.
    pub(super) async fn wait<T>(
        self,
        mut answer: Pin<&mut (impl Future<Output = T> + Send)>,
        following: &mut Following,
        listener: Option<&mpsc::Sender<ToolProgress>>,
        halt: &Halt<'_>,
    ) -> Waited<T> {
        let begun = Instant::now();
        // Far away is as good as never.
        let end = begun + self.total.min(FAR);
        let idle = self.idle.min(FAR);
        let first = begun + self.first().min(FAR);
        let (mut silent, mut pass_on, mut passed) = (first, None, None::<Instant>);
        let pass = |following: &mut Following| {
            if let (Some(listener), Some(latest)) = (listener, following.latest()) {
                listener.try_send(latest).ok();
            }
        };
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => {
                    if pass_on.is_some() {
                        pass(following);
                    }
                    return Waited::Answered(answered);
                }
                () = halt.ended.cancelled() => {
                    // What it said last may still be in the pipe.
                    let last = timeout(LAST_BYTES, answer).await;
                    return last.map_or(Waited::Ended, Waited::Answered);
                }
                () = halt.cancelled.cancelled() => return Waited::Cancelled,
                () = sleep_until(end) => return Waited::TimedOut(self.total),
                () = following.sign() => {
                    let now = Instant::now();
                    silent = now + idle;
                    let due = passed.map_or(now, |passed| now.max(passed + PASS_ON));
                    pass_on.get_or_insert(due);
                }
                () = sleep_until(pass_on.unwrap_or(end)), if pass_on.is_some() => {
                    pass(following);
                    (pass_on, passed) = (None, Some(Instant::now()));
                }
                () = sleep_until(silent) => {
                    let heard = silent > first;
                    return if heard { Waited::Silent(self.idle) } else { Waited::TimedOut(self.idle) };
                }
            }
        }
    }
}

/// Timers do not reach as far as durations do.
const FAR: Duration = Duration::from_hours(365 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    /// What was waited for a process is of the first silence, and no second time of what is left in all.
    #[test]
    fn time_that_was_waited_counts_once() {
        let secs = Duration::from_secs;
        let patience = Patience {
            idle: secs(60),
            total: secs(600),
            waited: secs(3),
        };
        assert_eq!(patience.first(), secs(57));
        assert_eq!(patience.within(secs(2)).first(), secs(2));
        assert_eq!(patience.within(secs(58)).first(), secs(57));
    }
}

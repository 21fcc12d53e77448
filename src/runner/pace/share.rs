//! What this worker holds of a model's limits, and what it wants more of. Pure: the time comes from
//! outside.

use std::time::{Duration, Instant};

use crate::store::{RateGranted, RateWanted};

/// What is allowed at once after a pause, of what the limit allows in a minute.
const BURST: f64 = 0.04 * 60.0;
/// No more than this part of a limit is planned with: what a call takes is known only afterwards.
/// Together with the burst it stays below the limit in any minute.
const PLANNED: f64 = 0.94;
/// Nothing is reserved whose turn would begin later than this: what a call takes is known better then.
const HORIZON: Duration = Duration::from_secs(1);
/// What is reserved at once, in seconds of the rate: the other workers have their part.
const CHUNK: f64 = 1.0;
/// What a worker takes ahead where there is plenty, so that not each call has to ask.
const AHEAD: f64 = 0.5;
/// How long it keeps what it took ahead.
const KEEPS: Duration = Duration::from_secs(1);

/// The limits of a model, of all workers together; none: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    /// Tokens a minute, in and out together.
    pub(super) tokens: Option<u64>,
    /// Requests a minute.
    pub(super) requests: Option<u64>,
}

/// What a call takes, in seconds of each limit's rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Toll {
    pub(super) tokens: f64,
    pub(super) requests: f64,
}

impl Rates {
    /// What so many tokens and one request take.
    pub(super) fn toll(self, tokens: u64) -> Toll {
        Toll {
            tokens: seconds(tokens, self.tokens),
            requests: seconds(1, self.requests),
        }
    }

    /// How far `tokens` are from what was reserved for them.
    pub(super) fn owed(self, tokens: u64, reserved: Toll) -> f64 {
        seconds(tokens, self.tokens) - reserved.tokens
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "tokens are counted in millions, not in 2^53"
)]
fn seconds(amount: u64, a_minute: Option<u64>) -> f64 {
    a_minute.map_or(0.0, |limit| amount as f64 * 60.0 / (limit as f64 * PLANNED))
}

/// What this worker holds.
#[derive(Debug, Default)]
pub(super) struct Share {
    credit: Toll,
    until: Option<Instant>,
    owed: f64,
}

impl Share {
    /// Takes the toll of a call out of what was taken ahead, if there is enough.
    pub(super) fn take(&mut self, toll: Toll, now: Instant) -> bool {
        self.expire(now);
        let enough = self.until.is_some()
            && toll.tokens <= self.credit.tokens
            && toll.requests <= self.credit.requests;
        if enough {
            self.credit.tokens -= toll.tokens;
            self.credit.requests -= toll.requests;
        }
        enough
    }

    /// A call took more than was reserved for it, or less, or did not take place.
    pub(super) fn owe(&mut self, tokens: f64) {
        self.owed += tokens;
    }

    /// Whether the other workers should be told what this one owes or does not need.
    pub(super) fn is_unsettled(&mut self, now: Instant) -> bool {
        self.expire(now);
        self.owed != 0.0
    }

    /// What to ask for so that calls with these tolls can be made.
    pub(super) fn ask(&mut self, tolls: &[Toll], now: Instant) -> RateWanted {
        self.expire(now);
        RateWanted {
            tokens: tolls.iter().map(|toll| toll.tokens).sum(),
            requests: tolls.iter().map(|toll| toll.requests).sum(),
            owed: std::mem::take(&mut self.owed),
            burst: BURST,
            horizon: HORIZON.as_secs_f64(),
            ahead: if tolls.is_empty() { 0.0 } else { AHEAD },
        }
    }

    /// Keeps what was given ahead.
    pub(super) fn keep(&mut self, granted: RateGranted, now: Instant) {
        if granted.ahead > 0.0 {
            self.credit.tokens += granted.ahead;
            self.credit.requests += granted.ahead;
            self.until = Some(now + KEEPS);
        }
    }

    /// What was taken ahead and not needed goes back. (Requests do not: a second of them is little.)
    fn expire(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.owed -= self.credit.tokens;
            self.credit = Toll::default();
            self.until = None;
        }
    }
}

/// How many calls with these tolls, from the first on, ask together.
pub(super) fn together(tolls: impl IntoIterator<Item = Toll>) -> usize {
    let (mut tokens, mut requests) = (0.0, 0.0);
    let fits = tolls.into_iter().take_while(|toll| {
        tokens += toll.tokens;
        requests += toll.requests;
        tokens <= CHUNK && requests <= CHUNK
    });
    // One that takes more than that has to leave sometime, too.
    fits.count().max(1)
}

/// When calls may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turns {
    /// Each of them after this long.
    In(Vec<Duration>),
    /// Nothing is reserved: ask again after this long.
    Later(Duration),
}

/// The turns of calls with these tolls, in their order, given what was granted for them together.
pub(super) fn turns(tolls: &[Toll], granted: RateGranted) -> Turns {
    let wait = |secs: f64| Duration::try_from_secs_f64(secs).unwrap_or_default();
    let (mut tokens, mut requests) = (granted.tokens_in, granted.requests_in);
    if !granted.granted {
        return Turns::Later(wait(tokens.max(requests)).saturating_sub(HORIZON));
    }
    let turn = |toll: &Toll| {
        tokens += toll.tokens;
        requests += toll.requests;
        wait(tokens.max(requests))
    };
    let mut turns: Vec<_> = tolls.iter().map(turn).collect();
    // After a pause as long as it takes, a call leaves at once, however large it is: what it takes
    // beyond the burst is paid for by those behind it.
    if let Some((first, toll)) = turns.first_mut().zip(tolls.first()) {
        let tokens = toll.tokens - granted.tokens_idle;
        let requests = toll.requests - granted.requests_idle;
        *first = wait(tokens.max(requests)).min(*first);
    }
    Turns::In(turns)
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Histogram, counter, histogram};

use super::figure::{
    COMMIT_FAILURES, COMMIT_SECONDS, EVENTS, MODEL_CALL_SECONDS, MODEL_PACED, MODEL_RETRIES,
    PUBLISH_SECONDS, TOKENS, TOOL_CALL_SECONDS, TOOL_WAIT_SECONDS, UNKNOWN_TOOLS,
};

pub(super) fn begin() {
    tokens(Tokens::default());
    counter!(MODEL_RETRIES).increment(0);
    unknown_tool(0);
    events_published(0);
    events_dropped(0);
}

/// The broker confirmed a message, or did not.
pub fn published(is_confirmed: bool, took: Duration) {
    let outcome = if is_confirmed { "confirmed" } else { "failed" };
    histogram!(PUBLISH_SECONDS, "outcome" => outcome).record(took);
}

/// So many events went to the broker.
pub fn events_published(events: usize) {
    count_events("published", events);
}

/// So many events found no room, or no connection.
pub fn events_dropped(events: usize) {
    count_events("dropped", events);
}

fn count_events(outcome: &'static str, events: usize) {
    counter!(EVENTS, "outcome" => outcome).increment(u64::try_from(events).unwrap_or(u64::MAX));
}

/// The database has what was written.
pub fn committed(what: &'static str, took: Duration) {
    histogram!(COMMIT_SECONDS, "what" => what).record(took);
}

/// The database did not take what was written; it is tried again.
pub fn commit_failed(what: &'static str) {
    counter!(COMMIT_FAILURES, "what" => what).increment(1);
}

/// The model server answered, or did not: `outcome` is a word for it.
pub fn model_called(outcome: &'static str, took: Duration) {
    histogram!(MODEL_CALL_SECONDS, "outcome" => outcome).record(took);
}

/// A request waited for its part of the model's limits.
pub fn model_paced(waited: Duration) {
    histogram!(MODEL_PACED).record(waited);
}

/// A request to the model server is made again.
pub fn model_called_again() {
    counter!(MODEL_RETRIES).increment(1);
}

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub input: u64,
    /// Of these, from the provider's cache.
    pub cached: u64,
    /// Of the answer.
    pub output: u64,
    /// Of these, spent on reasoning.
    pub reasoning: u64,
}

/// An answer used these tokens.
pub fn tokens(used: Tokens) {
    counter!(TOKENS, "kind" => "input").increment(used.input);
    counter!(TOKENS, "kind" => "cached").increment(used.cached);
    counter!(TOKENS, "kind" => "output").increment(used.output);
    counter!(TOKENS, "kind" => "reasoning").increment(used.reasoning);
}

/// So many calls of tools that no server has. The names are the model's own, so no label says them.
pub fn unknown_tool(calls: u64) {
    counter!(UNKNOWN_TOOLS).increment(calls);
}

/// The calls of one tool server's tools.
#[derive(Clone, Debug)]
pub struct ServerMeter(Arc<str>);

impl ServerMeter {
    /// For a server that is configured under this name.
    #[must_use]
    pub fn new(server: &str) -> Self {
        let meter = Self(Arc::from(server));
        for outcome in ["succeeded", "failed"] {
            let _shown = meter.calls(outcome);
        }
        let _shown = meter.waits();
        meter
    }

    /// A call waited so long for a process, a start included.
    pub fn waited(&self, took: Duration) {
        self.waits().record(took);
    }

    fn waits(&self) -> Histogram {
        histogram!(TOOL_WAIT_SECONDS, "server" => Arc::clone(&self.0))
    }

    /// A call ended so.
    pub fn called(&self, outcome: &'static str, took: Duration) {
        self.calls(outcome).record(took);
    }

    fn calls(&self, outcome: &'static str) -> Histogram {
        histogram!(TOOL_CALL_SECONDS, "server" => Arc::clone(&self.0), "outcome" => outcome)
    }
}

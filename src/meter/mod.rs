//! What is counted and timed: the names of the figures, and a function for each moment that moves
//! one. Where the figures are kept and how they are shown is `telemetry`'s; without it, as in the
//! commands beside `run` and in tests, nothing is kept and a call costs next to nothing.
//!
//! A label is a word of this program (`&'static str`) or the name of a tool server from the
//! configuration. What a producer, a model or a tool can make up is never one: each value of a label
//! is a series that is kept for ever. May import no other room.

mod backlog;
mod calls;
mod figure;
mod jobs;

pub use backlog::{Backlog, Here, backlog, here, loop_silent};
pub use calls::{
    ServerMeter, Tokens, commit_failed, committed, events_dropped, events_published, model_called,
    model_called_again, model_paced, published, tokens, unknown_tool,
};
pub use figure::{ALL, Figure, JOB_BUCKETS, JOB_SECONDS, Kind, SHORT_BUCKETS};
pub use jobs::{
    Attempt, attempt, dispatched, job_ended, job_took, refused, retried, sweeping, took_over,
};

/// Says what each figure means, and shows those whose labels are known beforehand as 0: the first
/// event of a series that was not there is no increase to who watches it.
pub fn begin() {
    for figure in ALL {
        let (name, help) = (figure.name, figure.help);
        match figure.kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
            Kind::Histogram => metrics::describe_histogram!(name, help),
        }
    }
    jobs::begin();
    calls::begin();
}

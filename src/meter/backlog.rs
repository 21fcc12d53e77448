use std::time::Duration;

use metrics::gauge;

use super::figure::{
    BUILD_INFO, DATABASE_UP, JOBS, JOBS_IN_HAND, JOBS_WAITING, LOOP_SILENT, OLDEST_WAITING, SLOTS,
    UNPUBLISHED,
};

/// What is unfinished in the installation, as the database says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backlog {
    /// Jobs by status.
    pub jobs: Vec<(&'static str, f64)>,
    /// Waiting jobs by what they wait for.
    pub waiting: Vec<(&'static str, f64)>,
    /// The age of the oldest job that could run.
    pub oldest_waiting_seconds: f64,
    /// Results that are stored and not known to be published.
    pub unpublished: f64,
}

/// What the database says of the installation. With `is_up` false the numbers are to be NaN: the old
/// ones are true no more, and 0 would be a claim.
pub fn backlog(is_up: bool, backlog: &Backlog) {
    gauge!(DATABASE_UP).set(f64::from(u8::from(is_up)));
    for (status, count) in &backlog.jobs {
        gauge!(JOBS, "status" => *status).set(*count);
    }
    for (reason, count) in &backlog.waiting {
        gauge!(JOBS_WAITING, "reason" => *reason).set(*count);
    }
    gauge!(OLDEST_WAITING).set(backlog.oldest_waiting_seconds);
    gauge!(UNPUBLISHED).set(backlog.unpublished);
}

/// What a worker knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// Jobs that it runs.
    pub in_hand: u32,
    /// Jobs that it runs at most.
    pub slots: u32,
    /// Its version.
    pub version: &'static str,
}

/// What a worker knows of itself.
pub fn here(here: Here) {
    gauge!(JOBS_IN_HAND).set(here.in_hand);
    gauge!(SLOTS).set(here.slots);
    gauge!(BUILD_INFO, "version" => here.version).set(1);
}

/// How long ago a loop last turned.
pub fn loop_silent(name: &'static str, silent: Duration) {
    gauge!(LOOP_SILENT, "loop" => name).set(silent);
}

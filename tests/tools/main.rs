//! The tool servers of a worker, against real processes over their standard input and output.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and so may what tests share"
)]

mod calls;
mod catalogue;
mod elsewhere;
mod failures;
mod faults;
mod harness;
mod http;
mod isolation;
mod line;
mod oauth;
mod odd;
mod offers;
mod orphans;
mod pools;
mod progress;
mod shell;
mod strangers;
mod strangers_conformance;
mod strangers_http;

#[path = "../packages/npm.rs"]
mod npm;

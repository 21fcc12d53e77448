//! The tool servers of a worker, against real processes over their standard input and output.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and so may what tests share"
)]

mod calls;
mod failures;
mod harness;
mod isolation;
mod line;
mod odd;
mod offers;
mod orphans;
mod pools;
mod progress;
mod strangers;

#[path = "../packages/npm.rs"]
mod npm;

//! Who gets a job, whatever the order in which workers, the sweep and people come to it: against a real
//! `PostgreSQL`, one step after the other in every order, at random for long, and truly at once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod at_once;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../store/ground.rs"]
mod ground;
mod laws;
mod orders;
mod walks;
mod world;

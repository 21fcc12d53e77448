//! `chat.enqueue` against a real `PostgreSQL`: what it takes and refuses, beside what a worker takes
//! and refuses; what it stores; who may call it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod again;
mod both;
mod documents;
mod ground;
mod rights;
mod stored;

//! The model: asks an OpenAI-compatible server over the Chat Completions API.
//!
//! One call in, one [`Answer`](crate::chat::Answer) out: the request is mapped (`request`,
//! `replay`), sent (`transport`), the reply mapped (`reply`), wherever it comes in pieces after these
//! are put together (`stream`), and every failure classified
//! (`classify`). Short troubles are waited out here (`retry`, `gate`); longer ones are the caller's.
//! It stores nothing, runs no tools, and decides nothing about a job. It may import the leaves and
//! the configuration; nothing else names `async_openai`, `reqwest` or `tower`.

mod classify;
mod client;
mod completions;
mod error;
mod gate;
mod hints;
mod lenient;
mod listing;
mod piece;
mod provider_error;
mod retry;
mod stream;
#[cfg(test)]
mod tests;
mod throttle;
mod transport;

pub use client::Model;
pub use error::{ModelError, Refused};
pub use stream::{Ear, Heard};

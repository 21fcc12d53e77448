//! The model: asks OpenAI-compatible servers, over Chat Completions or over Responses.
//!
//! One call in, one [`Answer`](crate::chat::Answer) out: the prompt is made legal (`legal`), written
//! in the dialect of its server (`completions`, `responses`), sent (`server`, `transport`), the reply
//! read, which may come in pieces (`stream`), and every failure classified (`classify`). Short troubles
//! are waited out here (`retry`, `gate`, `throttle`); longer ones are the caller's.
//! It stores nothing, runs no tools, and decides nothing about a job. It may import the leaves and
//! the configuration; nothing else names `async_openai`, `reqwest`, `tower` or `tiktoken_rs`.

mod along;
mod asking;
mod classify;
mod client;
mod completions;
mod error;
mod gate;
mod hints;
mod legal;
mod lenient;
mod listing;
mod manner;
mod overflow;
mod piece;
mod provider_error;
mod responses;
mod retry;
mod server;
mod spoken;
mod stream;
#[cfg(test)]
mod tests;
mod throttle;
mod tokens;
mod transport;
mod usage;

pub use along::{Along, Permit};
pub use client::Model;
pub use error::{ModelError, Refused};
pub use overflow::Overflow;
pub(crate) use retry::kept;
pub use stream::{Ear, Heard};
pub use tokens::count_tokens;

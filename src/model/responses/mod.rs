//! The Responses API, with nothing kept at the provider: a prompt as its request, and its reply as an
//! answer. Pure.
//!
//! What a model thought comes back encrypted, is stored with the rest of the output, and is sent
//! again with it, so that it goes on thinking where it was.

mod item;
mod replay;
pub(super) mod reply;
pub(super) mod request;

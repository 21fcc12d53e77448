//! The Chat Completions API: a prompt as its request, and its reply as an answer. Pure.

mod replay;
pub(super) mod reply;
pub(super) mod request;
mod shown;

pub(super) use shown::DataUrl;

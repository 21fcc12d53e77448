//! Answers that come piece by piece: the lines of a stream (`sse`), what they add up to
//! (`completions`, `responses`), and how long they are waited for (`reading`).
//!
//! A stream adds up to the reply that the server would have given without one. It is read from there
//! on like any other, so that what is stored does not tell how it came.

mod completions;
mod message;
mod reading;
mod responses;
mod sse;
#[cfg(test)]
mod tests;
mod tool_calls;

use std::fmt;
use std::sync::Arc;

pub(super) use reading::{Patience, read};

use super::error::ModelError;

/// What is heard of a call while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// The model said this much more; armoured.
    Text(&'a str),
    /// The model is asked again, because of this: what it said so far is void.
    Again(&'a ModelError),
}

/// Who listens to a call while it goes on. What it does must not take long. A clone is the same.
#[derive(Clone)]
pub struct Ear {
    wants_text: bool,
    hear: Arc<dyn Fn(Heard<'_>) + Send + Sync>,
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear")
            .field("wants_text", &self.wants_text)
            .finish_non_exhaustive()
    }
}

impl Ear {
    /// Has `hear` told; of the text only if it is wanted.
    pub fn new(wants_text: bool, hear: impl Fn(Heard<'_>) + Send + Sync + 'static) -> Self {
        Self {
            wants_text,
            hear: Arc::new(hear),
        }
    }

    /// Whether the answer is to come piece by piece.
    pub(super) fn wants_text(&self) -> bool {
        self.wants_text
    }

    pub(super) fn hear(&self, heard: Heard<'_>) {
        (self.hear)(heard);
    }
}

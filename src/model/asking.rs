//! One call of a model, and what is learnt on the way about how that model wants to be asked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::classify::Mend;
use super::manner::{Manner, Reasoning, Wanted};
use super::server::{Dialect, Server};
use super::stream::Ear;
use crate::chat::Prompt;
use crate::config::{Api, MaxTokensField, ModelProfile};

/// One call of a model.
pub(super) struct Asking<'a> {
    pub(super) prompt: &'a Prompt,
    pub(super) profile: &'a ModelProfile,
    pub(super) server: &'a Server,
    pub(super) lessons: Lessons,
    /// Whether the answer is to come piece by piece.
    pub(super) streamed: bool,
    pub(super) ear: Option<&'a Ear>,
}

/// What a server's refusals have taught about a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lessons(Vec<Mend>);

impl Lessons {
    fn hold(&self, mend: Mend) -> bool {
        self.0.contains(&mend)
    }
}

impl<'a> Asking<'a> {
    /// The API that is spoken.
    pub(super) fn dialect(&self) -> Dialect {
        match self.profile.api {
            Api::Chat => Dialect::Completions,
            Api::Responses => Dialect::Responses,
            Api::Auto if self.lessons.hold(Mend::SpeakResponses) => Dialect::Responses,
            Api::Auto => self.server.dialect(),
        }
    }

    /// How the model is asked.
    pub(super) fn manner(&self) -> Manner<'a> {
        let model = self.model();
        let field = self.profile.max_tokens_field;
        Manner {
            model,
            wanted: Wanted::of(self.prompt, self.profile),
            max_tokens_field: match field {
                Some(field) => field,
                None if self.server.is_openais
                    || self.lessons.hold(Mend::LimitCompletionTokens) =>
                {
                    MaxTokensField::MaxCompletionTokens
                }
                None => MaxTokensField::MaxTokens,
            },
            reasoning: if self.lessons.hold(Mend::ForgetThoughts) {
                Reasoning::Forgotten
            } else if self.lessons.hold(Mend::AskForNoThoughts) {
                Reasoning::Unknown
            } else {
                Reasoning::Kept
            },
            streamed: self.streamed,
            wants_usage: !self.lessons.hold(Mend::StreamWithoutUsage),
        }
    }

    /// The model's name at its server.
    pub(super) fn model(&self) -> &'a str {
        self.profile.name.as_deref().unwrap_or(&self.prompt.model)
    }

    /// Whether `mend` makes another request of this one; from now on it is asked so.
    pub(super) fn takes(&mut self, mend: Mend) -> bool {
        let is_free = match mend {
            Mend::SpeakResponses => self.profile.api == Api::Auto,
            Mend::LimitCompletionTokens => self.profile.max_tokens_field.is_none(),
            Mend::AskForNoThoughts | Mend::ForgetThoughts => true,
            Mend::StreamWithoutUsage => self.streamed && self.dialect() == Dialect::Completions,
        };
        let is_new = is_free && !self.lessons.hold(mend);
        if is_new {
            self.lessons.0.push(mend);
        }
        is_new
    }
}

/// What was learnt about each model, for as long as the process lives.
#[derive(Default)]
pub(super) struct School(Mutex<HashMap<Box<str>, Lessons>>);

/// Jobs name models, so the school must not grow with the names they make up.
const MOST_PUPILS: usize = 1_000;

impl School {
    /// What is known about `model`.
    pub(super) fn lessons(&self, model: &str) -> Lessons {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(model).cloned().unwrap_or_default()
    }

    /// Keeps what was learnt about `model`. That it forgot what it thought is of that one call.
    pub(super) fn keep(&self, model: &str, mut lessons: Lessons) {
        lessons.0.retain(|mend| *mend != Mend::ForgetThoughts);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lessons != Lessons::default() && known.len() < MOST_PUPILS {
            known.insert(model.into(), lessons);
        }
    }
}

//! A prompt as a provider takes it, whatever stands in it: every call is answered exactly once and
//! right after it was asked for, nothing is empty, and pictures stand only where they may. Pure.
//!
//! What is broken is mended here, for both dialects; what is whole is passed on as it is.

use std::borrow::Cow;

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::chat::{Content, Media, Message, Part, PromptMessage, Role, ToolCall};

/// A message that can be sent.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// Rules.
    System(&'a str),
    /// What somebody said. Only users show pictures.
    Said {
        /// Who.
        role: Role,
        /// What; never empty.
        content: Cow<'a, Content>,
    },
    /// An earlier answer of a model. Results of all its calls follow, and of no others.
    Answer {
        /// As its provider sent it.
        message: &'a RawValue,
        /// Its calls.
        calls: &'a [ToolCall],
        /// Whether it goes back to the server that it came from.
        at_home: bool,
    },
    /// What a call of the last answer came to.
    Result {
        /// Which call, as [`call_id`] has it.
        call_id: Cow<'a, str>,
        /// What the model reads; never empty.
        content: &'a str,
        /// What it may look at as well.
        media: &'a [Media],
    },
}

/// Stands for the result of a call that has none.
const UNANSWERED: &str = "There is no result: this call was not made.";
/// Stands for a result that is empty.
const NO_OUTPUT: &str = "(no output)";
/// Stands for what a person said who said nothing.
const NOTHING: &str = "(empty)";
/// Stands for an image that the model does not take.
const NO_IMAGE: &str = "[an image was here; this model takes none]";

/// `messages` as they can be sent. `is_home` says of a model's name whether it is asked at the same
/// server; pictures are left out unless the model `takes_images`.
pub(super) fn lines(
    messages: &[PromptMessage],
    takes_images: bool,
    is_home: impl Fn(&str) -> bool,
) -> Vec<Line<'_>> {
    let mut lines = Vec::with_capacity(messages.len());
    let mut open = Open::default();
    for message in messages {
        if let PromptMessage::Tool {
            call_id,
            content,
            media,
        } = message
        {
            // A result that nobody asked for, or asked for twice, is refused for ever.
            if open.answer(call_id) {
                let content = if content.is_empty() {
                    NO_OUTPUT
                } else {
                    content
                };
                let media = if takes_images { media } else { &[][..] };
                lines.push(open.result(call_id, content, media));
            }
            continue;
        }
        open.close(&mut lines);
        match message {
            PromptMessage::System(text) if text.is_empty() => {}
            PromptMessage::System(text) => lines.push(Line::System(text)),
            PromptMessage::Given(message) => lines.extend(said(message, takes_images)),
            PromptMessage::Assistant {
                message,
                tool_calls,
                asked,
            } => {
                let at_home = asked.as_deref().is_none_or(&is_home);
                open = Open::of(tool_calls, at_home);
                lines.push(Line::Answer {
                    message,
                    calls: tool_calls,
                    at_home,
                });
            }
            PromptMessage::Tool { .. } => {}
        }
    }
    open.close(&mut lines);
    lines
}

/// The calls that still want their results.
#[derive(Default)]
struct Open<'a> {
    ids: Vec<&'a str>,
    at_home: bool,
}

impl<'a> Open<'a> {
    fn of(calls: &'a [ToolCall], at_home: bool) -> Self {
        Self {
            ids: calls.iter().map(|call| call.call_id.as_str()).collect(),
            at_home,
        }
    }

    /// Whether `call_id` wants a result; from now on it does not.
    fn answer(&mut self, call_id: &str) -> bool {
        let found = self.ids.iter().position(|id| *id == call_id);
        found.map(|at| self.ids.remove(at)).is_some()
    }

    fn close(&mut self, lines: &mut Vec<Line<'a>>) {
        for id in std::mem::take(&mut self.ids) {
            lines.push(self.result(id, UNANSWERED, &[]));
        }
    }

    fn result(&self, id: &'a str, content: &'a str, media: &'a [Media]) -> Line<'a> {
        Line::Result {
            call_id: call_id(id, self.at_home),
            content,
            media,
        }
    }
}

/// The id of a call as a server takes it. Servers are particular about ids that are not their own:
/// OpenAI takes at most 40 characters, Mistral exactly 9 letters and digits.
pub(super) fn call_id(id: &str, at_home: bool) -> Cow<'_, str> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyzACDEFGHJ";
    if at_home {
        return Cow::Borrowed(id);
    }
    let digest = Sha256::digest(id.as_bytes());
    let letters = digest.iter().take(9).map(|byte| {
        let letter = LETTERS.get(usize::from(byte % 32)).copied();
        char::from(letter.unwrap_or(b'a'))
    });
    Cow::Owned(letters.collect())
}

fn said(message: &Message, takes_images: bool) -> Option<Line<'_>> {
    let shows = takes_images && message.role == Role::User;
    let fits = |part: &Part| match part {
        Part::Text { text } => !text.is_empty(),
        Part::ImageUrl { .. } => shows,
    };
    let content = match &message.content {
        Content::Text(text) if text.is_empty() => None,
        Content::Parts(parts) if parts.is_empty() || !parts.iter().all(fits) => {
            let parts: Vec<_> = parts
                .iter()
                .filter_map(|part| mended(part, shows))
                .collect();
            (!parts.is_empty()).then_some(Cow::Owned(Content::Parts(parts)))
        }
        whole @ (Content::Text(_) | Content::Parts(_)) => Some(Cow::Borrowed(whole)),
    };
    let role = message.role;
    match content {
        Some(content) => Some(Line::Said { role, content }),
        // Rules that say nothing rule nothing.
        None if role == Role::System => None,
        None => Some(Line::Said {
            role,
            content: Cow::Owned(Content::Text(NOTHING.to_owned())),
        }),
    }
}

fn mended(part: &Part, shows: bool) -> Option<Part> {
    match part {
        Part::Text { text } if text.is_empty() => None,
        Part::ImageUrl { .. } if !shows => Some(Part::Text {
            text: NO_IMAGE.to_owned(),
        }),
        Part::Text { .. } | Part::ImageUrl { .. } => Some(part.clone()),
    }
}

/// The texts of `content` in a row; for speakers who show no pictures.
pub(super) fn text(content: &Content) -> Cow<'_, str> {
    let parts = match content {
        Content::Text(text) => return Cow::Borrowed(text),
        Content::Parts(parts) => parts,
    };
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.as_str()),
        Part::ImageUrl { .. } => None,
    });
    Cow::Owned(texts.collect::<Vec<_>>().join("\n"))
}

//! The items of a request's input.
//!
//! Shapes: <https://platform.openai.com/docs/api-reference/responses/create>.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::completions::DataUrl;
use super::super::legal::{Line, call_id, text};
use super::super::manner::Reasoning;
use super::super::piece::Piece;
use super::replay::{self, Named};
use crate::chat::{Content, Media, Part, Role, ToolCall};

/// An item of the input.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Item<'a> {
    /// What somebody says.
    Said {
        role: &'static str,
        content: Text<'a>,
    },
    /// A call that was asked for, written from what is known of it.
    Call {
        r#type: &'static str,
        call_id: Cow<'a, str>,
        name: Cow<'a, str>,
        arguments: &'a str,
    },
    /// What a call came to.
    Output {
        r#type: &'static str,
        call_id: Cow<'a, str>,
        output: Text<'a>,
    },
    /// An item as the provider sent it.
    Unchanged(&'a RawValue),
    /// The same with the illegal places written anew.
    Patched(Piece<'a>),
}

/// A text, or parts.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Text<'a> {
    Plain(Cow<'a, str>),
    Parts(Vec<Shown<'a>>),
}

/// A part of what a user says or a tool shows.
#[derive(Serialize)]
#[serde(tag = "type")]
pub(super) enum Shown<'a> {
    #[serde(rename = "input_text")]
    Text { text: &'a str },
    #[serde(rename = "input_image")]
    Image { image_url: Link<'a> },
    #[serde(rename = "input_file")]
    File {
        filename: &'a str,
        file_data: DataUrl<'a>,
    },
}

/// Where an image is.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Link<'a> {
    There(&'a str),
    Here(DataUrl<'a>),
}

/// The input that `lines` are.
pub(super) fn items<'a>(lines: &'a [Line<'a>], reasoning: Reasoning) -> Vec<Item<'a>> {
    let mut items = Vec::with_capacity(lines.len());
    let mut ids = Ids::default();
    for line in lines {
        match line {
            Line::System(text) => items.push(Item::Said {
                role: "system",
                content: Text::Plain((*text).into()),
            }),
            Line::Said { role, content } => items.push(said(*role, content)),
            Line::Answer {
                message,
                calls,
                at_home,
            } => {
                let calls = ids.name(calls, *at_home);
                replay::push(message, &calls, (*at_home, reasoning), &mut items);
            }
            Line::Result {
                call_id,
                content,
                media,
            } => items.push(Item::Output {
                r#type: "function_call_output",
                call_id: ids.of(call_id),
                output: output(content, media),
            }),
        }
    }
    items
}

/// The ids of calls, distinct over the whole input: outputs stand for themselves there and are found by the id
/// alone. Servers that count their calls begin anew with each answer.
#[derive(Default)]
struct Ids<'a> {
    taken: HashSet<Cow<'a, str>>,
    /// The number that the next call of an id is tried with, where the id was taken.
    next: HashMap<Cow<'a, str>, u32>,
    /// Those of the last answer that have another id here.
    renamed: Vec<(Cow<'a, str>, String)>,
}

impl<'a> Ids<'a> {
    /// The calls of the next answer under their ids.
    fn name(&mut self, calls: &'a [ToolCall], at_home: bool) -> Vec<Named<'a>> {
        self.renamed.clear();
        let named = |call: &'a ToolCall| {
            let id = call_id(&call.call_id, at_home);
            if self.taken.insert(id.clone()) {
                return Named { call, id };
            }
            let number = self.next.entry(id.clone()).or_insert(2);
            let other = loop {
                let other = format!("{id}_{number}");
                *number += 1;
                if self.taken.insert(Cow::Owned(other.clone())) {
                    break other;
                }
            };
            self.renamed.push((id, other.clone()));
            Named {
                call,
                id: other.into(),
            }
        };
        calls.iter().map(named).collect()
    }

    /// What a result of the last answer's call `id` goes by.
    fn of(&self, id: &'a str) -> Cow<'a, str> {
        let renamed = self.renamed.iter().find(|(before, _)| before == id);
        renamed.map_or(Cow::Borrowed(id), |(_, id)| Cow::Owned(id.clone()))
    }
}

fn said(role: Role, content: &Content) -> Item<'_> {
    let (role, content) = match (role, content) {
        (Role::System, content) => ("system", Text::Plain(text(content))),
        (Role::Assistant, content) => ("assistant", Text::Plain(text(content))),
        (Role::User, Content::Text(text)) => ("user", Text::Plain(text.into())),
        (Role::User, Content::Parts(parts)) => {
            ("user", Text::Parts(parts.iter().map(part).collect()))
        }
    };
    Item::Said { role, content }
}

fn part(part: &Part) -> Shown<'_> {
    match part {
        Part::Text { text } => Shown::Text { text },
        Part::ImageUrl { image_url } => Shown::Image {
            image_url: Link::There(&image_url.url),
        },
    }
}

fn output<'a>(content: &'a str, media: &'a [Media]) -> Text<'a> {
    if media.is_empty() {
        return Text::Plain(content.into());
    }
    let shown = media.iter().map(|media| {
        if media.is_image() {
            Shown::Image {
                image_url: Link::Here(DataUrl(media)),
            }
        } else {
            Shown::File {
                filename: media.name.as_deref().unwrap_or("document.pdf"),
                file_data: DataUrl(media),
            }
        }
    });
    let text = Shown::Text { text: content };
    Text::Parts(std::iter::once(text).chain(shown).collect())
}

//! What tools show besides text, as parts of a message of Chat Completions.
//!
//! Shapes: <https://platform.openai.com/docs/api-reference/chat/create>, content parts of a user
//! message.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::chat::Media;

/// A part of a message.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ShownPart<'a> {
    /// Which call it comes from.
    Text { text: String },
    /// An image.
    ImageUrl { image_url: Url<'a> },
    /// A document.
    File { file: File<'a> },
}

/// Where an image is.
#[derive(Serialize)]
pub(super) struct Url<'a> {
    url: DataUrl<'a>,
}

/// A document with its name.
#[derive(Serialize)]
pub(super) struct File<'a> {
    filename: &'a str,
    file_data: DataUrl<'a>,
}

/// The bytes themselves as an address (RFC 2397), written without a copy.
pub(in crate::model) struct DataUrl<'a>(pub(in crate::model) &'a Media);

impl fmt::Display for DataUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Media {
            mime_type, data, ..
        } = self.0;
        write!(f, "data:{mime_type};base64,{data}")
    }
}

impl Serialize for DataUrl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the call `call_id` shows, under a line that says so.
pub(super) fn parts<'a>(
    call_id: &str,
    media: &'a [Media],
) -> impl Iterator<Item = ShownPart<'a>> + use<'a> {
    let heading = (!media.is_empty()).then(|| ShownPart::Text {
        text: format!("Shown by the tool call {call_id}:"),
    });
    let shown = media.iter().map(|media| {
        if media.is_image() {
            ShownPart::ImageUrl {
                image_url: Url {
                    url: DataUrl(media),
                },
            }
        } else {
            ShownPart::File {
                file: File {
                    filename: media.name.as_deref().unwrap_or("document.pdf"),
                    file_data: DataUrl(media),
                },
            }
        }
    });
    heading.into_iter().chain(shown)
}

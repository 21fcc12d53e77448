//! How the content of a message is read: by hand, since serde's untagged enums say neither where
//! nor what was wrong.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::object::{object, optional};

use crate::chat::{Content, ImageUrl, Part};

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of parts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
        Ok(Content::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(parts)).map(Content::Parts)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields: PartFields = object(deserializer)?;
        match (fields.r#type, fields.text, fields.image_url) {
            (PartType::Text, Some(text), None) => Ok(Self::Text { text }),
            (PartType::ImageUrl, None, Some(image_url)) => Ok(Self::ImageUrl { image_url }),
            (PartType::Text, None, _) => Err(D::Error::missing_field("text")),
            (PartType::ImageUrl, _, None) => Err(D::Error::missing_field("image_url")),
            (PartType::Text, Some(_), Some(_)) => {
                Err(D::Error::unknown_field("image_url", &["type", "text"]))
            }
            (PartType::ImageUrl, Some(_), Some(_)) => {
                Err(D::Error::unknown_field("text", &["type", "image_url"]))
            }
        }
    }
}

/// The fields of both kinds of parts; which of them must be there follows from `type`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PartFields {
    r#type: PartType,
    text: Option<String>,
    #[serde(default, deserialize_with = "optional")]
    image_url: Option<ImageUrl>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum PartType {
    Text,
    ImageUrl,
}

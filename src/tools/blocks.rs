//! The content blocks of a tool's result, each read alone and leniently. Pure.

use std::borrow::Cow;

use serde_json::Value;

use super::media::{Bytes, Room};
use crate::chat::Media;

/// The largest block of an unknown kind that is shown as it is, in bytes of JSON.
const MAX_UNKNOWN: usize = 4 * 1024;

/// What a result says and shows.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) texts: Vec<String>,
    pub(super) media: Vec<Media>,
    room: Room,
}

impl Blocks {
    /// Reads `result`'s content, of which `media_bytes` bytes may be shown.
    pub(super) fn read(result: &Value, media_bytes: usize) -> Self {
        let mut blocks = Self {
            texts: Vec::new(),
            media: Vec::new(),
            room: Room::new(media_bytes),
        };
        // The one of the revision of 2024-10-07 may be anything.
        match result.get("content").or_else(|| result.get("toolResult")) {
            Some(Value::Array(members)) => members.iter().for_each(|member| blocks.block(member)),
            Some(block) => blocks.block(block),
            None => {}
        }
        blocks
    }

    fn block(&mut self, block: &Value) {
        match text_of(block, "type") {
            Some("text") => self.text(block),
            Some(kind @ ("image" | "audio")) => self.bytes(kind, block, "data"),
            Some("resource") => self.resource(block.get("resource").unwrap_or(block)),
            Some("resource_link") => self.link(block),
            Some(kind) => self.unknown(kind, block),
            None if block.get("text").is_some() => self.text(block),
            None => self.plain(block),
        }
    }

    fn text(&mut self, block: &Value) {
        self.plain(block.get("text").unwrap_or(&Value::Null));
    }

    /// A text as it is, anything else as JSON; nothing from null.
    fn plain(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::String(text) => self.texts.push(text.clone()),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.texts.push(value.to_string());
            }
        }
    }

    fn resource(&mut self, resource: &Value) {
        if let Some(text) = text_of(resource, "text") {
            let text = match heading(resource) {
                Some(heading) => Cow::Owned(format!("[resource: {heading}]\n{text}")),
                None => Cow::Borrowed(text),
            };
            self.texts.push(text.into_owned());
        } else if resource.get("blob").is_some() {
            self.bytes("resource", resource, "blob");
        } else {
            self.unknown("resource", resource);
        }
    }

    /// What is said where bytes stand: a mark, whether they are shown or not; text if they are that.
    fn bytes(&mut self, kind: &str, block: &Value, field: &str) {
        let mime_type = text_of(block, "mimeType").filter(|kind| !kind.is_empty());
        let uri = text_of(block, "uri");
        let data = text_of(block, field).unwrap_or_default();
        let named = heading(block).unwrap_or_else(|| "unknown type".to_owned());
        let text = match self.room.read(data, mime_type.unwrap_or_default(), uri) {
            Bytes::Text(text) => format!("[{kind}: {named}]\n{text}"),
            Bytes::Other(size, why) => format!("[{kind}: {named}, {size} bytes, {why}]"),
            Bytes::Shown(media, size) => {
                // As the bytes say, where that is not what is said of them.
                let named = match (uri, mime_type) {
                    (None, _) => media.mime_type.clone(),
                    (Some(_), Some(_)) => named,
                    (Some(_), None) => format!("{named}, {}", media.mime_type),
                };
                self.media.push(media);
                format!("[{kind}: {named}, {size} bytes]")
            }
        };
        self.texts.push(text);
    }

    /// Where something is to be found; it is not fetched.
    fn link(&mut self, link: &Value) {
        let Some(uri) = text_of(link, "uri") else {
            return self.unknown("resource_link", link);
        };
        let said = |field| text_of(link, field).filter(|text| !text.is_empty());
        let mut text = match said("name").or_else(|| said("title")) {
            Some(name) => format!("{name}: {uri}"),
            None => uri.to_owned(),
        };
        if let Some(mime_type) = said("mimeType") {
            text = format!("{text} ({mime_type})");
        }
        if let Some(description) = said("description") {
            text = format!("{text}\n{description}");
        }
        self.texts.push(text);
    }

    fn unknown(&mut self, kind: &str, block: &Value) {
        let json = block.to_string();
        let text = if json.len() <= MAX_UNKNOWN {
            json
        } else {
            format!("[{kind:.100}: {} bytes, not shown]", json.len())
        };
        self.texts.push(text);
    }
}

/// The address and the type of a resource, as far as it says them.
fn heading(resource: &Value) -> Option<String> {
    let parts = ["uri", "mimeType"].map(|field| text_of(resource, field));
    let parts: Vec<_> = parts
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

pub(super) fn text_of<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str()
}

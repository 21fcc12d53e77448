//! The chunks of a streamed chat completion.
//!
//! <https://platform.openai.com/docs/api-reference/chat-streaming>

use serde_json::value::RawValue;

use super::super::classify::Verdict;
use super::super::lenient::{Fields, count, elements, text};
use super::message::{Message, ends_in_half, inside, push_key};

/// What the chunks so far add up to.
#[derive(Default)]
pub(super) struct Chunks {
    message: Message,
    has_message: bool,
    /// The last of each that was said.
    finish_reason: Option<Box<RawValue>>,
    usage: Option<Box<RawValue>>,
    /// The first of each.
    id: Option<Box<RawValue>>,
    model: Option<Box<RawValue>>,
    choice_error: Option<Box<RawValue>>,
    /// Half a surrogate pair of the text: its other half comes with the next chunk.
    half: String,
    /// The finish reason was said to be nothing at all.
    has_no_reason: bool,
    is_done: bool,
}

impl Chunks {
    /// Takes a chunk in; what it adds to the text, as the inside of a JSON string.
    ///
    /// # Errors
    /// The verdict on an error that the chunk is.
    pub(super) fn take(&mut self, chunk: &RawValue) -> Result<String, Verdict> {
        let mut said = String::new();
        for (key, json) in Fields::read(chunk).0 {
            match &*key {
                "error" if json.get() != "null" => return Err(Verdict::error_in_reply(json)),
                "id" => keep_first(&mut self.id, json),
                "model" => keep_first(&mut self.model, json),
                "usage" => keep_last(&mut self.usage, json),
                "choices" if json.get() == "null" => {}
                "choices" if !json.get().starts_with('[') => {
                    return Err(Verdict::malformed("a piece whose choices are no array"));
                }
                "choices" => {
                    for choice in elements(json) {
                        self.take_choice(choice, &mut said)?;
                    }
                }
                _ => {}
            }
        }
        if self.is_finished() {
            said.push_str(&std::mem::take(&mut self.half));
        }
        Ok(said)
    }

    /// The server says that nothing more comes.
    pub(super) fn done(&mut self) {
        // Some never say why the model stopped, and send an empty text to the end.
        self.is_done = self.has_no_reason && self.has_message;
    }

    /// Of several choices only the first was asked for. What cannot be read of a piece is missing in the
    /// answer: such a stream is asked for again.
    fn take_choice(&mut self, choice: &RawValue, said: &mut String) -> Result<(), Verdict> {
        if !choice.get().starts_with('{') {
            return Err(Verdict::malformed(
                "a piece with a choice that is no object",
            ));
        }
        let fields = Fields::read(choice);
        if count(fields.find("index")) != 0 {
            return Ok(());
        }
        for (key, json) in fields.0 {
            match &*key {
                // A server that cannot stream may send the message as it is, one that can may add it.
                "delta" | "message"
                    if json.get().starts_with('{') && (key == "delta" || !self.has_message) =>
                {
                    self.has_message = true;
                    self.say(json, said)?;
                    self.message.add(json);
                }
                "delta" if json.get() != "null" => {
                    return Err(Verdict::malformed("a piece whose delta is no object"));
                }
                "finish_reason" if json.get() == "\"\"" => self.has_no_reason = true,
                "finish_reason" => keep_last(&mut self.finish_reason, json),
                "error" => keep_last(&mut self.choice_error, json),
                _ => {}
            }
        }
        Ok(())
    }

    fn say(&mut self, delta: &RawValue, said: &mut String) -> Result<(), Verdict> {
        let fields = Fields::read(delta);
        let Some(content) = fields.find("content") else {
            return Ok(());
        };
        if !matches!(content.get().as_bytes().first(), Some(b'"' | b'[' | b'n')) {
            return Err(Verdict::malformed("a piece whose content is no text"));
        }
        said.push_str(&std::mem::take(&mut self.half));
        if content.get().starts_with('[') {
            for part in elements(content) {
                said.push_str(inside_of_part(part));
            }
        } else {
            said.push_str(inside(content.get()));
        }
        if ends_in_half(said) {
            self.half = said.split_off(said.len().saturating_sub(6));
        }
        Ok(())
    }

    /// Whether the model has said why it stopped. What may follow is the usage.
    pub(super) fn is_finished(&self) -> bool {
        self.finish_reason.is_some() || self.choice_error.is_some() || self.is_done
    }

    pub(super) fn bytes(&self) -> usize {
        self.message.bytes()
    }

    /// The reply as it would have come in one piece.
    pub(super) fn into_reply(self) -> String {
        let mut out = String::from("{");
        for (key, json) in [("id", self.id), ("model", self.model)] {
            if let Some(json) = json {
                push_key(&mut out, key);
                out.push_str(json.get());
            }
        }
        push_key(&mut out, "choices");
        out.push_str("[{");
        if self.has_message {
            push_key(&mut out, "message");
            out.push_str(&self.message.into_json());
        }
        for (key, json) in [
            ("finish_reason", self.finish_reason),
            ("error", self.choice_error),
        ] {
            if let Some(json) = json {
                push_key(&mut out, key);
                out.push_str(json.get());
            }
        }
        out.push_str("}]");
        if let Some(usage) = self.usage {
            push_key(&mut out, "usage");
            out.push_str(usage.get());
        }
        out.push('}');
        out
    }
}

/// The text of a part of the content; none of thinking and the like.
fn inside_of_part(part: &RawValue) -> &str {
    if part.get().starts_with('"') {
        return inside(part.get());
    }
    let fields = Fields::read(part);
    fields.find("text").map_or("", |text| inside(text.get()))
}

fn keep_first(kept: &mut Option<Box<RawValue>>, json: &RawValue) {
    let says = text(json).is_none_or(|text| !text.is_empty());
    if kept.is_none() && says && json.get() != "null" {
        *kept = Some(json.to_owned());
    }
}

fn keep_last(kept: &mut Option<Box<RawValue>>, json: &RawValue) {
    if json.get() != "null" {
        *kept = Some(json.to_owned());
    }
}

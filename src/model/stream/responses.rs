//! The events of a streamed response.
//!
//! <https://platform.openai.com/docs/api-reference/responses-streaming>. The last of them holds the
//! whole response; those before are for who listens.

use serde_json::value::RawValue;

use super::super::classify::Verdict;
use super::super::lenient::{Fields, elements, words};
use super::message::{ends_in_half, inside, push_key};

/// What the events so far add up to.
#[derive(Default)]
pub(super) struct Events {
    response: Option<Box<RawValue>>,
    /// Items that were finished, for servers whose last event has none.
    items: Vec<Box<RawValue>>,
    bytes: usize,
    /// Half a surrogate pair of the text: its other half comes with the next event.
    half: String,
}

impl Events {
    /// Takes an event in; what it adds to the text, as the inside of a JSON string. `name` is that of the
    /// line before it: some servers say only there which event it is.
    ///
    /// # Errors
    /// The verdict on an event that is an error.
    pub(super) fn take(&mut self, event: &RawValue, name: &str) -> Result<String, Verdict> {
        let fields = Fields::read(event);
        let kind = words(fields.find("type")).unwrap_or_else(|| name.to_owned());
        match kind.as_str() {
            "response.output_text.delta" => {
                let delta = fields.find("delta").map_or("", |delta| inside(delta.get()));
                let mut said = std::mem::take(&mut self.half);
                said.push_str(delta);
                if ends_in_half(&said) {
                    self.half = said.split_off(said.len().saturating_sub(6));
                }
                return Ok(said);
            }
            "response.output_item.done" => {
                if let Some(item) = fields.find("item") {
                    self.bytes = self.bytes.saturating_add(item.get().len());
                    self.items.push(item.to_owned());
                }
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.response = fields.find("response").map(ToOwned::to_owned);
            }
            "error" => return Err(Verdict::error_in_reply(event)),
            _ => {
                if let Some(error) = fields.find("error").filter(|error| error.get() != "null") {
                    return Err(Verdict::error_in_reply(error));
                }
            }
        }
        Ok(String::new())
    }

    /// Whether the whole response is there.
    pub(super) fn is_finished(&self) -> bool {
        self.response.is_some()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The response as it would have come in one piece.
    pub(super) fn into_reply(self) -> String {
        let Some(response) = self.response else {
            return String::from("{}");
        };
        let fields = Fields::read(&response);
        let output = fields.find("output");
        let has_output = output.is_some_and(|output| !elements(output).is_empty());
        if has_output || self.items.is_empty() {
            return response.get().to_owned();
        }
        let mut out = String::from("{");
        for (key, json) in fields.0.iter().filter(|(key, _)| key != "output") {
            push_key(&mut out, key);
            out.push_str(json.get());
        }
        push_key(&mut out, "output");
        let items: Vec<_> = self.items.iter().map(|item| item.get()).collect();
        out.push('[');
        out.push_str(&items.join(","));
        out.push_str("]}");
        out
    }
}

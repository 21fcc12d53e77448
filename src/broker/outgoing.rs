use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use super::properties::Properties;

/// The longest text of a header, in bytes: a header table that does not fit in one frame closes
/// the connection.
pub const MAX_HEADER_TEXT: usize = 1024;

/// A text cut to what a header may hold, at a character's end.
#[must_use]
pub fn header_text(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_HEADER_TEXT))
        .unwrap_or(text)
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A queue, through the default exchange.
    Queue(String),
    /// An exchange, with a routing key.
    Exchange {
        /// Its name.
        name: String,
        /// The routing key.
        key: String,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue {name}"),
            Self::Exchange { name, key } => write!(f, "exchange {name}, key {key}"),
        }
    }
}

/// What becomes of a message that no queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfUnroutable {
    /// The publisher is told.
    Tell,
    /// It is dropped.
    Drop,
}

/// A message to publish.
#[derive(Clone)]
pub struct Outgoing {
    /// Where it goes.
    pub to: Address,
    /// Its content.
    pub body: Bytes,
    /// Its properties. `user_id` and `expiration` are not sent: the broker refuses another's user,
    /// and what this program publishes does not expire.
    pub properties: Properties,
    /// Headers beside those of the properties; these win. Texts are cut by [`header_text`].
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// What becomes of it if no queue takes it.
    pub if_unroutable: IfUnroutable,
}

impl Outgoing {
    /// A persistent JSON message of a kind, such as `chat.result`, whose sender is told when no
    /// queue takes it.
    #[must_use]
    pub fn new(to: Address, kind: &str, body: Bytes) -> Self {
        let properties = Properties {
            kind: Some(kind.to_owned()),
            content_type: Some("application/json".to_owned()),
            delivery_mode: Some(PERSISTENT),
            ..Properties::default()
        };
        Self {
            to,
            body,
            properties,
            headers: Vec::new(),
            if_unroutable: IfUnroutable::Tell,
        }
    }

    /// A persistent copy of a message, for another queue.
    ///
    /// The sender's `user_id` and `expiration` stand in the headers `x-chat-user-id` and
    /// `x-chat-expiration`. `CC` and `BCC` are left out, since the broker would route by them, and
    /// so are headers too long for a header table that has to hold more.
    #[must_use]
    pub fn copy(to: Address, original: &Properties, body: Bytes) -> Self {
        let mut properties = original.clone();
        properties.delivery_mode = Some(PERSISTENT);
        properties.headers.retain(|name, value| {
            !matches!(name.as_str(), "CC" | "BCC") && weight(value) <= MAX_HEADER_TEXT * 4
        });
        let mut headers = Vec::new();
        if let Some(user) = properties.user_id.take() {
            headers.push((Cow::Borrowed("x-chat-user-id"), user));
        }
        if let Some(expiration) = properties.expiration.take() {
            headers.push((Cow::Borrowed("x-chat-expiration"), expiration));
        }
        Self {
            to,
            body,
            properties,
            headers,
            if_unroutable: IfUnroutable::Tell,
        }
    }

    /// A message that need not outlive the broker and may be dropped by it: an event.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.properties.delivery_mode = Some(TRANSIENT);
        self.may_get_lost()
    }

    /// A message whose sender does not want to hear that no queue takes it. For direct reply-to:
    /// the broker delivers such a message and returns it as well, so the name is looked up first
    /// ([`super::Publisher::queue_exists`]).
    #[must_use]
    pub fn may_get_lost(mut self) -> Self {
        self.if_unroutable = IfUnroutable::Drop;
        self
    }

    /// With its id: a repeat of the message has the same.
    #[must_use]
    pub fn with_message_id(mut self, id: impl Into<String>) -> Self {
        self.properties.message_id = Some(id.into());
        self
    }

    /// With the asker's correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, id: Option<String>) -> Self {
        self.properties.correlation_id = id;
        self
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, text: &str) -> Self {
        let text = header_text(text).to_owned();
        self.headers.push((Cow::Borrowed(name), text));
        self
    }
}

const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// How many bytes a value takes in a header table, more or less.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 9,
        Value::String(text) => text.len() + 5,
        Value::Array(values) => values.iter().map(weight).sum::<usize>() + 5,
        Value::Object(map) => {
            let entries = map.iter();
            entries
                .map(|(name, value)| name.len() + 1 + weight(value))
                .sum::<usize>()
                + 5
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_text_is_cut_between_characters() {
        assert_eq!(header_text("short"), "short");
        let long = "é".repeat(1000);
        let odd = format!("x{long}");
        assert_eq!(header_text(&long).len(), 1024);
        assert_eq!(header_text(&odd).len(), 1023);
    }

    #[test]
    fn a_copy_leaves_out_what_the_broker_would_act_on() {
        let mut original = Properties {
            user_id: Some("alice".into()),
            expiration: Some("5".into()),
            kind: Some("chat.job".into()),
            ..Properties::default()
        };
        for name in ["CC", "BCC", "x-tenant"] {
            original.headers.insert(name.into(), "q".into());
        }
        original
            .headers
            .insert("x-long".into(), "l".repeat(9000).into());
        let to = Address::Queue("dead".into());
        let copy = Outgoing::copy(to, &original, Bytes::new());
        assert_eq!(copy.properties.user_id, None);
        assert_eq!(copy.properties.expiration, None);
        assert_eq!(copy.properties.kind.as_deref(), Some("chat.job"));
        let names: Vec<_> = copy.properties.headers.keys().collect();
        assert_eq!(names, ["x-tenant"]);
        assert_eq!(copy.headers.len(), 2, "user and expiration as headers");
    }
}

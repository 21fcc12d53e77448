use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Value};

/// The properties of a message, as the protocol's document names them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// What tells this message from all others.
    pub message_id: Option<String>,
    /// What the sender wants to see in the answer.
    pub correlation_id: Option<String>,
    /// The queue for the answer.
    pub reply_to: Option<String>,
    /// The body's media type.
    pub content_type: Option<String>,
    /// The body's compression or the like.
    pub content_encoding: Option<String>,
    /// The property `type`: what kind of message.
    pub kind: Option<String>,
    /// Who sent it; the broker checked it against the sender's login.
    pub user_id: Option<String>,
    /// The program that sent it.
    pub app_id: Option<String>,
    /// 0 to 255, higher first, where the queue knows priorities.
    pub priority: Option<u8>,
    /// When it was sent, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// After how many milliseconds the broker drops it, in digits.
    pub expiration: Option<String>,
    /// 2: it survives a restart of the broker.
    pub delivery_mode: Option<u8>,
    /// All headers, as JSON. The protocol bounds them: they fit in one frame of 128 KiB.
    pub headers: Map<String, Value>,
}

impl Properties {
    /// The trace that the sender was in (W3C Trace Context).
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.header("traceparent")
    }

    /// What vendors add to the trace (W3C Trace Context).
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.header("tracestate")
    }

    /// A header, if it is there and a text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Value::as_str)
    }

    /// All properties that are set, by their names in the protocol, and the headers.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = Map::new();
        let texts = [
            ("content_type", &self.content_type),
            ("content_encoding", &self.content_encoding),
            ("correlation_id", &self.correlation_id),
            ("reply_to", &self.reply_to),
            ("expiration", &self.expiration),
            ("message_id", &self.message_id),
            ("type", &self.kind),
            ("user_id", &self.user_id),
            ("app_id", &self.app_id),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                json.insert(name.to_owned(), text.as_str().into());
            }
        }
        let numbers = [
            ("delivery_mode", self.delivery_mode.map(u64::from)),
            ("priority", self.priority.map(u64::from)),
            ("timestamp", self.timestamp),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                json.insert(name.to_owned(), number.into());
            }
        }
        if !self.headers.is_empty() {
            json.insert("headers".to_owned(), self.headers.clone().into());
        }
        Value::Object(json)
    }
}

impl From<&BasicProperties> for Properties {
    fn from(raw: &BasicProperties) -> Self {
        let text = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
        Self {
            message_id: text(raw.message_id()),
            correlation_id: text(raw.correlation_id()),
            reply_to: text(raw.reply_to()),
            content_type: text(raw.content_type()),
            content_encoding: text(raw.content_encoding()),
            kind: text(raw.kind()),
            user_id: text(raw.user_id()),
            app_id: text(raw.app_id()),
            priority: *raw.priority(),
            timestamp: *raw.timestamp(),
            expiration: text(raw.expiration()),
            delivery_mode: *raw.delivery_mode(),
            headers: raw.headers().as_ref().map(to_map).unwrap_or_default(),
        }
    }
}

fn to_map(table: &FieldTable) -> Map<String, Value> {
    let entries = table.into_iter();
    entries
        .map(|(name, value)| (name.as_str().to_owned(), to_json(value)))
        .collect()
}

// The depth of tables in tables is bounded by the library's parser and by the frame.
fn to_json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => (*value).into(),
        AMQPValue::Float(value) => (*value).into(),
        AMQPValue::Double(value) => (*value).into(),
        AMQPValue::DecimalValue(value) => {
            serde_json::json!({"scale": value.scale, "value": value.value})
        }
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(to_json).collect(),
        AMQPValue::Timestamp(value) => (*value).into(),
        AMQPValue::FieldTable(table) => to_map(table).into(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().into(),
        AMQPValue::Void => Value::Null,
    }
}

/// The other way round, for a copy of a message. Whole numbers become 64 bits wide.
pub(super) fn to_amqp(value: &Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => number.as_i64().map_or_else(
            || AMQPValue::Double(number.as_f64().unwrap_or_default()),
            AMQPValue::LongLongInt,
        ),
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(values) => {
            AMQPValue::FieldArray(values.iter().map(to_amqp).collect::<Vec<_>>().into())
        }
        Value::Object(map) => {
            let mut table = FieldTable::default();
            for (name, value) in map {
                // A name that is no short string did not come from a message.
                if let Ok(name) = ShortString::try_new(name.as_str()) {
                    table.insert(name, to_amqp(value));
                }
            }
            AMQPValue::FieldTable(table)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_and_header_stands_in_the_json() {
        let mut headers = FieldTable::default();
        headers.insert("x-tenant".into(), AMQPValue::LongString("blue".into()));
        headers.insert("x-try".into(), AMQPValue::LongInt(3));
        headers.insert(
            "x-list".into(),
            AMQPValue::FieldArray(vec![AMQPValue::Boolean(true), AMQPValue::Void].into()),
        );
        headers.insert("traceparent".into(), AMQPValue::LongString("00-ab".into()));
        let raw = BasicProperties::default()
            .with_message_id("m1".into())
            .with_type("chat.job".into())
            .with_priority(7)
            .with_timestamp(1_700_000_000)
            .with_user_id("guest".into())
            .with_headers(headers);
        let properties = Properties::from(&raw);
        assert_eq!(properties.traceparent(), Some("00-ab"));
        assert_eq!(properties.header("x-try"), None, "a number is no text");
        insta::assert_json_snapshot!(properties.to_json(), @r#"
        {
          "headers": {
            "traceparent": "00-ab",
            "x-list": [
              true,
              null
            ],
            "x-tenant": "blue",
            "x-try": 3
          },
          "message_id": "m1",
          "priority": 7,
          "timestamp": 1700000000,
          "type": "chat.job",
          "user_id": "guest"
        }
        "#);
    }

    #[test]
    fn headers_survive_the_way_to_json_and_back() {
        let json = serde_json::json!({"a": "text", "b": [1, true, null], "c": {"d": 1.5}});
        assert_eq!(to_json(&to_amqp(&json)), json);
    }
}

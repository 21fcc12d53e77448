use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::sync::oneshot;

use super::error::PublishError;
use super::outgoing::{Address, IfUnroutable, Outgoing, header_text, weight};
use super::properties::to_amqp;

/// The largest message that every `RabbitMQ` from 3.10 to 4.x takes, by default.
const MAX_BODY: usize = 16 << 20;
/// Properties and headers have to fit in one frame of 128 KiB.
const MAX_HEADERS: usize = 100 << 10;
/// How often a message is sent before its sender is told that it got lost.
const MAX_TRIES: u8 = 3;

/// A message on its way, and who waits for it.
pub(super) struct Parcel {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
    pub(super) if_unroutable: IfUnroutable,
    waiting: Option<oneshot::Sender<Result<(), PublishError>>>,
    tries: u8,
}

/// What tells one message from another when the broker returns it. Its id alone does not: a job's
/// wake-up and result share one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    exchange: ShortString,
    key: ShortString,
    message_id: Option<ShortString>,
}

impl Mark {
    pub(super) fn of_returned(message: &lapin::message::BasicReturnMessage) -> Self {
        Self {
            exchange: message.exchange.clone(),
            key: message.routing_key.clone(),
            message_id: message.properties.message_id().clone(),
        }
    }
}

impl Parcel {
    /// A message as the protocol wants it, its lengths checked: a wrong one would cost the channel
    /// and everything else under way on it.
    pub(super) fn new(message: Outgoing) -> Result<Self, PublishError> {
        if message.body.len() > MAX_BODY {
            return Err(too_large("body", message.body.len(), MAX_BODY));
        }
        let properties = properties(&message)?;
        let (exchange, key) = match message.to {
            Address::Queue(name) => (String::new(), name),
            Address::Exchange { name, key } => (name, key),
        };
        Ok(Self {
            exchange: short("exchange", exchange)?,
            key: short("routing key", key)?,
            body: message.body,
            properties,
            if_unroutable: message.if_unroutable,
            waiting: None,
            tries: 0,
        })
    }

    /// The same, with somebody who waits for the outcome.
    pub(super) fn awaited(mut self, waiting: oneshot::Sender<Result<(), PublishError>>) -> Self {
        self.waiting = Some(waiting);
        self
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            exchange: self.exchange.clone(),
            key: self.key.clone(),
            message_id: self.properties.message_id().clone(),
        }
    }

    /// Whether the sender gave up before the message was sent.
    pub(super) fn is_abandoned(&self) -> bool {
        self.waiting
            .as_ref()
            .is_some_and(oneshot::Sender::is_closed)
    }

    /// Tells the sender how it ended.
    pub(super) fn settle(self, outcome: Result<(), PublishError>) {
        let Some(waiting) = self.waiting else {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a message that nobody waits for got lost");
            }
            return;
        };
        if waiting.send(outcome).is_err() {
            tracing::debug!("the sender of a message did not wait for its outcome");
        }
    }

    pub(super) fn unroutable(self) {
        let to = self.to();
        self.settle(Err(PublishError::Unroutable { to }));
    }

    pub(super) fn refused(self) {
        let to = self.to();
        self.settle(Err(PublishError::Refused { to }));
    }

    pub(super) fn rejected(self, reason: &str) {
        let reason = reason.to_owned();
        self.settle(Err(PublishError::Rejected { reason }));
    }

    /// After a connection that ended before the confirm: the message to send again, unless that
    /// was done too often.
    pub(super) fn once_more(mut self, reason: &str) -> Option<Self> {
        self.tries = self.tries.saturating_add(1);
        // What nobody waits for is an event, of no use later.
        if self.tries < MAX_TRIES && self.waiting.is_some() {
            return Some(self);
        }
        let reason = reason.to_owned();
        self.settle(Err(PublishError::Lost { reason }));
        None
    }

    fn to(&self) -> String {
        let (name, key) = (self.exchange.to_string(), self.key.to_string());
        if name.is_empty() {
            return Address::Queue(key).to_string();
        }
        Address::Exchange { name, key }.to_string()
    }
}

fn properties(message: &Outgoing) -> Result<BasicProperties, PublishError> {
    let from = &message.properties;
    let mut raw = BasicProperties::default();
    if let Some(text) = &from.message_id {
        raw = raw.with_message_id(short("message_id", text.as_str())?);
    }
    if let Some(text) = &from.correlation_id {
        raw = raw.with_correlation_id(short("correlation_id", text.as_str())?);
    }
    if let Some(text) = &from.reply_to {
        raw = raw.with_reply_to(short("reply_to", text.as_str())?);
    }
    if let Some(text) = &from.content_type {
        raw = raw.with_content_type(short("content_type", text.as_str())?);
    }
    if let Some(text) = &from.content_encoding {
        raw = raw.with_content_encoding(short("content_encoding", text.as_str())?);
    }
    if let Some(text) = &from.kind {
        raw = raw.with_type(short("type", text.as_str())?);
    }
    if let Some(text) = &from.app_id {
        raw = raw.with_app_id(short("app_id", text.as_str())?);
    }
    if let Some(priority) = from.priority {
        raw = raw.with_priority(priority);
    }
    if let Some(timestamp) = from.timestamp {
        raw = raw.with_timestamp(timestamp);
    }
    if let Some(mode) = from.delivery_mode {
        raw = raw.with_delivery_mode(mode);
    }
    match headers(message)? {
        Some(headers) => Ok(raw.with_headers(headers)),
        None => Ok(raw),
    }
}

fn headers(message: &Outgoing) -> Result<Option<FieldTable>, PublishError> {
    let mut bytes = 0;
    let mut table = FieldTable::default();
    for (name, value) in &message.properties.headers {
        bytes += name.len() + weight(value);
        table.insert(short("header name", name.as_str())?, to_amqp(value));
    }
    for (name, text) in &message.headers {
        let text = header_text(text);
        bytes += name.len() + text.len();
        let value = AMQPValue::LongString(text.into());
        table.insert(short("header name", name.as_ref())?, value);
    }
    if bytes > MAX_HEADERS {
        return Err(too_large("headers", bytes, MAX_HEADERS));
    }
    Ok((bytes > 0).then_some(table))
}

/// A text of at most 255 bytes; the library's own conversion panics on a longer one.
fn short(part: &'static str, text: impl Into<String>) -> Result<ShortString, PublishError> {
    let text = text.into();
    let bytes = text.len();
    ShortString::try_new(text).map_err(|_error| too_large(part, bytes, 255))
}

fn too_large(part: &'static str, bytes: usize, limit: usize) -> PublishError {
    PublishError::TooLarge { part, bytes, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Outgoing {
        Outgoing::new(Address::Queue("q".into()), "chat.result", Bytes::new())
    }

    fn part(message: Outgoing) -> Option<&'static str> {
        match Parcel::new(message) {
            Err(PublishError::TooLarge { part, .. }) => Some(part),
            _ => None,
        }
    }

    #[test]
    fn what_would_cost_the_channel_is_refused_before_it_is_sent() {
        assert_eq!(part(message()), None);
        assert_eq!(
            part(message().with_message_id("i".repeat(256))),
            Some("message_id")
        );
        let body = Bytes::from(vec![0; MAX_BODY + 1]);
        let to = Address::Queue("q".into());
        assert_eq!(part(Outgoing::new(to, "t", body)), Some("body"));
        let mut many = message();
        for number in 0..30 {
            let value = "v".repeat(4000);
            many.properties
                .headers
                .insert(format!("h{number}"), value.into());
        }
        assert_eq!(part(many), Some("headers"));
    }
}

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::super::classify::Verdict;
use super::super::server::Dialect;
use super::completions::Chunks;
use super::responses::Events;
use super::sse::{Decoder, Message, TooLong};
use super::{Ear, Heard};
use crate::escape::armour;

/// The most bytes of a stream, whose every word comes with some two hundred around it.
const MOST: usize = 64 << 20;
/// When the model has stopped, the usage may follow; it is not waited for any longer.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// How long and how much is waited for.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Patience {
    /// Between two pieces, from the first on. A comment that keeps the connection alive is a piece.
    pub(in super::super) idle: Duration,
    /// Bytes of the reply.
    pub(in super::super) most: usize,
}

/// What a body turned out to be.
enum Body {
    /// Nothing but white space so far.
    Unknown(BytesMut),
    /// No stream: a reply in one piece.
    Plain(BytesMut),
    Stream(Decoder),
}

/// What the events add up to.
enum Sum {
    Completions(Chunks),
    Responses(Events),
}

/// Whether there is more to come.
#[derive(PartialEq, Eq)]
pub(super) enum Course {
    GoesOn,
    Over,
}

/// Reads an answer that comes piece by piece: the reply that it adds up to. A body that is no stream
/// is the reply itself.
///
/// # Errors
/// The verdict on an error in the stream, and on one that breaks off, falls silent, cannot be read,
/// or grows too large.
pub(in super::super) async fn read(
    response: &mut reqwest::Response,
    dialect: Dialect,
    patience: Patience,
    ear: Option<&Ear>,
) -> Result<Bytes, Verdict> {
    let mut reading = Reading::new(dialect, patience.most, ear);
    let mut is_first = true;
    loop {
        let piece = if is_first {
            // A model may think for long before it says the first word.
            Ok(response.chunk().await)
        } else {
            timeout(reading.pause(patience.idle), response.chunk()).await
        };
        is_first = false;
        match piece {
            Ok(Ok(Some(bytes))) => {
                if reading.take(&bytes)? == Course::Over {
                    return reading.end();
                }
            }
            Ok(Ok(None)) => return reading.end(),
            // The model has stopped: what is missing is the end of the stream, and no word.
            Ok(Err(_)) | Err(_) if reading.is_finished() => return reading.end(),
            Ok(Err(error)) => {
                let what = format!("the stream broke off: {}", error.without_url());
                return Err(Verdict::network(what));
            }
            Err(_elapsed) => return Err(silent(patience.idle)),
        }
    }
}

fn silent(idle: Duration) -> Verdict {
    let mut verdict = Verdict::timeout(idle);
    verdict.refusal.what = format!("the stream fell silent for {} s", idle.as_secs_f64().ceil());
    verdict
}

/// A body as it is read.
pub(super) struct Reading<'a> {
    body: Body,
    sum: Sum,
    read: usize,
    most: usize,
    ear: Option<&'a Ear>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(dialect: Dialect, most: usize, ear: Option<&'a Ear>) -> Self {
        Self {
            body: Body::Unknown(BytesMut::new()),
            sum: match dialect {
                Dialect::Completions => Sum::Completions(Chunks::default()),
                Dialect::Responses => Sum::Responses(Events::default()),
            },
            read: 0,
            most,
            ear: ear.filter(|ear| ear.wants_text()),
        }
    }

    fn pause(&self, idle: Duration) -> Duration {
        if self.is_finished() {
            idle.min(AFTERWARDS)
        } else {
            idle
        }
    }

    fn is_finished(&self) -> bool {
        match &self.sum {
            Sum::Completions(chunks) => chunks.is_finished(),
            Sum::Responses(events) => events.is_finished(),
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Course, Verdict> {
        self.read = self.read.saturating_add(bytes.len());
        let begins = match &mut self.body {
            Body::Unknown(before) => {
                before.extend_from_slice(bytes);
                let first = before.trim_ascii_start().first().copied();
                first.map(|first| (first, std::mem::take(before)))
            }
            Body::Plain(body) => {
                body.extend_from_slice(bytes);
                None
            }
            Body::Stream(decoder) => {
                let messages = decoder.feed(bytes).map_err(|TooLong| self.too_large())?;
                return self.take_all(messages);
            }
        };
        let most = match self.body {
            Body::Stream(_) => MOST,
            Body::Unknown(_) | Body::Plain(_) => self.most,
        };
        if self.read > most {
            return Err(self.too_large());
        }
        match begins {
            None => Ok(Course::GoesOn),
            // JSON, or a page of HTML.
            Some((b'{' | b'[' | b'<', body)) => {
                self.body = Body::Plain(body);
                Ok(Course::GoesOn)
            }
            Some((_, body)) => {
                let mut decoder = Decoder::default();
                let messages = decoder.feed(&body).map_err(|TooLong| self.too_large())?;
                self.body = Body::Stream(decoder);
                self.take_all(messages)
            }
        }
    }

    fn take_all(&mut self, messages: Vec<Message>) -> Result<Course, Verdict> {
        for message in messages {
            if self.take_message(&message)? == Course::Over {
                return Ok(Course::Over);
            }
        }
        let bytes = match &self.sum {
            Sum::Completions(chunks) => chunks.bytes(),
            Sum::Responses(events) => events.bytes(),
        };
        if bytes > self.most || self.read > MOST {
            return Err(self.too_large());
        }
        Ok(Course::GoesOn)
    }

    fn take_message(&mut self, message: &Message) -> Result<Course, Verdict> {
        let data = message.data.trim();
        // By itself; or in the last line, from a server that forgets the empty line between its events.
        let (data, is_done) = match data.strip_suffix("[DONE]") {
            Some(before) => (before.trim(), true),
            None => (data, false),
        };
        // One JSON value; several, from such a server.
        for json in serde_json::Deserializer::from_str(data).into_iter::<&RawValue>() {
            let json = json.map_err(|_text| Verdict::malformed("a piece that is no JSON"))?;
            if !json.get().starts_with('{') {
                return Err(Verdict::malformed("a piece that is no JSON object"));
            }
            if message.event == "error" && matches!(self.sum, Sum::Completions(_)) {
                return Err(Verdict::error_in_reply(json));
            }
            let said = match &mut self.sum {
                Sum::Completions(chunks) => chunks.take(json)?,
                Sum::Responses(events) => events.take(json, &message.event)?,
            };
            self.tell(&said);
        }
        if is_done {
            if let Sum::Completions(chunks) = &mut self.sum {
                chunks.done();
            }
            return Ok(Course::Over);
        }
        match &self.sum {
            Sum::Responses(events) if events.is_finished() => Ok(Course::Over),
            Sum::Completions(_) | Sum::Responses(_) => Ok(Course::GoesOn),
        }
    }

    /// Tells who listens; `said` is the inside of a JSON string.
    fn tell(&self, said: &str) {
        let Some(ear) = self.ear.filter(|_| !said.is_empty()) else {
            return;
        };
        let json = format!("\"{said}\"");
        if let Ok(text) = serde_json::from_str::<String>(&armour(&json)) {
            ear.hear(Heard::Text(&text));
        }
    }

    /// The reply that it came to.
    pub(super) fn end(mut self) -> Result<Bytes, Verdict> {
        let last = match &mut self.body {
            Body::Unknown(_) => None,
            Body::Plain(body) => return Ok(std::mem::take(body).freeze()),
            Body::Stream(decoder) => decoder.end().map_err(|TooLong| Verdict::too_large(MOST))?,
        };
        if let Some(last) = last.filter(|_| !self.is_finished()) {
            self.take_message(&last)?;
        }
        if !self.is_finished() {
            let what = "the stream ended before the answer did".to_owned();
            return Err(Verdict::network(what));
        }
        Ok(Bytes::from(match self.sum {
            Sum::Completions(chunks) => chunks.into_reply(),
            Sum::Responses(events) => events.into_reply(),
        }))
    }

    fn too_large(&self) -> Verdict {
        Verdict::too_large(self.most)
    }
}

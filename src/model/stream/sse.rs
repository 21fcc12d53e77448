//! Server-sent events out of bytes that arrive in any pieces. Pure.
//!
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>, read leniently: an event that
//! the stream's end cuts off before its empty line counts, and what is no UTF-8 is U+FFFD.

/// The longest line, and the most data of one event, in bytes.
const MOST: usize = 8 << 20;

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// Its name; empty for most.
    pub(super) event: String,
    /// Its data, the lines of it joined.
    pub(super) data: String,
}

/// A line or an event that is longer than is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What of the stream is not complete yet.
#[derive(Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// Whether a line was read: only before the first may a byte order mark stand.
    begun: bool,
    message: Message,
    has_data: bool,
}

impl Decoder {
    /// The events that `bytes` complete, in order.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut messages = Vec::new();
        let mut rest = bytes;
        if std::mem::take(&mut self.after_cr) {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let (head, tail) = rest.split_at(at);
            self.keep(head)?;
            rest = match tail {
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [b'\r', b'\n', after @ ..] | [_, after @ ..] => after,
                [] => tail,
            };
            messages.extend(self.line()?);
        }
        self.keep(rest)?;
        Ok(messages)
    }

    /// The event that the stream's end leaves without its empty line, if there is one.
    pub(super) fn end(&mut self) -> Result<Option<Message>, TooLong> {
        if !self.line.is_empty() {
            self.line()?;
        }
        Ok(self.dispatch())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len().saturating_add(bytes.len()) > MOST {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Does what the line says; an empty one ends an event.
    fn line(&mut self) -> Result<Option<Message>, TooLong> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let mut line = &*line;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix('\u{FEFF}').unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                let data = &mut self.message.data;
                if data.len().saturating_add(value.len()) > MOST {
                    return Err(TooLong);
                }
                if std::mem::replace(&mut self.has_data, true) {
                    data.push('\n');
                }
                data.push_str(value);
            }
            "event" => value.clone_into(&mut self.message.event),
            // A comment has no name: it keeps the connection alive. The rest is for reconnecting.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<Message> {
        let message = std::mem::take(&mut self.message);
        std::mem::take(&mut self.has_data).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(event: &str, data: &str) -> Message {
        Message {
            event: event.to_owned(),
            data: data.to_owned(),
        }
    }

    /// All events, the bytes fed in pieces of `size`.
    fn read(bytes: &[u8], size: usize) -> Vec<Message> {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for piece in bytes.chunks(size) {
            all.extend(decoder.feed(piece).unwrap());
        }
        all.extend(decoder.end().unwrap());
        all
    }

    #[test]
    fn however_it_is_cut_and_whatever_ends_its_lines_it_reads_the_same() {
        let lines = [
            "\u{FEFF}: hello",
            "",
            "data: Hell\u{e9} \u{1F600}",
            "",
            ": keep-alive",
            "event: keepalive",
            "",
            "event:error",
            "id: 7",
            "data:{\"a\":",
            "data:  1}",
            "",
            "retry: 100",
            "data",
            "",
            "data: [DONE]",
        ];
        let expected = [
            message("", "Hell\u{e9} \u{1F600}"),
            message("error", "{\"a\":\n 1}"),
            message("", ""),
            message("", "[DONE]"),
        ];
        for end in ["\n", "\r\n", "\r"] {
            let text = lines.join(end);
            for size in 1..=text.len() {
                assert_eq!(read(text.as_bytes(), size), expected, "{end:?} {size}");
            }
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_read_for_ever() {
        let mut decoder = Decoder::default();
        let piece = vec![b'x'; 1 << 20];
        let fed = (0..9).map(|_| decoder.feed(&piece));
        assert_eq!(fed.last(), Some(Err(TooLong)));
        let mut decoder = Decoder::default();
        let line = [b"data: ".as_slice(), &piece, b"\n"].concat();
        let fed = (0..9).map(|_| decoder.feed(&line));
        assert_eq!(fed.last(), Some(Err(TooLong)));
    }
}

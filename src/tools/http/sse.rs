//! Streams of events that end where one grows too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use rmcp::transport::streamable_http_client::SseError;
use sse_stream::{Sse, SseStream};

use super::error::HttpError;

/// The events of `response`, each of at most `most` bytes; `overrun` is set where one is longer.
pub(super) fn events(
    response: reqwest::Response,
    most: usize,
    overrun: Arc<AtomicBool>,
) -> BoxStream<'static, Result<Sse, SseError>> {
    let mut limit = Limit::new(most);
    let bytes = response.bytes_stream().map(move |chunk| {
        let chunk = chunk.map_err(HttpError::network)?;
        if limit.lets(&chunk) {
            return Ok(chunk);
        }
        overrun.store(true, Ordering::Relaxed);
        Err(HttpError::TooLong(most))
    });
    SseStream::from_bytes_stream(bytes).boxed()
}

/// Counts the bytes of an event while they come.
#[derive(Debug)]
struct Limit {
    most: usize,
    event: usize,
    line: usize,
    comment: bool,
}

impl Limit {
    fn new(most: usize) -> Self {
        Self {
            most,
            event: 0,
            line: 0,
            comment: false,
        }
    }

    /// Whether the event is short enough with `chunk`, too.
    fn lets(&mut self, chunk: &[u8]) -> bool {
        for byte in chunk {
            match byte {
                b'\n' if self.line == 0 => self.event = 0,
                b'\n' => {
                    // Comments keep a connection open; they belong to no event.
                    self.event += if self.comment { 0 } else { self.line };
                    self.line = 0;
                }
                b'\r' => {}
                _ => {
                    self.comment = if self.line == 0 {
                        *byte == b':'
                    } else {
                        self.comment
                    };
                    self.line += 1;
                }
            }
            if self.event.saturating_add(self.line) > self.most {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_may_be_as_long_as_the_limit_and_comments_do_not_count() {
        let mut limit = Limit::new(10);
        for _ in 0..100 {
            assert!(limit.lets(b"data: 1234\r\n\r\n"));
            assert!(limit.lets(b": ping\n"));
        }
        assert!(limit.lets(b"data: 1234\n"));
        assert!(!limit.lets(b"d"));

        let mut limit = Limit::new(10);
        assert!(limit.lets(b"data: 12"));
        assert!(!limit.lets(b"345"));
    }
}

//! What a tool server says on its standard error: drained always, since a full pipe stops a
//! process; logged line by line; its tail kept for start errors.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

const MAX_LINES: usize = 20;
const MAX_LINE_BYTES: usize = 1024;

/// The last lines of a process's standard error.
#[derive(Debug, Default)]
pub(super) struct StderrTail(Mutex<VecDeque<String>>);

impl StderrTail {
    /// Reads `stderr` to its end.
    pub(super) async fn drain(&self, server: &str, stderr: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        // A read error is the end as well: nobody is hurt by a lost log line.
        while let Ok(chunk) = reader.fill_buf().await {
            if chunk.is_empty() {
                break;
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            let room = MAX_LINE_BYTES.saturating_sub(line.len());
            line.extend(chunk.iter().take(end.unwrap_or(taken).min(room)));
            reader.consume(taken);
            if end.is_some() {
                self.keep(server, &std::mem::take(&mut line));
            }
        }
        self.keep(server, &line);
    }

    /// The tail as one text, empty if nothing was said.
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Vec::from(lines.clone()).join("\n")
    }

    fn keep(&self, server: &str, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        if line.is_empty() {
            return;
        }
        tracing::debug!(tool.server = server, line, "stderr");
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_tail_is_bounded_in_lines_and_in_their_length() {
        let mut said: String =
            (0..100).fold(String::new(), |said, n| said + &format!("line {n}\n"));
        said.push_str(&"x".repeat(100_000));
        let tail = StderrTail::default();
        tail.drain("s", said.as_bytes()).await;
        let text = tail.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (MAX_LINES, "line 81"));
        assert_eq!(lines[MAX_LINES - 1].len(), MAX_LINE_BYTES);
    }
}

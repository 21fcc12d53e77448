//! What a tool server says on its standard error: drained always, since a full pipe stops a
//! process; logged line by line, not faster than anybody reads; its tail kept for start errors.
//! Values of its environment are hidden.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

use crate::config::{INHERITED, Secret};

/// Lines that are kept.
const MAX_LINES: usize = 20;
/// The longest line that is kept or logged.
const MAX_LINE_BYTES: usize = 1024;
/// What is read of a line, so that a secret across the cut is hidden before it.
const READ_BYTES: usize = 8 * MAX_LINE_BYTES;
/// Lines that are logged in a row, and how long until there may be as many again.
const BURST: u32 = 50;
const WINDOW: Duration = Duration::from_secs(5);
/// Shorter values are words like `1` and `on`, which would make every line unreadable.
const LEAST_SECRET: usize = 4;

/// The last lines of a process's standard error.
#[derive(Debug)]
pub(super) struct StderrTail {
    lines: Mutex<VecDeque<String>>,
    redactor: Redactor,
}

/// Hides the values that a server was given.
#[derive(Debug, Default)]
pub(super) struct Redactor(Vec<Secret>);

impl Redactor {
    /// Hides what `env` holds beyond what every child gets.
    pub(super) fn new(env: &BTreeMap<String, Secret>) -> Self {
        let own = env
            .iter()
            .filter(|(name, _)| !INHERITED.contains(&name.as_str()));
        // A value of several lines comes back line by line.
        let lines = own.flat_map(|(_, value)| value.expose().lines());
        let mut lines: Vec<_> = lines
            .map(str::trim)
            .filter(|line| line.len() >= LEAST_SECRET)
            .collect();
        // One may be a part of another.
        lines.sort_unstable_by_key(|line| std::cmp::Reverse(line.len()));
        Self(lines.into_iter().map(Secret::new).collect())
    }

    fn hide(&self, mut line: String) -> String {
        for secret in &self.0 {
            if line.contains(secret.expose()) {
                line = line.replace(secret.expose(), "***");
            }
        }
        line
    }
}

/// How many lines may be logged.
struct Rate {
    since: Instant,
    logged: u32,
    left_out: u64,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            logged: 0,
            left_out: 0,
        }
    }

    /// Whether one more line may be logged, and how many were left out before it.
    fn ask(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WINDOW {
            let left_out = self.left_out;
            *self = Self::new(now);
            self.logged = 1;
            return Some(left_out);
        }
        if self.logged == BURST {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.logged += 1;
        Some(0)
    }
}

impl StderrTail {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self {
            lines: Mutex::default(),
            redactor,
        }
    }

    /// Reads `stderr` to its end.
    pub(super) async fn drain(&self, server: &str, stderr: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        let mut rate = Rate::new(Instant::now());
        // A read error is the end as well: nobody is hurt by a lost log line.
        while let Ok(chunk) = reader.fill_buf().await {
            if chunk.is_empty() {
                break;
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            let room = READ_BYTES.saturating_sub(line.len());
            line.extend(chunk.iter().take(end.unwrap_or(taken).min(room)));
            reader.consume(taken);
            if end.is_some() {
                self.keep(server, &std::mem::take(&mut line), &mut rate);
            }
        }
        self.keep(server, &line, &mut rate);
        if rate.left_out > 0 {
            tracing::info!(
                tool.server = server,
                lines = rate.left_out,
                "stderr lines left out"
            );
        }
    }

    /// The tail as one text, empty if nothing was said.
    pub(super) fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Vec::from(lines.clone()).join("\n")
    }

    fn keep(&self, server: &str, line: &[u8], rate: &mut Rate) {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        if line.is_empty() {
            return;
        }
        let mut line = self.redactor.hide(line);
        line.truncate(line.floor_char_boundary(MAX_LINE_BYTES));
        if let Some(left_out) = rate.ask(Instant::now()) {
            if left_out > 0 {
                tracing::info!(
                    tool.server = server,
                    lines = left_out,
                    "stderr lines left out"
                );
            }
            tracing::info!(tool.server = server, line, "stderr");
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(env: &[(&str, &str)]) -> Redactor {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
        Redactor::new(&env.collect())
    }

    #[tokio::test]
    async fn the_tail_is_bounded_in_lines_and_in_their_length() {
        let mut said: String =
            (0..100).fold(String::new(), |said, n| said + &format!("line {n}\n"));
        said.push_str(&"x".repeat(100_000));
        let tail = StderrTail::new(Redactor::default());
        tail.drain("s", said.as_bytes()).await;
        let text = tail.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (MAX_LINES, "line 81"));
        assert_eq!(lines[MAX_LINES - 1].len(), MAX_LINE_BYTES);
    }

    #[tokio::test]
    async fn no_value_of_the_servers_own_environment_is_kept_wherever_the_line_is_cut() {
        let env = [
            ("KEY", "s3cret"),
            ("LONGER", "s3cret-and-more"),
            ("PEM", "-- key --\nMIIE"),
            ("PATH", "/usr/bin"),
            ("ON", "1"),
        ];
        let tail = StderrTail::new(redactor(&env));
        let edge = "x".repeat(MAX_LINE_BYTES - 3);
        let said = format!("a s3cret-and-more b s3cret c\nMIIE 1 /usr/bin\n{edge}s3cret\n");
        tail.drain("s", said.as_bytes()).await;
        assert_eq!(
            tail.text(),
            format!("a *** b *** c\n*** 1 /usr/bin\n{edge}***")
        );
    }

    #[test]
    fn what_comes_too_fast_is_left_out_and_counted() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let logged = (0..1000).filter(|_| rate.ask(start).is_some()).count();
        assert_eq!(logged, 50);
        assert_eq!(rate.ask(start + WINDOW), Some(950));
        assert_eq!(rate.ask(start + WINDOW), Some(0));
    }
}

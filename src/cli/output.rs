//! Where commands write: lines on standard output, complaints and progress on standard error.

use std::io::{self, IsTerminal as _, Write as _};

use console::{Style, Term};

use super::text::visible;

/// Columns of what is no terminal.
const PLAIN_WIDTH: usize = 120;

/// What standard output is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// Whether people read it as it comes.
    pub(super) terminal: bool,
    /// Whether it takes colours.
    pub(super) colour: bool,
    /// Its columns.
    pub(super) width: usize,
}

impl Screen {
    pub(super) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let size = Term::stdout().size_checked();
        Self {
            terminal,
            colour: console::colors_enabled(),
            width: size
                .filter(|_| terminal)
                .map_or(PLAIN_WIDTH, |(_, columns)| columns.into()),
        }
    }

    /// A style that is only there where colours are.
    pub(super) fn style(self) -> Style {
        Style::new().force_styling(self.colour)
    }

    /// `text` as this screen may show it: a terminal gets no control characters of others.
    pub(super) fn safe(self, text: &str) -> String {
        if self.terminal {
            visible(text).into_owned()
        } else {
            text.to_owned()
        }
    }
}

/// Writes a line to standard output, at once.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Writes a piece of a line to standard output, at once.
pub(super) fn piece(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// Writes JSON to standard output: characters that move a terminal are written as JSON's own
/// escapes, which mean the same.
pub(super) fn json(text: &str) -> io::Result<()> {
    line(&super::text::visible_json(text))
}

/// Says on standard error that something is wrong.
pub(super) fn complain(text: &str) {
    let head = Style::new().for_stderr().red().bold().apply_to("error:");
    say(&format!("{head} {}", visible(text.trim_end())));
}

/// Writes a line to standard error. There is nowhere to say that it is closed.
pub(super) fn say(text: &str) {
    writeln!(io::stderr(), "{text}").unwrap_or_default();
}

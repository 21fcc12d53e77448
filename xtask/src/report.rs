//! The lines a person reads: a label of eleven columns, then the fact. Colours only on a terminal.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::time::Duration;

/// One fact. A half-drawn progress line of cargo is wiped first.
pub(crate) fn line(label: &str, fact: &str) {
    let text = if is_plain() {
        format!("{label:<10} {fact}\n")
    } else {
        let colour = match label {
            "OK" => "32",
            "FAILED" => "31",
            _ => "1",
        };
        format!("\r\x1b[K\x1b[{colour}m{label:<10}\x1b[0m {fact}\n")
    };
    raw(text.as_bytes());
}

/// Bytes as they are: what a program said. A closed pipe is no reason to leave services running.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = stdout().lock();
    drop(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Why the command failed, to standard error.
pub(crate) fn error(text: &str) {
    drop(writeln!(stderr().lock(), "error: {text}"));
}

/// `1.2 s`
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn is_plain() -> bool {
    !stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some()
}

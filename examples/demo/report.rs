//! The lines that a person reads: a label of eleven columns, then the fact; in colour on a terminal.

use std::io::Write as _;

use console::style;

/// One fact.
pub(crate) fn line(label: &str, fact: &str) {
    print(&format!("{} {fact}", style(format!("{label:<10}")).bold()));
}

/// A step of the job, set in.
pub(crate) fn step(label: &str, fact: &str) {
    print(&format!("  {} {fact}", style(format!("{label:<8}")).cyan()));
}

/// What is not as it should be.
pub(crate) fn failed(fact: &str) {
    print(&format!(
        "{} {fact}",
        style(format!("{:<10}", "FAILED")).red().bold()
    ));
}

/// A text on one line of bearable length.
pub(crate) fn short(text: &str) -> String {
    const MOST: usize = 160;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// A closed pipe is no reason to fail.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

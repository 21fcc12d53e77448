//! What a person reads: a line for each trouble while it happens, a table and the laws at the end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;
use std::time::Instant;

use crate::laws::Law;

/// What breaks a law is shown so often.
const EXAMPLES: usize = 5;

/// Since the beginning.
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// A line of what happens now.
    pub(crate) fn say(&self, fact: &dyn Display) {
        print(&format!(
            "{:>7.1} s  {fact}",
            self.0.elapsed().as_secs_f64()
        ));
    }
}

/// Labels and counts.
#[derive(Default)]
pub(crate) struct Table(Vec<(String, String)>);

impl Table {
    /// A row more.
    pub(crate) fn row(&mut self, label: impl Into<String>, count: impl Display) {
        self.0.push((label.into(), count.to_string()));
    }

    /// How many there are of each.
    pub(crate) fn tally<T: Display>(&mut self, label: &str, things: impl Iterator<Item = T>) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for thing in things {
            *counts.entry(thing.to_string()).or_default() += 1;
        }
        for (thing, count) in counts {
            self.row(format!("{label} {thing}"), count);
        }
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        let width = self.0.iter().map(|(label, _)| label.chars().count()).max();
        let width = width.unwrap_or_default();
        for (label, count) in &self.0 {
            print(&format!("  {label:<width$}  {count:>7}"));
        }
    }
}

/// Prints each law; returns whether all of them hold.
pub(crate) fn laws(laws: &[Law]) -> bool {
    for Law { text, broken } in laws {
        let verdict = if broken.is_empty() { "OK" } else { "FAILED" };
        print(&format!("{verdict:<7} {text}"));
        for example in broken.iter().take(EXAMPLES) {
            print(&format!("        {example}"));
        }
        if broken.len() > EXAMPLES {
            print(&format!("        and {} more", broken.len() - EXAMPLES));
        }
    }
    laws.iter().all(|law| law.broken.is_empty())
}

/// A line. A closed pipe is no reason to stop.
pub(crate) fn print(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

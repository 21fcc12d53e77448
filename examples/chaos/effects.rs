//! What the tools did to the world: a line for each call that reached a tool server.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Which call: job, iteration, position. The idempotency key says so.
pub(crate) type Key = (Uuid, i32, i32);

/// The calls by their key, each with the times at which it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// By key.
    pub(crate) by_key: BTreeMap<Key, Vec<Effect>>,
    /// Lines that are none.
    pub(crate) unreadable: Vec<String>,
}

/// A call that a tool server got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    /// When.
    pub(crate) at: DateTime<Utc>,
    /// The tool's name on its server.
    pub(crate) tool: String,
}

impl Effects {
    /// Reads the file; there is none if no tool was ever called.
    pub(crate) fn read(path: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(path).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut effects = Self::default();
        for line in text.lines() {
            match effect(line) {
                Some((key, effect)) => effects.by_key.entry(key).or_default().push(effect),
                None => effects.unreadable.push(line.to_owned()),
            }
        }
        effects
    }

    /// How many calls there were.
    pub(crate) fn count(&self) -> usize {
        self.by_key.values().map(Vec::len).sum()
    }
}

/// `<microseconds since 1970> <tool> <job>/<iteration>/<position>`
fn effect(line: &str) -> Option<(Key, Effect)> {
    let mut words = line.split(' ');
    let at = DateTime::from_timestamp_micros(words.next()?.parse().ok()?)?;
    let tool = words.next()?.to_owned();
    let mut parts = words.next()?.split('/');
    let job = Uuid::parse_str(parts.next()?).ok()?;
    let key = (
        job,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    Some((key, Effect { at, tool }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_gathered_by_their_key() {
        let job = Uuid::from_u128(7);
        let text =
            format!("1000000 add {job}/1/2\n2000000 add {job}/1/2\n3 sleep {job}/2/1\nhalf a li");
        let effects = Effects::parse(&text);
        assert_eq!(effects.count(), 3);
        let seconds: Vec<_> = effects.by_key[&(job, 1, 2)]
            .iter()
            .map(|effect| effect.at.timestamp())
            .collect();
        assert_eq!(seconds, [1, 2]);
        assert_eq!(effects.by_key[&(job, 2, 1)][0].tool, "sleep");
        assert_eq!(effects.unreadable, ["half a li"]);
    }
}

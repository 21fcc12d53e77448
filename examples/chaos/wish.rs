//! What a job wants of the model, in the words of its message: the scripted model reads it there.

use std::fmt;

use uuid::Uuid;

/// The course of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The job that it belongs to.
    pub(crate) job: Uuid,
    /// How often the model calls tools before it answers.
    pub(crate) rounds: u32,
    /// How many tools it calls each time.
    pub(crate) calls: u32,
    /// How long a slow tool takes.
    pub(crate) pause_ms: u32,
}

impl Wish {
    /// Read from a message.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let job = Uuid::parse_str(words.next()?).ok()?;
        let mut number = |name| words.next()?.strip_prefix(name)?.parse().ok();
        Some(Self {
            job,
            rounds: number("rounds=")?,
            calls: number("calls=")?,
            pause_ms: number("pause_ms=")?,
        })
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            job,
            rounds,
            calls,
            pause_ms,
        } = self;
        write!(
            formatter,
            "{job} rounds={rounds} calls={calls} pause_ms={pause_ms}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_as_it_was_written() {
        let wish = Wish {
            job: Uuid::from_u128(7),
            rounds: 2,
            calls: 3,
            pause_ms: 400,
        };
        assert_eq!(Wish::parse(&wish.to_string()), Some(wish));
        assert_eq!(Wish::parse("What is 20 plus 22?"), None);
    }
}

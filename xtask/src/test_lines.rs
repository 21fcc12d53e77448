//! Counting tests from what libtest prints.

/// How many tests did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Ran and held.
    pub(crate) passed: u64,
    /// Ran and did not hold.
    pub(crate) failed: u64,
    /// Were ignored, or left out by us.
    pub(crate) skipped: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Adds up the `test result:` lines of a stream that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    counts: Counts,
    line: Vec<u8>,
    filter_is_ours: bool,
}

impl Counter {
    /// A counter; what libtest calls filtered out counts as skipped if the filter is ours and not
    /// the caller's.
    pub(crate) fn new(filter_is_ours: bool) -> Self {
        Self {
            filter_is_ours,
            ..Self::default()
        }
    }

    /// Takes the next piece.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        for &byte in piece {
            if byte == b'\n' {
                self.end_line();
            } else {
                self.line.push(byte);
            }
        }
    }

    /// The sum at the end of the stream.
    pub(crate) fn finish(mut self) -> Counts {
        self.end_line();
        self.counts
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if let Some((counts, filtered_out)) = parse(&String::from_utf8_lossy(&line)) {
            self.counts.passed += counts.passed;
            self.counts.failed += counts.failed;
            self.counts.skipped += counts.skipped;
            if self.filter_is_ours {
                self.counts.skipped += filtered_out;
            }
        }
    }
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
/// gives the counts, and how many were filtered out.
fn parse(line: &str) -> Option<(Counts, u64)> {
    let (_, rest) = line
        .trim()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let number = |word: &str| {
        let field = rest
            .split("; ")
            .find_map(|field| field.trim().strip_suffix(word))?;
        field.trim().parse().ok()
    };
    let counts = Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
    };
    Some((counts, number("filtered out")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_over_pieces_cut_anywhere() {
        let text = "running 3 tests\ntest a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.00s";
        for cut in 0..text.len() {
            let (left, right) = text.as_bytes().split_at(cut);
            for (filter_is_ours, skipped) in [(false, 1), (true, 6)] {
                let mut counter = Counter::new(filter_is_ours);
                counter.feed(left);
                counter.feed(right);
                let counts = Counts {
                    passed: 7,
                    failed: 2,
                    skipped,
                };
                assert_eq!(counter.finish(), counts);
            }
        }
    }

    #[test]
    fn other_lines_do_not_count() {
        for line in [
            "test result",
            "ok. 3 passed; 0 failed",
            "test result: ok. x passed; 0 failed; 0 ignored",
            "",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}

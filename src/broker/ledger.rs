//! Which message was delivered and which came back.
//!
//! The broker sends a return before the confirm of the same message, but the client library hangs
//! it on whichever confirm it works off next, and works a group of confirms off in no order. So a
//! confirm that carries a return says nothing about its own message, and one that carries none is
//! to be trusted only when all that were worked off before it have been looked at. What follows
//! from that is here, without any IO:
//!
//! - a return is taken off by the first confirm worked off after it came, so when a confirm carries
//!   none, all returns of messages confirmed by then have been seen;
//! - when a confirm carries another's return, its own may be the next: the message is in doubt
//!   until a later confirm carries none, or nothing is under way.

use std::collections::HashMap;
use std::hash::Hash;

/// What a confirm said.
pub(super) enum Confirm<M> {
    /// Taken; with somebody's return, if one was due.
    Taken(Option<M>),
    /// Refused by its queue; with somebody's return, if one was due.
    Refused(Option<M>),
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    Unroutable,
    Refused,
}

/// The returns that have not found their message, and the messages in doubt.
pub(super) struct Ledger<M, T> {
    returned: HashMap<M, u32>,
    doubtful: Vec<(M, T)>,
}

impl<M, T> Default for Ledger<M, T> {
    fn default() -> Self {
        Self {
            returned: HashMap::new(),
            doubtful: Vec::new(),
        }
    }
}

impl<M: Eq + Hash, T> Ledger<M, T> {
    /// Verdicts after a round: all confirms that had been worked off at one moment, each with its
    /// message. `under_way` is how many messages wait for theirs after it.
    pub(super) fn round(
        &mut self,
        confirms: Vec<(M, T, Confirm<M>)>,
        under_way: usize,
    ) -> Vec<(T, Verdict)> {
        let mut verdicts = Vec::with_capacity(confirms.len());
        let mut clean = Vec::new();
        let mut doubtful = Vec::new();
        let mut bare = under_way == 0;
        for (mark, message, confirm) in confirms {
            let carried = match confirm {
                Confirm::Taken(carried) => {
                    let list = if carried.is_some() {
                        &mut doubtful
                    } else {
                        &mut clean
                    };
                    list.push((mark, message));
                    carried
                }
                Confirm::Refused(carried) => {
                    verdicts.push((message, Verdict::Refused));
                    carried
                }
            };
            bare |= carried.is_none();
            if let Some(carried) = carried {
                *self.returned.entry(carried).or_default() += 1;
            }
        }
        // Those in doubt before this round: settled by any bare confirm of it.
        let (old, young) = (std::mem::take(&mut self.doubtful), doubtful);
        self.sort(old, bare, &mut verdicts);
        self.sort(clean, true, &mut verdicts);
        self.sort(young, under_way == 0, &mut verdicts);
        verdicts
    }

    /// Gives back the messages in doubt and forgets all: the connection ended.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.returned.clear();
        let doubtful = std::mem::take(&mut self.doubtful);
        doubtful.into_iter().map(|(_, message)| message).collect()
    }

    fn sort(&mut self, messages: Vec<(M, T)>, certain: bool, verdicts: &mut Vec<(T, Verdict)>) {
        for (mark, message) in messages {
            if self.take_return(&mark) {
                verdicts.push((message, Verdict::Unroutable));
            } else if certain {
                verdicts.push((message, Verdict::Delivered));
            } else {
                self.doubtful.push((mark, message));
            }
        }
    }

    fn take_return(&mut self, mark: &M) -> bool {
        let Some(count) = self.returned.get_mut(mark) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.returned.remove(mark);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Confirm::Taken;
    use super::*;

    fn round(
        ledger: &mut Ledger<u32, u32>,
        confirms: &[(u32, Option<u32>)],
        under_way: usize,
    ) -> Vec<(u32, Verdict)> {
        let confirms = confirms
            .iter()
            .map(|(id, carried)| (*id, *id, Taken(*carried)))
            .collect();
        let mut verdicts = ledger.round(confirms, under_way);
        verdicts.sort_by_key(|(id, _)| *id);
        verdicts
    }

    #[test]
    fn a_return_on_anothers_confirm_finds_its_message() {
        let mut ledger = Ledger::default();
        let verdicts = round(&mut ledger, &[(1, Some(2)), (2, None)], 0);
        assert_eq!(
            verdicts,
            [(1, Verdict::Delivered), (2, Verdict::Unroutable)]
        );
    }

    #[test]
    fn a_message_whose_confirm_carried_anothers_return_is_in_doubt_until_a_bare_one() {
        let mut ledger = Ledger::default();
        assert_eq!(round(&mut ledger, &[(1, Some(2))], 5), []);
        assert_eq!(
            round(&mut ledger, &[(2, Some(1))], 4),
            [(1, Verdict::Unroutable), (2, Verdict::Unroutable)]
        );
        assert_eq!(round(&mut ledger, &[(3, Some(4))], 3), []);
        assert_eq!(
            round(&mut ledger, &[(4, None)], 2),
            [(3, Verdict::Delivered), (4, Verdict::Unroutable)]
        );
    }

    /// The client library's bookkeeping: returns wait in a line, and each confirm worked off takes
    /// the first, whosever it is.
    #[test]
    fn every_message_gets_its_own_verdict_in_whatever_order_confirms_are_worked_off() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut unconfirmed: Vec<(u32, bool)> = (0..20).map(|id| (id, random.bool())).collect();
            random.shuffle(&mut unconfirmed);
            let expected = unconfirmed.clone();
            let mut line = std::collections::VecDeque::new();
            let mut returned = 0;
            let mut ledger = Ledger::default();
            let mut got = Vec::new();
            while !unconfirmed.is_empty() {
                // Returns come before their confirm, possibly long before.
                let size = random.usize(1..=unconfirmed.len());
                let ahead = random.usize(size..=unconfirmed.len()).max(returned);
                let done = expected.len() - unconfirmed.len();
                let ahead = (done + ahead).min(expected.len());
                while returned < ahead {
                    if !expected[returned].1 {
                        line.push_back(expected[returned].0);
                    }
                    returned += 1;
                }
                let mut group: Vec<_> = unconfirmed.drain(..size).collect();
                random.shuffle(&mut group);
                let mut confirms: Vec<_> = group
                    .into_iter()
                    .map(|(id, _)| (id, id, Taken(line.pop_front())))
                    .collect();
                random.shuffle(&mut confirms);
                got.extend(ledger.round(confirms, unconfirmed.len()));
            }
            got.sort_by_key(|(id, _)| *id);
            let mut expected = expected;
            expected.sort_unstable();
            let verdict = |routable| {
                if routable {
                    Verdict::Delivered
                } else {
                    Verdict::Unroutable
                }
            };
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(id, routable)| (id, verdict(routable)))
                .collect();
            assert_eq!(got, expected, "seed {seed}");
        }
    }
}

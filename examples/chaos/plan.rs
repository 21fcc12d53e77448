//! What goes wrong and when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A replica gets SIGKILL, and another starts.
    Kill { replica: usize },
    /// A replica gets SIGSTOP, and SIGCONT after this time.
    Freeze { replica: usize, time: Duration },
    /// A replica gets SIGTERM, and another starts.
    Drain { replica: usize },
    /// Every connection to the broker is closed.
    CloseConnections,
    /// The broker goes away for this time and a little more.
    RestartBroker { away: Duration },
    /// Every connection to the database is closed.
    TerminateBackends,
    /// The database goes away for this time and a little more.
    RestartDatabase { stop: Stop, away: Duration },
}

/// How the database is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// In good order.
    Fast,
    /// As by a breakdown: it recovers when it starts.
    Immediate,
}

/// Longer than the silence after which a worker counts as dead.
const LONG_FREEZE: Duration = Duration::from_secs(35);
/// The trouble that is a long freeze in any case, so that even a short run has one.
const FIRST_LONG_FREEZE: usize = 8;

/// An endless list of troubles; the same for the same seed.
pub(crate) struct Plan {
    random: Rng,
    replicas: usize,
    given: usize,
}

impl Plan {
    /// For so many replicas, by this seed.
    pub(crate) fn new(seed: u64, replicas: usize) -> Self {
        Self {
            random: Rng::with_seed(seed),
            replicas,
            given: 0,
        }
    }

    /// The next trouble, and how much later than the last one it comes.
    pub(crate) fn next(&mut self) -> (Duration, Trouble) {
        let pause = self.millis(1000, 4000);
        let trouble = self.trouble();
        self.given += 1;
        if self.given == FIRST_LONG_FREEZE {
            let replica = self.random.usize(0..self.replicas);
            let time = LONG_FREEZE;
            return (pause, Trouble::Freeze { replica, time });
        }
        (pause, trouble)
    }

    fn trouble(&mut self) -> Trouble {
        let replica = self.random.usize(0..self.replicas);
        match self.random.u32(0..100) {
            0..30 => Trouble::Kill { replica },
            30..46 => Trouble::Freeze {
                replica,
                time: self.millis(2000, 6000),
            },
            46..50 => Trouble::Freeze {
                replica,
                time: LONG_FREEZE,
            },
            50..64 => Trouble::Drain { replica },
            64..76 => Trouble::CloseConnections,
            76..82 => Trouble::RestartBroker {
                away: self.millis(0, 2000),
            },
            82..93 => Trouble::TerminateBackends,
            _ => Trouble::RestartDatabase {
                stop: if self.random.bool() {
                    Stop::Fast
                } else {
                    Stop::Immediate
                },
                away: self.millis(0, 2000),
            },
        }
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(least..=most))
    }
}

impl Trouble {
    /// What kind it is, for counting.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill -9 of a replica",
            Self::Freeze { .. } => "SIGSTOP of a replica",
            Self::Drain { .. } => "SIGTERM of a replica",
            Self::CloseConnections => "close_all_connections",
            Self::RestartBroker { .. } => "stop_app, start_app",
            Self::TerminateBackends => "pg_terminate_backend of all",
            Self::RestartDatabase { .. } => "PostgreSQL stopped and started",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Kill { replica } | Self::Drain { replica } => {
                write!(formatter, "{kind}: place {replica}")
            }
            Self::Freeze { replica, time } => {
                write!(formatter, "{kind}: place {replica}, {time:.1?}")
            }
            Self::CloseConnections | Self::TerminateBackends => formatter.write_str(kind),
            Self::RestartBroker { away } => write!(formatter, "{kind}: away for {away:.1?}"),
            Self::RestartDatabase { stop, away } => {
                write!(formatter, "{kind}: {stop:?}, away for {away:.1?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn first(seed: u64, count: usize) -> Vec<(Duration, Trouble)> {
        let mut plan = Plan::new(seed, 3);
        (0..count).map(|_| plan.next()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_troubles_and_another_seed_others() {
        assert_eq!(first(1, 200), first(1, 200));
        assert_ne!(first(1, 200), first(2, 200));
    }

    #[test]
    fn everything_goes_wrong_sooner_or_later_to_everybody() {
        let troubles = first(7, 500);
        let kinds: BTreeSet<_> = troubles.iter().map(|(_, trouble)| trouble.kind()).collect();
        assert_eq!(kinds.len(), 7);
        let killed: BTreeSet<_> = troubles
            .iter()
            .filter_map(|(_, trouble)| match trouble {
                Trouble::Kill { replica } => Some(*replica),
                Trouble::Freeze { .. }
                | Trouble::Drain { .. }
                | Trouble::CloseConnections
                | Trouble::RestartBroker { .. }
                | Trouble::TerminateBackends
                | Trouble::RestartDatabase { .. } => None,
            })
            .collect();
        assert_eq!(killed, BTreeSet::from([0, 1, 2]));
        let pauses = troubles.iter().map(|(pause, _)| pause.as_millis());
        assert!(
            pauses
                .into_iter()
                .all(|pause| (1000..=4000).contains(&pause))
        );
    }
}

//! Whether this process is stuck. Pure: what was measured comes from outside.
//!
//! A liveness probe restarts what this calls stuck, so it looks at nothing but this process's own
//! loops: do they turn? Whether the services answer is `/readyz`'s question. A worker is no better
//! for being restarted while the database or the broker is away, and its jobs in hand are worse.

use std::time::Duration;

/// The heartbeat and the sweep put a bound to everything they do: 21 s a turn at most.
const BOUNDED: Duration = Duration::from_secs(45);
/// The other loops turn every 5 s while they are idle, and within a few seconds else, unless they
/// keep trying to write to a database that is away.
const IDLING: Duration = Duration::from_mins(1);
/// On a connection that stands a consumer is there within seconds, or the connection is given up.
const CONSUMER: Duration = Duration::from_mins(1);
/// A try to connect takes a minute at most; the pause between two is at most 10 s.
const REDIAL: Duration = Duration::from_mins(2);

/// What is known of this process.
#[derive(Clone, Debug)]
pub(super) struct Vitals {
    pub(super) loops: Vec<LoopVitals>,
    /// For how long the database has been answering; nothing while it does not.
    pub(super) database: Duration,
    /// For how long the intake has been without the consumer that it wants.
    pub(super) no_consumer: Duration,
    /// For how long there has been a connection to consume on; nothing while there is none.
    pub(super) connected: Duration,
    /// For how long nobody has tried to bring back a connection to the broker that is lost.
    pub(super) untried: Duration,
}

/// One loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoopVitals {
    pub(super) name: &'static str,
    /// How long ago it last turned.
    pub(super) silent: Duration,
    pub(super) waits_for: WaitsFor,
}

/// What a loop may wait for within a turn, for as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// Nothing: all that it does has a bound.
    Nothing,
    /// Nothing either; its turns are further apart.
    Deliveries,
    /// It keeps what it is to write until the database takes it.
    Database,
}

/// Why this process is stuck: nothing if it is not.
pub(super) fn stuck(vitals: &Vitals) -> Vec<String> {
    let loops = vitals.loops.iter().filter_map(|one| {
        let (silent, limit) = match one.waits_for {
            WaitsFor::Nothing => (one.silent, BOUNDED),
            WaitsFor::Deliveries => (one.silent, IDLING),
            // Its silence counts from when the database came back.
            WaitsFor::Database => (one.silent.min(vitals.database), IDLING),
        };
        let secs = one.silent.as_secs();
        (silent > limit).then(|| format!("the {} loop has not turned for {secs} s", one.name))
    });
    let mut reasons: Vec<_> = loops.collect();
    let no_consumer = vitals.no_consumer.min(vitals.connected);
    if no_consumer > CONSUMER {
        let secs = no_consumer.as_secs();
        reasons.push(format!(
            "no consumer for {secs} s, on a connection that stands"
        ));
    }
    if vitals.untried > REDIAL {
        let secs = vitals.untried.as_secs();
        reasons.push(format!(
            "no try to connect to the broker again for {secs} s"
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn well() -> Vitals {
        let one = |name, waits_for| LoopVitals {
            name,
            silent: Duration::from_secs(1),
            waits_for,
        };
        Vitals {
            loops: vec![
                one("heartbeat", WaitsFor::Nothing),
                one("sweep", WaitsFor::Nothing),
                one("intake", WaitsFor::Deliveries),
                one("control", WaitsFor::Deliveries),
                one("marks", WaitsFor::Database),
            ],
            database: HOUR,
            no_consumer: Duration::ZERO,
            connected: HOUR,
            untried: Duration::ZERO,
        }
    }

    fn silent(name: &str, silent: Duration) -> Vitals {
        let mut vitals = well();
        for one in &mut vitals.loops {
            if one.name == name {
                one.silent = silent;
            }
        }
        vitals
    }

    #[test]
    fn a_process_whose_loops_turn_is_not_stuck() {
        assert_eq!(stuck(&well()), Vec::<String>::new());
    }

    #[test]
    fn each_loop_that_does_not_turn_is_named() {
        for one in well().loops {
            let reasons = stuck(&silent(one.name, HOUR));
            assert_eq!(
                reasons,
                [format!("the {} loop has not turned for 3600 s", one.name)]
            );
        }
    }

    #[test]
    fn each_loop_has_the_time_that_a_slow_turn_takes() {
        for one in well().loops {
            // The longest turn of each, doubled: timeouts of the heartbeat and the sweep end theirs.
            let reasons = stuck(&silent(one.name, Duration::from_secs(42)));
            assert_eq!(reasons, Vec::<String>::new());
        }
    }

    #[test]
    fn a_database_that_is_away_makes_nobody_stuck_who_waits_for_it() {
        let mut vitals = silent("marks", HOUR);
        vitals.database = Duration::ZERO;
        assert_eq!(stuck(&vitals), Vec::<String>::new());
        vitals.database = Duration::from_secs(59);
        assert_eq!(stuck(&vitals), Vec::<String>::new());
        vitals.database = Duration::from_secs(61);
        assert_eq!(stuck(&vitals).len(), 1);
    }

    #[test]
    fn a_database_that_is_away_excuses_no_loop_that_bounds_what_it_does() {
        for name in ["heartbeat", "sweep", "intake"] {
            let mut vitals = silent(name, HOUR);
            vitals.database = Duration::ZERO;
            assert_eq!(stuck(&vitals).len(), 1, "{name}");
        }
    }

    #[test]
    fn a_broker_that_is_away_makes_nobody_stuck() {
        let mut vitals = well();
        vitals.no_consumer = HOUR;
        vitals.connected = Duration::ZERO;
        assert_eq!(stuck(&vitals), Vec::<String>::new());
        // Back, with a minute to consume again.
        vitals.connected = Duration::from_secs(59);
        assert_eq!(stuck(&vitals), Vec::<String>::new());
        vitals.connected = Duration::from_secs(61);
        let reasons = stuck(&vitals);
        assert_eq!(
            reasons,
            ["no consumer for 61 s, on a connection that stands"]
        );
    }

    #[test]
    fn a_connection_that_nobody_tries_to_bring_back_is_told() {
        let mut vitals = well();
        vitals.untried = Duration::from_secs(121);
        let reasons = stuck(&vitals);
        assert_eq!(reasons, ["no try to connect to the broker again for 121 s"]);
    }
}

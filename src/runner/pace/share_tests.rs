use super::*;

const RATES: Rates = Rates {
    tokens: Some(60_000),
    requests: Some(600),
};

fn granted(tokens_in: f64, requests_in: f64) -> RateGranted {
    RateGranted {
        granted: true,
        tokens_in,
        requests_in,
        ahead: 0.0,
    }
}

#[test]
fn a_toll_is_the_time_in_which_the_planned_part_of_the_limit_allows_it() {
    let toll = RATES.toll(940);
    assert!((toll.tokens - 1.0).abs() < 1e-9, "{toll:?}");
    assert!((toll.requests - 0.1 / PLANNED).abs() < 1e-9, "{toll:?}");
    let free = Rates::default().toll(940);
    assert_eq!(free, Toll::default());
    assert!((RATES.owed(1880, toll) - 1.0).abs() < 1e-9);
}

#[test]
fn calls_leave_one_after_the_other_when_both_limits_have_room() {
    let tolls = [
        Toll {
            tokens: 2.0,
            requests: 0.1,
        },
        Toll {
            tokens: 0.5,
            requests: 3.0,
        },
    ];
    let at = |secs| Turn::In(Duration::from_secs_f64(secs));
    // Two seconds of tokens are there: the first leaves at once.
    assert_eq!(turns(&tolls, granted(-2.0, -9.0)), [at(0.0), at(0.5)]);
    assert_eq!(turns(&tolls, granted(1.0, 0.0)), [at(3.0), at(3.5)]);
    assert_eq!(turns(&tolls, granted(-9.0, 1.0)), [at(1.1), at(4.1)]);
}

#[test]
fn what_was_not_granted_asks_again_later() {
    let full = RateGranted {
        granted: false,
        ..granted(40.0, 0.0)
    };
    let toll = RATES.toll(940);
    assert_eq!(
        turns(&[toll], full),
        [Turn::Later(Duration::from_secs_f64(
            41.0 - HORIZON.as_secs_f64() / 2.0
        ))]
    );
}

#[test]
fn what_was_taken_ahead_is_used_without_asking_and_goes_back_when_it_is_old() {
    let (now, mut share) = (Instant::now(), Share::default());
    let toll = Toll {
        tokens: 0.3,
        requests: 0.01,
    };
    assert!(!share.take(toll, now), "there is nothing");
    let ahead = RateGranted {
        ahead: 0.5,
        ..granted(-2.0, -2.0)
    };
    share.keep(ahead, now);
    assert!(share.take(toll, now));
    assert!(!share.take(toll, now), "only 0.2 s of tokens are left");
    assert!(!share.is_unsettled(now));
    let late = now + KEEPS;
    assert!(share.is_unsettled(late), "the rest is not needed");
    let wanted = share.ask(&[], late);
    assert!((wanted.owed + 0.2).abs() < 1e-9, "{wanted:?}");
    assert!(!share.is_unsettled(late));
}

#[test]
fn what_calls_took_beyond_their_part_is_owed_once() {
    let (now, mut share) = (Instant::now(), Share::default());
    share.owe(0.75);
    share.owe(-0.25);
    assert!((share.ask(&[], now).owed - 0.5).abs() < 1e-9);
    assert!(share.ask(&[], now).owed.abs() < 1e-9);
}

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
        tokens_idle: -tokens_in,
        requests_idle: -requests_in,
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
    let at = |secs: [f64; 2]| Turns::In(secs.map(Duration::from_secs_f64).to_vec());
    // Two seconds of tokens are there: the first leaves at once.
    assert_eq!(turns(&tolls, granted(-2.0, -9.0)), at([0.0, 0.5]));
    assert_eq!(turns(&tolls, granted(1.0, 0.0)), at([3.0, 3.5]));
    assert_eq!(turns(&tolls, granted(-9.0, 1.0)), at([1.1, 4.1]));
}

#[test]
fn a_call_larger_than_the_burst_leaves_at_once_after_a_pause_and_the_next_pays_for_it() {
    let rested = RateGranted {
        tokens_idle: 50.0,
        requests_idle: 50.0,
        ..granted(-2.4, -2.4)
    };
    let toll = |tokens| Toll {
        tokens,
        requests: 0.1,
    };
    let at = |secs: [f64; 2]| Turns::In(secs.map(Duration::from_secs_f64).to_vec());
    assert_eq!(turns(&[toll(40.0), toll(0.4)], rested), at([0.0, 38.0]));
    assert_eq!(turns(&[toll(52.0), toll(0.4)], rested), at([2.0, 50.0]));
}

#[test]
fn what_was_not_granted_is_asked_for_again_when_its_turn_is_near() {
    let full = RateGranted {
        granted: false,
        ..granted(4.0, 0.0)
    };
    let later = Turns::Later(Duration::from_secs(3));
    assert_eq!(turns(&[RATES.toll(940)], full), later);
}

#[test]
fn no_worker_takes_more_than_its_part_at_once_and_a_large_call_leaves_all_the_same() {
    let toll = |tokens| Toll {
        tokens,
        requests: 0.0,
    };
    assert_eq!(together([toll(0.4), toll(0.4), toll(0.4)]), 2);
    assert_eq!(together([toll(5.0), toll(0.1)]), 1);
    assert_eq!(together([toll(0.001); 100]), 100);
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

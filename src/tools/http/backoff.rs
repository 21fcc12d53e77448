use std::time::Duration;

use rmcp::transport::common::client_side_sse::SseRetryPolicy;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// When a stream that broke is opened again: later and later, and not by all workers at once.
#[derive(Debug)]
pub(super) struct Backoff;

impl SseRetryPolicy for Backoff {
    fn retry(&self, tries: usize) -> Option<Duration> {
        Some(delay(tries, fastrand::f64()))
    }
}

/// `chance` from 0 to 1 spreads the delay over its upper half.
fn delay(tries: usize, chance: f64) -> Duration {
    let doublings = u32::try_from(tries).unwrap_or(u32::MAX);
    let whole = FIRST
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(LONGEST);
    whole.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_to_half_a_minute_and_is_spread() {
        let longest: Vec<_> = (0..8).map(|tries| delay(tries, 1.0).as_millis()).collect();
        assert_eq!(
            longest,
            [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
        );
        assert_eq!(delay(usize::MAX, 0.0), LONGEST / 2);
    }
}

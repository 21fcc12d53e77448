//! What a response's headers say about trying again. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The longest wait that a server is believed.
pub(super) const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// What a response's headers say about trying again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    /// The least time to wait, at most [`LONGEST_WAIT`].
    pub(super) retry_after: Option<Duration>,
    /// OpenAI's own word on whether the same request is worth another try.
    pub(super) should_retry: Option<bool>,
    /// The provider's id of the request, for its support.
    pub(super) request_id: Option<String>,
}

impl Hints {
    /// Reads `retry-after-ms`, `retry-after` (seconds, also with a fraction, or an HTTP date),
    /// `x-should-retry` and `x-request-id`.
    pub(super) fn read(headers: &HeaderMap, now: DateTime<Utc>) -> Self {
        let find = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let after_ms = find("retry-after-ms").and_then(|text| seconds(text, 1000.0));
        let after = find(RETRY_AFTER.as_str());
        let after = after.and_then(|text| seconds(text, 1.0).or_else(|| until(text, now)));
        Self {
            retry_after: after_ms.or(after),
            should_retry: match find("x-should-retry") {
                Some("true") => Some(true),
                Some("false") => Some(false),
                Some(_) | None => None,
            },
            request_id: find("x-request-id").map(|id| id.chars().take(100).collect()),
        }
    }
}

fn seconds(text: &str, per_second: f64) -> Option<Duration> {
    let number: f64 = text.trim().parse().ok()?;
    (number >= 0.0).then(|| {
        let most = LONGEST_WAIT.as_secs_f64();
        Duration::from_secs_f64((number / per_second).min(most))
    })
}

/// RFC 9110, section 5.6.7.
fn until(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let then = DateTime::<Utc>::from(httpdate::parse_http_date(text.trim()).ok()?);
    let left = then - now;
    Some(left.to_std().unwrap_or_default().min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_after(name: &'static str, value: &str) -> Option<Duration> {
        let now = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap();
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]);
        Hints::read(&headers, now.with_timezone(&Utc)).retry_after
    }

    #[test]
    fn a_wait_is_read_in_every_form_that_servers_send() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (name, value, expected) in [
            ("retry-after", "2", ms(2000)),
            ("retry-after", " 0.5 ", ms(500)),
            ("retry-after", "0", ms(0)),
            ("retry-after", "Thu, 01 Jan 2026 00:00:07 GMT", ms(7000)),
            // The two older forms, which RFC 9110 has everybody take.
            ("retry-after", "Thursday, 01-Jan-26 00:00:07 GMT", ms(7000)),
            ("retry-after", "Thu Jan  1 00:00:07 2026", ms(7000)),
            ("retry-after", "Wed, 31 Dec 2025 00:00:00 GMT", ms(0)),
            ("retry-after", "1e30", Some(LONGEST_WAIT)),
            ("retry-after", "inf", Some(LONGEST_WAIT)),
            ("retry-after", "NaN", None),
            ("retry-after", "-1", None),
            ("retry-after", "soon", None),
            ("retry-after-ms", "1500", ms(1500)),
            ("retry-after-ms", "0.25", Some(Duration::from_micros(250))),
        ] {
            assert_eq!(retry_after(name, value), expected, "{name}: {value}");
        }
    }
}

//! Ages as people write them: `90s`, `15m`, `12h`, `30d`, `2w`. Pure.

use std::time::Duration;

/// A century: what is older is no age of a row.
const MAX_SECONDS: u64 = 100 * 365 * 86_400;

/// The age that `text` names.
///
/// # Errors
/// Says what was expected.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number and one of s, m, h, d, w, such as 30d".to_owned();
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = match text.get(digits.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        Some("d") => 86_400,
        Some("w") => 7 * 86_400,
        Some(_) | None => return Err(expected()),
    };
    // A sign is no digit, but the standard library's parser takes it.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let number: u64 = digits.parse().map_err(|_not_a_number| expected())?;
    let seconds = number.checked_mul(unit);
    match seconds.filter(|seconds| *seconds <= MAX_SECONDS) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("expected at most 100 years".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_number_and_a_unit() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("15m", 900),
            ("12h", 43_200),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "d",
            "30",
            "30 d",
            "-1d",
            "+1d",
            "1.5h",
            "30D",
            "30dd",
            "1y",
            "é",
            "99999999999d",
            "18446744073709551616s",
            "36501d",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

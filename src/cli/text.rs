//! Texts of users, models and tools as a screen may show them. Pure.

use std::borrow::Cow;
use std::fmt::Write as _;

use chrono::TimeDelta;

use crate::escape::disarm_text;

/// Whether a character acts on a terminal instead of being shown: control characters, and those
/// that turn the direction of the text around them.
fn acts(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// `text` in which nothing acts on a terminal but new lines and tabs.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |character| {
        acts(character) && !matches!(character, '\n' | '\t')
    })
}

/// A stored text on one line in which nothing acts on a terminal.
pub(super) fn one_line(stored: &str) -> String {
    escaped(&disarm_text(stored), acts).into_owned()
}

/// A stored text, as [`visible`].
pub(super) fn paragraph(stored: &str) -> String {
    visible(&disarm_text(stored)).into_owned()
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_escaped(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// JSON in which nothing acts on a terminal but white space between values.
pub(super) fn visible_json(json: &str) -> Cow<'_, str> {
    // JSON escapes all below U+0020 itself, and nothing else of these lies beyond U+FFFF.
    let is_escaped = |character: char| character >= '\u{20}' && acts(character);
    if !json.contains(is_escaped) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_escaped(character) {
            write!(out, "\\u{:04x}", u32::from(character)).unwrap_or_default();
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// A span of time as people say it: `12 ms`, `3.20 s`, `4 min 7 s`.
pub(super) fn duration(span: TimeDelta) -> String {
    let millis = span.num_milliseconds().max(0);
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{:02} s", millis / 1_000, millis % 1_000 / 10),
        60_000.. => {
            let seconds = millis / 1_000;
            format!("{} min {} s", seconds / 60, seconds % 60)
        }
        i64::MIN..0 => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_acts_on_the_terminal() {
        let hostile = "\u{1b}[2Jx\r\u{9b}31m\u{202E}y\n\tz\u{7}";
        assert_eq!(
            visible(hostile),
            "\\u{1b}[2Jx\\r\\u{9b}31m\\u{202e}y\n\tz\\u{7}"
        );
        assert_eq!(one_line("a\nb␛0000"), "a\\nb\\u{0}");
        assert_eq!(visible("é 😀"), "é 😀");
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let json = serde_json::json!({"text": "\u{1b}\u{9b}\u{7f}\u{202E}é"}).to_string();
        let shown = visible_json(&json);
        assert!(!shown.contains(acts));
        let back: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(back.to_string(), json);
    }

    #[test]
    fn spans_are_said_as_people_say_them() {
        for (millis, text) in [
            (-5, "0 ms"),
            (12, "12 ms"),
            (3_204, "3.20 s"),
            (247_000, "4 min 7 s"),
        ] {
            assert_eq!(duration(TimeDelta::milliseconds(millis)), text);
        }
    }
}

//! One stated, reversible escape for text that Postgres refuses.
//!
//! Postgres stores no NUL in any text, and its JSON functions fail on a lone UTF-16 surrogate.
//! Both are legal in JSON text (RFC 8259, section 8.2), and producers, models and tools send them.
//! Inside this program and in every row such a character is written as `␛` (U+241B) and four
//! hexadecimal digits: NUL is `␛0000`, the surrogate D800 is `␛d800`, and `␛` itself is `␛241b`.
//! [`armour`] is applied to every text that comes in, [`disarm`] to every text that goes out, so
//! that what comes back is what was sent.

use std::borrow::Cow;

/// The escape character.
const ESCAPE: char = '\u{241B}';

/// JSON text as it came in, with the refused characters escaped.
///
/// `json` need not be valid: what is no escape sequence is left as it is.
#[must_use]
pub fn armour(json: &str) -> Cow<'_, str> {
    if !json.contains("\\u") && !json.contains(ESCAPE) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(['\\', ESCAPE]) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        rest = armour_one(from, &mut out);
    }
    if out.len() + rest.len() == json.len() && out == json.get(..out.len()).unwrap_or_default() {
        return Cow::Borrowed(json);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Writes the escape sequence or character at the head of `from`; returns what follows it.
fn armour_one<'a>(from: &'a str, out: &mut String) -> &'a str {
    if let Some(rest) = from.strip_prefix(ESCAPE) {
        push_escaped(0x241B, out);
        return rest;
    }
    let Some(unit) = utf16_escape(from) else {
        // A backslash and the character it escapes: `\\u0000` is no escape of NUL.
        let length = from.chars().take(2).map(char::len_utf8).sum();
        let (pair, rest) = from.split_at(length);
        out.push_str(pair);
        return rest;
    };
    let (this, rest) = from.split_at(6);
    match unit {
        0xD800..=0xDBFF => match utf16_escape(rest) {
            Some(0xDC00..=0xDFFF) => {
                let (low, rest) = rest.split_at(6);
                out.push_str(this);
                out.push_str(low);
                return rest;
            }
            Some(_) | None => push_escaped(unit, out),
        },
        0 | 0x241B | 0xDC00..=0xDFFF => push_escaped(unit, out),
        _ => out.push_str(this),
    }
    rest
}

/// The code unit of the `\uXXXX` at the head of `text`.
fn utf16_escape(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then(|| u16::from_str_radix(digits, 16).ok())?
}

fn push_escaped(unit: u16, out: &mut String) {
    out.push(ESCAPE);
    for shift in [12, 8, 4, 0] {
        out.extend(char::from_digit(u32::from(unit >> shift & 0xF), 16));
    }
}

/// The deepest JSON that is stored as JSON: Postgres reads it with a stack that has an end.
const MAX_DEPTH: usize = 128;

/// Whether `json` is nested so deep that Postgres may refuse it.
#[must_use]
pub fn is_too_deep(json: &str) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (true | false, _) => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// JSON text as it goes out: the escapes of [`armour`] turned back into JSON's own.
#[must_use]
pub fn disarm(json: &str) -> Cow<'_, str> {
    if !json.contains(ESCAPE) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut pieces = json.split(ESCAPE);
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let is_ours = piece.get(..4).is_some_and(is_ours);
        // Their digits are the same, so that only what stands before them is exchanged.
        out.push_str(if is_ours { "\\u" } else { "\u{241B}" });
        out.push_str(piece);
    }
    Cow::Owned(out)
}

/// [`disarm`] for readers that refuse half a surrogate pair: it becomes U+FFFD.
#[must_use]
pub fn disarm_well_formed(json: &str) -> Cow<'_, str> {
    if !json.contains(ESCAPE) {
        return Cow::Borrowed(json);
    }
    let mut mended = String::with_capacity(json.len());
    let mut pieces = json.split("\u{241B}d");
    mended.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let is_half = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if piece.get(..3).is_some_and(is_half) {
            mended.push('\u{FFFD}');
            mended.push_str(piece.get(3..).unwrap_or_default());
        } else {
            mended.push_str("\u{241B}d");
            mended.push_str(piece);
        }
    }
    Cow::Owned(disarm(&mended).into_owned())
}

fn is_ours(digits: &str) -> bool {
    digits == "0000"
        || digits == "241b"
        || (digits.starts_with('d') && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Plain text (no JSON) with the refused characters escaped. A Rust text has no lone surrogates.
#[must_use]
pub fn armour_text(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.replace(ESCAPE, "\u{241B}241b")
            .replace('\0', "\u{241B}0000"),
    )
}

/// The plain text that [`armour_text`] escaped. The escape of a lone surrogate stays, since a Rust
/// text cannot hold one.
#[must_use]
pub fn disarm_text(text: &str) -> Cow<'_, str> {
    if !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.replace("\u{241B}0000", "\0")
            .replace("\u{241B}241b", "\u{241B}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_postgres_refuses_is_escaped_and_all_else_is_left() {
        for (json, armoured) in [
            (r#""plain é 😀""#, r#""plain é 😀""#),
            (r#""\u00e9 \ud83d\ude00""#, r#""\u00e9 \ud83d\ude00""#),
            (r#""a\u0000b""#, r#""a␛0000b""#),
            (r#""\ud800""#, r#""␛d800""#),
            (
                r#""\uDC00x\ud800\ud800\udc00""#,
                r#""␛dc00x␛d800\ud800\udc00""#,
            ),
            (r#""\\u0000""#, r#""\\u0000""#),
            (r#""␛ \u241b""#, r#""␛241b ␛241b""#),
            (r#""\u00"#, r#""\u00"#),
        ] {
            assert_eq!(armour(json), armoured, "{json}");
        }
    }

    #[test]
    fn only_real_nesting_is_deep() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_too_deep(&nested(128)));
        assert!(is_too_deep(&nested(129)));
        assert!(!is_too_deep(&format!(
            r#"["{}\"{}"]"#,
            "[".repeat(500),
            "{".repeat(500)
        )));
        assert!(!is_too_deep(&"[],".repeat(500)));
    }

    #[test]
    fn half_a_pair_is_mended_for_those_who_refuse_it() {
        assert_eq!(
            disarm_well_formed("\"a␛0000␛d83db␛241b\""),
            "\"a\\u0000\u{FFFD}b\\u241b\""
        );
        assert_eq!(disarm_well_formed("plain"), "plain");
    }

    proptest! {
        #[test]
        fn the_escape_is_reversible(units in proptest::collection::vec(
            prop_oneof![Just(0_u16), Just(0x241B), 0xD800_u16..0xE000, 0x20_u16..0x22, 0x61_u16..0x7a], 0..40))
        {
            use std::fmt::Write as _;
            let mut json = String::from("\"");
            for unit in &units {
                write!(json, "\\u{unit:04x}").unwrap();
            }
            json.push('"');
            let armoured = armour(&json);
            let text: String = serde_json::from_str(&armoured).unwrap();
            prop_assert!(!text.contains('\0'));
            let back = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(json_units(&disarm(&back)), units);
        }

        #[test]
        fn plain_text_comes_back(text in "[\0␛0241bd8 ]{0,30}") {
            let armoured = armour_text(&text).into_owned();
            prop_assert!(!armoured.contains('\0'));
            prop_assert_eq!(disarm_text(&armoured), text);
        }
    }

    /// The UTF-16 units that a JSON string stands for.
    fn json_units(json: &str) -> Vec<u16> {
        let mut units = Vec::new();
        let mut rest = json.trim_matches('"');
        // The generator's quotes are the last unit at most once; trim only the outer ones.
        if json.len() >= 2 {
            rest = &json[1..json.len() - 1];
        }
        while let Some(first) = rest.chars().next() {
            if let Some(unit) = utf16_escape(rest) {
                units.push(unit);
                rest = &rest[6..];
            } else if first == '\\' {
                units.push(rest.as_bytes()[1].into());
                rest = &rest[2..];
            } else {
                units.extend(first.encode_utf16(&mut [0; 2]).iter());
                rest = &rest[first.len_utf8()..];
            }
        }
        units
    }
}

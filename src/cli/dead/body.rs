//! The body of a dead letter as people read it. Pure.

use serde::de::IgnoredAny;

use super::super::text::visible;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Empty,
    Json,
    Text,
    Bytes,
}

impl Kind {
    pub(super) fn of(body: &[u8]) -> Self {
        if body.is_empty() {
            Self::Empty
        } else if std::str::from_utf8(body).is_err() {
            Self::Bytes
        } else if serde_json::from_slice::<IgnoredAny>(body).is_ok() {
            Self::Json
        } else {
            Self::Text
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Json => "JSON",
            Self::Text => "text that is no JSON",
            Self::Bytes => "not UTF-8; escaped as \\xNN",
        }
    }
}

/// The body as text in which nothing acts on a terminal; JSON is laid out.
pub(super) fn readable(body: &[u8]) -> String {
    match (Kind::of(body), std::str::from_utf8(body)) {
        (Kind::Json, Ok(json)) => visible(&laid_out(json)).into_owned(),
        (_, Ok(text)) => visible(text).into_owned(),
        (_, Err(_)) => body.escape_ascii().to_string(),
    }
}

/// JSON with a line a value, and otherwise as it was written: no digit, order or repeated field is
/// lost, as it would be on the way through a reader.
pub(super) fn laid_out(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut characters = json.chars().peekable();
    while let Some(character) = characters.next() {
        if in_text {
            out.push(character);
            in_text = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '{' | '[' => {
                out.push(character);
                while characters.next_if(|next| is_space(*next)).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(depth, &mut out);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(depth, &mut out);
                out.push(character);
            }
            ',' => {
                out.push(character);
                new_line(depth, &mut out);
            }
            ':' => out.push_str(": "),
            '"' => {
                in_text = true;
                out.push(character);
            }
            space if is_space(space) => {}
            other => out.push(other),
        }
    }
    out
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

fn new_line(depth: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_is_laid_out_and_otherwise_left_as_it_is() {
        let json = r#" {"b":22.000000000000000000001,"a":[ ],"a":[1,{"x":"\"{,:\\"}],"e":{}} "#;
        let expected = r#"{
  "b": 22.000000000000000000001,
  "a": [],
  "a": [
    1,
    {
      "x": "\"{,:\\"
    }
  ],
  "e": {}
}"#;
        assert_eq!(laid_out(json), expected);
        assert_eq!(laid_out("7"), "7");
    }

    #[test]
    fn what_is_no_json_is_shown_as_it_is_and_acts_on_no_terminal() {
        for (body, kind, text) in [
            (&b""[..], Kind::Empty, ""),
            (b"{\"a\":1}", Kind::Json, "{\n  \"a\": 1\n}"),
            (b"{\"a\":1", Kind::Text, "{\"a\":1"),
            (b"a\x1b[2J\nb", Kind::Text, "a\\u{1b}[2J\nb"),
            (b"{\"\xff\n\"}", Kind::Bytes, "{\\\"\\xff\\n\\\"}"),
        ] {
            assert_eq!((Kind::of(body), readable(body).as_str()), (kind, text));
        }
    }

    proptest! {
        #[test]
        fn laid_out_json_means_the_same(text in "[\"\\\\{}:, a]{0,12}", number in any::<f64>()) {
            let number = serde_json::Number::from_f64(number);
            let value = serde_json::json!({"k": [text, {"n": number}, [], {}], "t": [[text]]});
            let back: serde_json::Value = serde_json::from_str(&laid_out(&value.to_string())).unwrap();
            prop_assert_eq!(back, value);
        }
    }
}

//! Reading JSON that is not quite what it should be, without losing a byte of what is kept.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of a JSON object in their order, each value as its own text.
///
/// `serde_json::Value` would sort the keys and round the numbers.
#[derive(Default)]
pub(super) struct Fields<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

/// A field's name, copied only where it is escaped.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    /// The fields of `json`; none if it is no object.
    pub(super) fn read(json: &'a RawValue) -> Self {
        // Looked at first: an error costs more than the whole reading.
        if json.get().starts_with('{') {
            serde_json::from_str(json.get()).unwrap_or_default()
        } else {
            Self::default()
        }
    }

    /// The value of the field `name`; of several the last, as most readers of JSON take it.
    pub(super) fn find(&self, name: &str) -> Option<&'a RawValue> {
        (self.0.iter().rev()).find_map(|(key, json)| (key == name).then_some(*json))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Key(key), json)) = map.next_entry()? {
                    fields.push((key, json));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// For fields where `null` and nothing at all must be told apart.
pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The text of a JSON string; nothing for any other value.
pub(super) fn text(json: &RawValue) -> Option<String> {
    let is_string = json.get().starts_with('"');
    is_string
        .then(|| serde_json::from_str(json.get()).ok())
        .flatten()
}

/// The text of a JSON string that says something.
pub(super) fn words(json: Option<&RawValue>) -> Option<String> {
    json.and_then(text).filter(|text| !text.is_empty())
}

/// The elements of a JSON array; none if it is no array.
pub(super) fn elements(json: &RawValue) -> Vec<&RawValue> {
    if json.get().starts_with('[') {
        serde_json::from_str(json.get()).unwrap_or_default()
    } else {
        Vec::new()
    }
}

/// More tokens than any call uses; sums of as many calls as there may be still fit.
const MOST: u64 = 100_000_000;

/// A count, as a number or in quotes: a negative one is 0, a fraction is dropped, anything but a number is 0.
pub(super) fn count(json: Option<&RawValue>) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates at both ends, which is what is wanted"
    )]
    let from_float = |number: f64| number as u64;
    json.map_or(0, |json| {
        let text = json.get().trim_matches('"');
        (text.parse().ok())
            .or_else(|| text.parse().ok().map(from_float))
            .unwrap_or(0)
            .min(MOST)
    })
}

/// Whether `text` is JSON, and an object.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn counts_are_never_negative_and_never_fail() {
        for (json, expected) in [
            ("7", 7),
            ("-7", 0),
            ("7.9", 7),
            ("1e3", 1000),
            ("1e300", MOST),
            ("null", 0),
            ("\"7\"", 7),
            ("\"seven\"", 0),
            ("{}", 0),
        ] {
            assert_eq!(count(Some(&raw(json))), expected, "{json}");
        }
        assert_eq!(count(None), 0);
    }

    #[test]
    fn only_objects_are_objects() {
        for good in ["{}", " {\"a\":1} ", "{\"a\":{\"b\":[]}}"] {
            assert!(is_object(good), "{good}");
        }
        for bad in ["", "[]", "null", "{", "{}{}", "{'a':1}", "\"{}\""] {
            assert!(!is_object(bad), "{bad}");
        }
    }
}

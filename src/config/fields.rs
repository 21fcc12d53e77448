use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Problems;

/// The members of a JSON object in their order, with repeats, which a map would swallow.
pub(super) struct Members(pub(super) Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// An object of a file that a setting names, read field by field: what is wrong is noted with its
/// JSON pointer, and [`Fields::finish`] notes what nobody asked for.
pub(super) struct Fields<'p> {
    setting: &'static str,
    pointer: String,
    members: Map<String, Value>,
    problems: &'p mut Problems,
}

impl<'p> Fields<'p> {
    pub(super) fn new(
        setting: &'static str,
        pointer: String,
        value: Value,
        problems: &'p mut Problems,
    ) -> Self {
        let members = if let Value::Object(members) = value {
            members
        } else {
            problems.note(setting, format!("{pointer}: expected an object"));
            Map::new()
        };
        Self {
            setting,
            pointer,
            members,
            problems,
        }
    }

    /// Notes what is wrong at `at`, a pointer from this object on, without its first slash.
    pub(super) fn note(&mut self, at: &str, what: impl fmt::Display) {
        let pointer = &self.pointer;
        self.problems
            .note(self.setting, format!("{pointer}/{at}: {what}"));
    }

    pub(super) fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    pub(super) fn pointer(&self, field: &str) -> String {
        format!("{}/{field}", self.pointer)
    }

    /// Whether the field is there and not taken yet.
    pub(super) fn has(&self, field: &str) -> bool {
        self.members
            .get(field)
            .is_some_and(|value| !value.is_null())
    }

    /// The field as it stands; a null is as good as none.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.members.remove(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, field: &str) -> Option<String> {
        let value = self.take(field)?;
        let text = value.as_str().map(str::to_owned);
        self.expect(field, text, "a text")
    }

    pub(super) fn flag(&mut self, field: &str) -> Option<bool> {
        let value = self.take(field)?;
        self.expect(field, value.as_bool(), "true or false")
    }

    pub(super) fn number(&mut self, field: &str, least: u64, most: u64) -> Option<u64> {
        let value = self.take(field)?;
        let number = value
            .as_u64()
            .filter(|number| (least..=most).contains(number));
        self.expect(
            field,
            number,
            &format!("a whole number from {least} to {most}"),
        )
    }

    /// A number that is not negative, whole or not.
    pub(super) fn amount(&mut self, field: &str) -> Option<f64> {
        let value = self.take(field)?;
        let amount = value.as_f64().filter(|amount| *amount >= 0.0);
        self.expect(field, amount, "a number, 0 or more")
    }

    pub(super) fn texts(&mut self, field: &str) -> Option<Vec<String>> {
        let value = self.take(field)?;
        let texts = value.as_array().and_then(|items| {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        self.expect(field, texts, "a list of texts")
    }

    pub(super) fn choice<T: Copy>(&mut self, field: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(field)?;
        let found = choices.iter().find(|(name, _)| *name == text);
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.expect(
            field,
            found.map(|(_, value)| *value),
            &format!("one of {}", names.join(", ")),
        )
    }

    /// Notes every field that was not taken.
    pub(super) fn finish(mut self) {
        for field in std::mem::take(&mut self.members).keys() {
            self.note(&escape(field), "unknown field");
        }
    }

    fn expect<T>(&mut self, field: &str, value: Option<T>, expected: &str) -> Option<T> {
        if value.is_none() {
            self.note(field, format!("expected {expected}"));
        }
        value
    }
}

/// A member's name as a step of a JSON pointer (RFC 6901).
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

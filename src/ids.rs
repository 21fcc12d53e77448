//! Identifiers as types, so that one id cannot stand where another is meant.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        #[schemars(inline)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id!(
    /// A job: the idempotency key of one request.
    JobId
);
uuid_id!(
    /// A conversation: the jobs that share one history and one user.
    ConversationId
);
uuid_id!(
    /// One worker process, from its start to its end.
    WorkerId
);

/// Who a job speaks for: 1 to 255 characters of `A-Za-z0-9` and `._:@+/=-|`.
///
/// The set leaves no room for a sentence, because the id stands in the system prompt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct UserId(String);

impl UserId {
    /// The longest user id, in characters.
    pub const MAX_CHARS: usize = 255;

    /// The id, if `text` has only allowed characters and an allowed length.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX_CHARS).contains(&text.len());
        (fits && text.bytes().all(is_allowed)).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._:@+/=-|".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_has_no_room_for_a_sentence() {
        assert!(UserId::new("auth0|user-42@example.org").is_some());
        assert!(UserId::new(&"u".repeat(255)).is_some());
        for bad in ["", "two words", "line\nbreak", "usér", &"u".repeat(256)] {
            assert!(UserId::new(bad).is_none(), "{bad:?}");
        }
    }
}

//! Money: what calls of models cost.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in US dollars, kept in millionths of a millionth: prices are a few dollars a million
/// tokens, and sums of them stay exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u64);

/// The most that is told apart, in dollars.
const MOST_USD: f64 = 10_000_000.0;
const PICO: f64 = 1e12;

impl Cost {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many dollars: from 0 to ten million.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the amount is within 0 and 10^19"
    )]
    pub fn from_usd(usd: f64) -> Option<Self> {
        (0.0..=MOST_USD)
            .contains(&usd)
            .then(|| Self((usd * PICO).round() as u64))
    }

    /// So many millionths of a millionth of a dollar.
    #[must_use]
    pub fn from_picodollars(pico: u64) -> Self {
        Self(pico)
    }

    /// In millionths of a millionth of a dollar.
    #[must_use]
    pub fn picodollars(self) -> u64 {
        self.0
    }

    /// In dollars.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "for people and JSON, where 15 digits are enough"
    )]
    pub fn usd(self) -> f64 {
        self.0 as f64 / PICO
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.usd())
    }
}

impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.usd())
    }
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let usd = f64::deserialize(deserializer)?;
        Self::from_usd(usd).ok_or_else(|| {
            D::Error::custom(format!(
                "expected US dollars from 0 to {MOST_USD}, got {usd}"
            ))
        })
    }
}

impl schemars::JsonSchema for Cost {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cost".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "minimum": 0, "maximum": MOST_USD})
    }
}

/// What a model's tokens cost, in US dollars a million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Tokens of the prompt.
    pub input: f64,
    /// Of these, the ones from the provider's cache.
    pub cached_input: f64,
    /// Tokens of the answer, reasoning included.
    pub output: f64,
}

impl Price {
    /// What a call costs that read `input` tokens, `cached` of them from the cache, and wrote `output`.
    #[must_use]
    pub fn of(&self, input: u64, cached: u64, output: u64) -> Cost {
        let cached = cached.min(input);
        let parts = [
            (input - cached, self.input),
            (cached, self.cached_input),
            (output, self.output),
        ];
        parts
            .into_iter()
            .map(|(tokens, price)| millionth(tokens, price))
            .fold(Cost::ZERO, Cost::plus)
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float casts saturate, and so would the sum"
)]
fn millionth(tokens: u64, price: f64) -> Cost {
    Cost((tokens as f64 * price * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price {
        input: 0.15,
        cached_input: 0.075,
        output: 0.6,
    };

    #[test]
    fn each_kind_of_token_has_its_price_and_cached_ones_are_part_of_the_prompt() {
        let cost = PRICE.of(1_000_000, 400_000, 100_000);
        assert_eq!(cost, Cost::from_usd(0.09 + 0.03 + 0.06).unwrap());
        assert_eq!(PRICE.of(310, 0, 24).picodollars(), 46_500_000 + 14_400_000);
        assert_eq!(PRICE.of(0, 10, 0), Cost::ZERO, "a server that counts oddly");
        assert_eq!(PRICE.of(u64::MAX, 0, u64::MAX).picodollars(), u64::MAX);
    }

    #[test]
    fn money_is_a_plain_number_in_json() {
        let json = |cost: Cost| serde_json::to_string(&cost).unwrap();
        assert_eq!(json(Cost::from_usd(0.25).unwrap()), "0.25");
        assert_eq!(
            serde_json::from_str::<Cost>("2").unwrap(),
            Cost::from_usd(2.0).unwrap()
        );
        for text in ["-1", "1e9", "\"1\"", "null"] {
            assert!(serde_json::from_str::<Cost>(text).is_err(), "{text}");
        }
    }
}

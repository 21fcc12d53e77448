use std::sync::Arc;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::optional_word;

/// The options of a job that go to the model as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelOptions {
    /// 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f64>,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: Option<f64>,
    /// The most tokens of one answer, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_output_tokens: Option<u32>,
    /// For answers that can be repeated, where the provider can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Up to four texts at which the model stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    pub stop: Option<Vec<String>>,
    /// How much a reasoning model thinks.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_word"
    )]
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Whether the model may ask for several tools at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// `OpenAI`'s `response_format`, passed on unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub response_format: Option<ResponseFormat>,
}

/// How much a reasoning model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReasoningEffort {
    /// Not at all.
    None,
    /// As little as it can.
    Minimal,
    /// A little.
    Low,
    /// As it usually does.
    Medium,
    /// Much.
    High,
    /// Very much.
    Xhigh,
}

/// A JSON object that also keeps how it was written: models answer in the order of a schema's properties.
/// Two that hold the same are the same, and have the same JSON here, in whatever order.
#[derive(Clone, Debug)]
pub struct ResponseFormat {
    fields: Map<String, Value>,
    written: Arc<RawValue>,
}

impl ResponseFormat {
    /// What it holds.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The JSON as it was written.
    #[must_use]
    pub fn written(&self) -> &RawValue {
        &self.written
    }
}

impl PartialEq for ResponseFormat {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}

impl Serialize for ResponseFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ResponseFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Box::<RawValue>::deserialize(deserializer)?;
        let Ok(Value::Object(fields)) = serde_json::from_str(written.get()) else {
            let found = Unexpected::Other("another value");
            return Err(D::Error::invalid_type(found, &"a map"));
        };
        let written = Arc::from(written);
        Ok(Self { fields, written })
    }
}

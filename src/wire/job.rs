use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::chat::{Message, ModelOptions, ToolChoice};
use crate::cost::Cost;
use crate::ids::{ConversationId, JobId};

/// A chat job, version 1. Only `user_id` and `messages` are required; unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "chat job", extend("additionalProperties" = false))]
pub struct Job {
    /// 1, also when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("const" = 1))]
    pub version: Option<u64>,
    /// The idempotency key. When absent: the AMQP `message_id`, else a fresh one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The conversation that is continued. When absent the job starts one whose id equals its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
    /// Who the job speaks for.
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[A-Za-z0-9._:@+/=|-]{1,255}$")
    )]
    pub user_id: String,
    /// What is said, at least one message.
    #[serde(deserialize_with = "super::object::list")]
    #[schemars(length(min = 1))]
    pub messages: Vec<Arc<Message>>,
    /// The model asked. When absent: the worker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub model: Option<String>,
    /// How often the model may be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_iterations: Option<u32>,
    /// Which tools it may use.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::object::optional"
    )]
    pub tools: Option<ToolSelection>,
    /// Options that go to the model.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::object::optional"
    )]
    pub options: Option<Arc<ModelOptions>>,
    /// What the job may spend.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::object::optional"
    )]
    pub budget: Option<Budget>,
    /// Whether what the model says is published piece by piece while it comes, as events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// The job waits until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
    /// The job fails if it is not done by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// What happens while the conversation has an unfinished job.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::chat::optional_word"
    )]
    pub on_busy: Option<OnBusy>,
    /// Anything of the sender's, at most 16 KiB, echoed in the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

impl Job {
    /// The hash by which a repeat is told from other content: that of the fields, however they were
    /// written. The id is none of them: it may stand in the body or in a property.
    #[must_use]
    pub fn content_hash(&self) -> [u8; 32] {
        let content = Self {
            job_id: None,
            ..self.clone()
        };
        let json = serde_json::to_vec(&content).unwrap_or_default();
        Sha256::digest(json).into()
    }
}

/// Which tools a job may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("additionalProperties" = false))]
pub struct ToolSelection {
    /// The servers, by their names; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<Vec<String>>,
    /// Globs over the names that the model sees; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Globs over the names that the model sees; they win over `allow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Whether tools may or must be used.
    #[serde(default, deserialize_with = "crate::chat::word")]
    pub choice: ToolChoice,
}

/// What a job may spend. It is looked at before each model and tool call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("additionalProperties" = false))]
pub struct Budget {
    /// Tokens, in and out together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub total_tokens: Option<u64>,
    /// Tool calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u64>,
    /// US dollars, where the prices of the model are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Cost>,
}

/// What happens while the conversation has an unfinished job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnBusy {
    /// The job waits for its turn.
    #[default]
    Enqueue,
    /// The job is refused.
    Reject,
    /// The unfinished jobs are cancelled.
    Interrupt,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hash_is_that_of_the_fields_however_they_are_written() {
        let hash = |body: &str| {
            crate::wire::decode(body.as_bytes(), 1 << 20)
                .unwrap()
                .0
                .content_hash()
        };
        let one = hash(
            r#"{"user_id":"u","messages":[{"role":"user","content":"x"}],"metadata":{"b":1,"a":2}}"#,
        );
        let same = hash(
            r#"{ "metadata": {"a":2, "b":1}, "messages":[{"content":"x","role":"user"}], "user_id":"u"}"#,
        );
        let other = hash(
            r#"{"user_id":"u","messages":[{"role":"user","content":"y"}],"metadata":{"b":1,"a":2}}"#,
        );
        let named = hash(
            r#"{"user_id":"u","messages":[{"role":"user","content":"x"}],"metadata":{"b":1,"a":2},"job_id":"018f3c1e-7d2a-7000-8000-000000000042"}"#,
        );
        assert_eq!((one, one), (same, named));
        let formed = |format: &str| {
            let job = r#"{"user_id":"u","messages":[{"role":"user","content":"x"}],"options":{"response_format":FORMAT}}"#;
            hash(&job.replace("FORMAT", format))
        };
        assert_eq!(
            formed(r#"{"type":"json_object","x":1}"#),
            formed(r#"{"x":1, "type":"json_object"}"#)
        );
        assert_ne!(one, other);
    }
}

//! The words of a conversation, in no provider's types: messages, tool calls and their outcomes,
//! answers and what they used.

mod options;

use std::sync::Arc;

use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::cost::{Cost, Price};

pub use options::{ModelOptions, ReasoningEffort, ResponseFormat};

/// Reads one of an enum's words from a text only: serde's derived enums would take `{"word": null}`
/// as well, and call any other value a mistake of syntax.
pub(crate) fn word<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

/// The same, or nothing from null.
pub(crate) fn optional_word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let word = Option::<String>::deserialize(deserializer)?;
    word.map(|word| T::deserialize(word.into_deserializer()))
        .transpose()
}

/// Who speaks in a request's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Rules that bind the turn they come with.
    System,
    /// The person.
    User,
    /// The model, as the sender remembers it.
    Assistant,
}

/// What is said: text, or parts of text and images. The JSON is `OpenAI`'s.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Text and images in order.
    Parts(Vec<Part>),
}

/// A part of a message's content.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// An image by address.
    ImageUrl {
        /// Where the image is.
        image_url: ImageUrl,
    },
}

/// Where an image is: an `https:` or a `data:` URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageUrl {
    /// The URL.
    pub url: String,
}

/// A message of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    #[serde(deserialize_with = "word")]
    pub role: Role,
    /// What is said.
    pub content: Content,
}

/// A call that the model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The model's id of the call, unique within its turn.
    pub call_id: String,
    /// The tool's name as the model says it.
    pub name: String,
    /// The arguments as the model wrote them: meant to be a JSON object, not checked yet.
    pub arguments: String,
}

/// How a tool call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeStatus {
    /// The tool answered.
    Succeeded,
    /// The tool said that it failed, or it could not be asked, or it took too long.
    Failed,
    /// The call was not made: unknown tool, or arguments that do not fit.
    Refused,
    /// The call was under way when its worker stopped; what it did is unknown.
    Interrupted,
}

impl OutcomeStatus {
    /// Every status there is.
    pub const ALL: [Self; 4] = [
        Self::Succeeded,
        Self::Failed,
        Self::Refused,
        Self::Interrupted,
    ];

    /// The status as it stands in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
        }
    }

    /// The status that a row names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// What a tool call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolOutcome {
    /// How it ended.
    pub status: OutcomeStatus,
    /// What is stored: the result's text, cut at the server's `max_result_bytes`. Never empty, and
    /// complete without `media`: it has a mark where each of them stood.
    pub text: String,
    /// The text's size before any cut, in bytes.
    pub bytes: u64,
    /// What models may look at, in the order of its marks in the text.
    pub media: Arc<[Media]>,
}

/// What a tool shows besides text: an image, or a PDF document. Also the JSON of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// `image/png`, `image/jpeg`, `image/gif`, `image/webp` or `application/pdf`, as the bytes say.
    pub mime_type: String,
    /// The bytes in base64 (RFC 4648, section 4), padded.
    pub data: String,
    /// The last part of its address, if it has one: `chart.pdf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Media {
    /// Whether it is an image, which most models take; what else there is, few do.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.mime_type.starts_with("image/")
    }
}

/// Tokens used by one model call or by a job.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Usage {
    /// Tokens of the prompts.
    pub input_tokens: u64,
    /// Of these, read from the provider's cache.
    pub cached_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
    /// Of these, spent on reasoning.
    pub reasoning_tokens: u64,
    /// Input and output together.
    pub total_tokens: u64,
    /// What it cost, where prices are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Cost>,
}

impl Usage {
    /// What it costs at `price`.
    #[must_use]
    pub fn at(&self, price: Price) -> Cost {
        price.of(self.input_tokens, self.cached_tokens, self.output_tokens)
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(other.reasoning_tokens);
        self.total_tokens = self.total_tokens.saturating_add(other.total_tokens);
        self.cost_usd = match (self.cost_usd, other.cost_usd) {
            (Some(one), Some(two)) => Some(one.plus(two)),
            (one, two) => one.or(two),
        };
    }
}

/// Why the model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It was done, or it asked for tools.
    Done,
    /// It was cut off by a limit on tokens.
    Length,
    /// A filter stopped it.
    ContentFilter,
}

impl Stop {
    /// What a provider's `finish_reason` means. The set is open: what is not known is no limit and
    /// no filter, so the model was done.
    #[must_use]
    pub fn of(finish_reason: Option<&str>) -> Self {
        match finish_reason.map(str::to_ascii_lowercase).as_deref() {
            Some(
                "length"
                | "max_tokens"
                | "max_output_tokens"
                | "model_length"
                | "model_context_window_exceeded",
            ) => Self::Length,
            Some("content_filter" | "safety") => Self::ContentFilter,
            Some(_) | None => Self::Done,
        }
    }
}

/// One answer of the model.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the provider sent, as it sent it: an assistant message of Chat Completions (an object), or
    /// the output of Responses (an array). It is stored and replayed so.
    pub message: Arc<RawValue>,
    /// The text of it, if there is any.
    pub content: Option<String>,
    /// The refusal, if the model refused.
    pub refusal: Option<String>,
    /// Why the model stopped.
    pub stop: Stop,
    /// The provider's own word for it, for the record.
    pub finish_reason: Option<String>,
    /// The calls it asks for, with ids that are present and distinct.
    pub tool_calls: Arc<[ToolCall]>,
    /// What the call used.
    pub usage: Usage,
    /// Whether that is an estimate: the server counted nothing.
    pub is_estimated: bool,
    /// The model that answered, as the provider names it.
    pub model: Option<String>,
    /// The same model, by its name in jobs and settings; none where that was not stored.
    pub asked: Option<Arc<str>>,
    /// The provider's id of the answer.
    pub response_id: Option<String>,
}

/// A tool as the model sees it.
#[derive(Clone, Debug)]
pub struct ToolSpec {
    /// `[a-zA-Z0-9_-]{1,64}`, unique among the tools offered.
    pub name: String,
    /// What the tool is for; may be empty.
    pub description: String,
    /// JSON Schema of the arguments, an object at the root.
    pub schema: Arc<RawValue>,
}

/// Whether the model may or must use tools.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// No tool.
    None,
    /// At least one tool, in the first model call.
    Required,
}

/// A message of a prompt, in the order in which the model reads it.
#[derive(Clone, Debug)]
pub enum PromptMessage {
    /// The configured rules.
    System(Arc<str>),
    /// A message of a request.
    Given(Arc<Message>),
    /// An earlier answer of a model: the provider's own JSON, and the calls that were read from it.
    Assistant {
        /// [`Answer::message`].
        message: Arc<RawValue>,
        /// The calls that are answered after it; empty for an answer in words.
        tool_calls: Arc<[ToolCall]>,
        /// The model that said it, by its name in jobs and settings; none if that is not known.
        asked: Option<Arc<str>>,
    },
    /// The answer to one call of the assistant message before it.
    Tool {
        /// Which call.
        call_id: String,
        /// What the model reads; never empty, and complete without `media`.
        content: Arc<str>,
        /// What the model may look at as well.
        media: Arc<[Media]>,
    },
}

/// All that one model call is made of.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The model asked.
    pub model: Arc<str>,
    /// What it reads.
    pub messages: Vec<PromptMessage>,
    /// The tools it may use; the same in every call of a job.
    pub tools: Arc<[ToolSpec]>,
    /// Whether it may or must.
    pub tool_choice: ToolChoice,
    /// The job's options.
    pub options: Arc<ModelOptions>,
}

use std::sync::Arc;

use super::super::Secret;
use crate::cost::Price;

/// Which of OpenAI's two APIs is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// Responses at OpenAI's own hosts and Azure's, Chat Completions elsewhere.
    #[default]
    Auto,
    /// Chat Completions.
    Chat,
    /// Responses, without anything kept at the provider.
    Responses,
}

/// All that is known about a model: what the file says of it, and the settings for the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelProfile {
    /// Where it is asked.
    pub provider: Arc<ProviderConfig>,
    /// Its name there; none: the name that jobs use.
    pub name: Option<String>,
    /// Which API is spoken.
    pub api: Api,
    /// The most tokens of a prompt and its answer together.
    pub context_window: Option<u32>,
    /// The most tokens of an answer; jobs may ask for fewer.
    pub max_output_tokens: Option<u32>,
    /// What its tokens cost.
    pub price: Option<Price>,
    /// The field of Chat Completions that limits an answer; none: the newer one at OpenAI's own hosts
    /// and Azure's, the older one elsewhere.
    pub max_tokens_field: Option<MaxTokensField>,
    /// Options of jobs that it does not take: they are left out.
    pub drop: Vec<ModelOption>,
    /// How much it thinks where a job does not say.
    pub reasoning_effort: Option<crate::chat::ReasoningEffort>,
    /// Whether it takes images; otherwise a note stands in their place.
    pub images: bool,
    /// The models that are asked, in this order, when it stays down.
    pub fallbacks: Vec<String>,
    /// The most calls in a minute, over all workers.
    pub requests_per_minute: Option<u32>,
    /// The most tokens in a minute, over all workers.
    pub tokens_per_minute: Option<u64>,
}

impl ModelProfile {
    /// What holds for a model of which nothing is known but where it is asked.
    #[must_use]
    pub fn at(provider: ProviderConfig) -> Self {
        Self {
            provider: Arc::new(provider),
            images: true,
            ..Self::default()
        }
    }
}

/// A model server, and who asks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderConfig {
    /// Its base URL, without a slash at its end.
    pub base_url: String,
    /// The key, if the server wants one.
    pub api_key: Option<Secret>,
    /// The variable that the key is from, for people.
    pub key_variable: String,
    /// OpenAI's `OpenAI-Organization`.
    pub organization: Option<String>,
    /// OpenAI's `OpenAI-Project`.
    pub project: Option<String>,
    /// Headers of each request, by their names in lower case. They win over ours.
    pub headers: Vec<(String, Secret)>,
    /// Set for a server that has Azure's ways.
    pub azure: Option<Azure>,
}

impl ProviderConfig {
    /// The server at `base_url`, a URL without a slash at its end.
    #[must_use]
    pub fn new(base_url: impl Into<String>, api_key: Option<Secret>) -> Self {
        Self {
            base_url: base_url.into(),
            api_key,
            key_variable: "OPENAI_API_KEY".to_owned(),
            ..Self::default()
        }
    }

    /// Whether it is OpenAI's own server.
    #[must_use]
    pub fn is_openai(&self) -> bool {
        super::provider::is_openai(&self.base_url)
    }
}

/// Azure's ways: the key in `api-key`, and a version in the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Azure {
    /// `api-version` of each request. Needed where the base URL is the resource's own address; the
    /// newer addresses, which end in `/openai/v1`, do without.
    pub api_version: Option<String>,
    /// The deployment that is asked at a resource's own address; none: the model's name.
    pub deployment: Option<String>,
}

/// The field of Chat Completions that limits an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTokensField {
    /// `max_tokens`, which older servers alone know.
    MaxTokens,
    /// `max_completion_tokens`, which reasoning models of `OpenAI` alone take.
    MaxCompletionTokens,
}

/// An option of a job that a model may not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelOption {
    /// `temperature`.
    Temperature,
    /// `top_p`.
    TopP,
    /// `max_output_tokens`.
    MaxOutputTokens,
    /// `seed`.
    Seed,
    /// `stop`.
    Stop,
    /// `reasoning_effort`.
    ReasoningEffort,
    /// `parallel_tool_calls`.
    ParallelToolCalls,
    /// `response_format`.
    ResponseFormat,
    /// `tool_choice`: the model chooses.
    ToolChoice,
}

impl ModelOption {
    /// Every option, by its name in jobs (the last: in requests).
    pub(super) const NAMES: [(&'static str, Self); 9] = [
        ("temperature", Self::Temperature),
        ("top_p", Self::TopP),
        ("max_output_tokens", Self::MaxOutputTokens),
        ("seed", Self::Seed),
        ("stop", Self::Stop),
        ("reasoning_effort", Self::ReasoningEffort),
        ("parallel_tool_calls", Self::ParallelToolCalls),
        ("response_format", Self::ResponseFormat),
        ("tool_choice", Self::ToolChoice),
    ];
}

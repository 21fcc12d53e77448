//! How one model is asked: what of a prompt goes into its request, and under which names. Pure.

use serde_json::value::RawValue;

use crate::chat::{Prompt, ReasoningEffort, ResponseFormat, ToolChoice};
use crate::config::{MaxTokensField, ModelOption, ModelProfile};

/// How one model is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner<'a> {
    /// The model's name at its server.
    pub(super) model: &'a str,
    /// What of the job's options it is told.
    pub(super) wanted: Wanted<'a>,
    /// Chat Completions: the field that limits an answer.
    pub(super) max_tokens_field: MaxTokensField,
    /// Responses: what was thought is asked for, and goes back.
    pub(super) reasoning: Reasoning,
    /// The answer is to come piece by piece.
    pub(super) streamed: bool,
    /// Chat Completions: what it used is to come at its end.
    pub(super) wants_usage: bool,
}

/// What becomes of the reasoning items of Responses, which nobody but their provider can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// They are asked for, and sent back.
    Kept,
    /// They are neither asked for nor sent back: the model has none.
    Unknown,
    /// They are asked for; those of before are not sent back, since the provider does not take them.
    Forgotten,
}

/// The options of a request: those of the job, as far as the model takes them, and the model's own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<&'a [String]>,
    pub(super) reasoning_effort: Option<ReasoningEffort>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) response_format: Option<&'a RawValue>,
    /// None for `auto`, which is what a server does unasked.
    pub(super) tool_choice: Option<&'static str>,
}

impl<'a> Wanted<'a> {
    /// What `prompt` wants of a model with this profile.
    pub(super) fn of(prompt: &'a Prompt, profile: &ModelProfile) -> Self {
        use ModelOption as Option_;
        fn kept<T>(profile: &ModelProfile, option: Option_, value: Option<T>) -> Option<T> {
            value.filter(|_| !profile.drop.contains(&option))
        }
        let options = &*prompt.options;
        let with_tools = !prompt.tools.is_empty();
        let most = [options.max_output_tokens, profile.max_output_tokens];
        let effort = options.reasoning_effort.or(profile.reasoning_effort);
        // What is about tools is refused without tools. With the choice `none` the tools stay: they
        // keep the provider's cached prefix, and make tool messages in the history legal.
        let choice = with_tools.then_some(prompt.tool_choice).and_then(choice);
        let parallel = options.parallel_tool_calls.filter(|_| with_tools);
        Self {
            temperature: kept(profile, Option_::Temperature, options.temperature),
            top_p: kept(profile, Option_::TopP, options.top_p),
            max_output_tokens: kept(
                profile,
                Option_::MaxOutputTokens,
                most.into_iter().flatten().min(),
            ),
            seed: kept(profile, Option_::Seed, options.seed),
            stop: kept(profile, Option_::Stop, options.stop.as_deref()),
            reasoning_effort: kept(profile, Option_::ReasoningEffort, effort),
            parallel_tool_calls: kept(profile, Option_::ParallelToolCalls, parallel),
            response_format: kept(
                profile,
                Option_::ResponseFormat,
                options
                    .response_format
                    .as_ref()
                    .map(ResponseFormat::written),
            ),
            tool_choice: kept(profile, Option_::ToolChoice, choice),
        }
    }
}

fn choice(choice: ToolChoice) -> Option<&'static str> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some("none"),
        ToolChoice::Required => Some("required"),
    }
}

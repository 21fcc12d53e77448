//! A prompt as a request of the Chat Completions API. Pure: nothing is sent here.
//!
//! Shapes: <https://platform.openai.com/docs/api-reference/chat/create>. Optional fields are left
//! out rather than sent as null, and `strict` of a function is never sent: false is the default, and
//! servers that do not know the field may refuse it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::replay::Replay;
use super::shown::{ShownPart, parts};
use crate::chat::{Message, Prompt, PromptMessage, ReasoningEffort, ToolChoice, ToolSpec};

/// What differs between servers of the same API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) enum Dialect {
    /// OpenAI itself and Azure: the limit of an answer is `max_completion_tokens`; reasoning models
    /// there refuse the older name.
    OpenAi,
    /// Everyone else: `max_tokens`, which Ollama and older servers alone know.
    Compatible,
}

impl Dialect {
    /// The dialect spoken at `base_url`.
    pub(in crate::model) fn of(base_url: &str) -> Self {
        let url = url::Url::parse(base_url).ok();
        let host = url
            .as_ref()
            .and_then(url::Url::host_str)
            .unwrap_or_default();
        let at_home = host == "api.openai.com"
            || [
                ".api.openai.com",
                ".openai.azure.com",
                ".cognitiveservices.azure.com",
            ]
            .iter()
            .any(|domain| host.ends_with(domain));
        if at_home {
            Self::OpenAi
        } else {
            Self::Compatible
        }
    }
}

/// The body of a request, borrowed from its prompt.
#[derive(Serialize)]
pub(in crate::model) struct Request<'a> {
    model: &'a str,
    messages: Vec<Said<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<ReasoningEffort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a serde_json::Map<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    System {
        role: &'static str,
        content: &'a str,
    },
    Given(&'a Message),
    Assistant(Replay<'a>),
    Shown {
        role: &'static str,
        content: Vec<ShownPart<'a>>,
    },
    Tool {
        role: &'static str,
        tool_call_id: &'a str,
        content: &'a str,
    },
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: &'a RawValue,
}

impl<'a> Request<'a> {
    /// The request that `prompt` is, at a server that speaks `dialect`.
    pub(in crate::model) fn new(prompt: &'a Prompt, dialect: Dialect) -> Self {
        let options = &*prompt.options;
        let with_tools = !prompt.tools.is_empty();
        let (max_completion_tokens, max_tokens) = match dialect {
            Dialect::OpenAi => (options.max_output_tokens, None),
            Dialect::Compatible => (None, options.max_output_tokens),
        };
        Self {
            model: &prompt.model,
            messages: messages(&prompt.messages),
            tools: prompt.tools.iter().map(tool).collect(),
            // A choice without tools is refused. With the choice `none` the tools stay: they keep
            // the provider's cached prefix, and make tool messages in the history legal.
            tool_choice: with_tools.then_some(prompt.tool_choice).and_then(choice),
            parallel_tool_calls: options.parallel_tool_calls.filter(|_| with_tools),
            temperature: options.temperature,
            top_p: options.top_p,
            max_completion_tokens,
            max_tokens,
            seed: options.seed,
            stop: options.stop.as_deref(),
            reasoning_effort: options.reasoning_effort,
            response_format: options.response_format.as_ref(),
            stream: None,
            stream_options: None,
        }
    }

    /// The same, to be answered piece by piece; the usage comes last.
    pub(in crate::model) fn streamed(self) -> Self {
        Self {
            stream: Some(true),
            stream_options: Some(StreamOptions {
                include_usage: true,
            }),
            ..self
        }
    }
}

/// A tool message holds text alone, and an assistant's tool messages stand together: what the tools
/// of a round showed follows as a message of the user.
fn messages(messages: &[PromptMessage]) -> Vec<Said<'_>> {
    let mut all = Vec::with_capacity(messages.len());
    let mut shown = Vec::new();
    for message in messages {
        let next = match message {
            PromptMessage::Tool {
                call_id,
                content,
                media,
            } => {
                shown.extend(parts(call_id, media));
                all.push(Said::Tool {
                    role: "tool",
                    tool_call_id: call_id,
                    content,
                });
                continue;
            }
            PromptMessage::System(content) => Said::System {
                role: "system",
                content,
            },
            PromptMessage::Given(message) => Said::Given(message),
            PromptMessage::Assistant {
                message,
                tool_calls,
                asked: _,
            } => Said::Assistant(Replay::new(message, tool_calls)),
        };
        show(&mut shown, &mut all);
        all.push(next);
    }
    show(&mut shown, &mut all);
    all
}

fn show<'a>(shown: &mut Vec<ShownPart<'a>>, all: &mut Vec<Said<'a>>) {
    if !shown.is_empty() {
        all.push(Said::Shown {
            role: "user",
            content: std::mem::take(shown),
        });
    }
}

fn tool(spec: &ToolSpec) -> Tool<'_> {
    Tool {
        r#type: "function",
        function: Function {
            name: &spec.name,
            description: &spec.description,
            parameters: &spec.schema,
        },
    }
}

/// `auto` is what a server does unasked.
fn choice(choice: ToolChoice) -> Option<&'static str> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some("none"),
        ToolChoice::Required => Some("required"),
    }
}

//! A prompt as a request of the Chat Completions API. Pure: nothing is sent here.
//!
//! Shapes: <https://platform.openai.com/docs/api-reference/chat/create>. Optional fields are left
//! out rather than sent as null. `strict` of a function is sent and false: some servers hold schemas to
//! their narrow form unasked, and refuse what tool servers write.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::legal::{Line, text};
use super::super::manner::Manner;
use super::replay::Replay;
use super::shown::{ShownPart, parts};
use crate::chat::{Content, ReasoningEffort, Role, ToolSpec};
use crate::config::MaxTokensField;

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
    response_format: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

/// The usage of an answer that comes piece by piece comes last, to who asks for it.
#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Plain {
        role: &'static str,
        content: Cow<'a, str>,
    },
    Parts {
        role: &'static str,
        content: &'a Content,
    },
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
    strict: bool,
}

impl<'a> Request<'a> {
    /// The request that `lines` and `tools` are, made in this manner.
    pub(in crate::model) fn new(
        lines: &'a [Line<'a>],
        tools: &'a [ToolSpec],
        manner: &Manner<'a>,
    ) -> Self {
        let wanted = manner.wanted;
        let (max_completion_tokens, max_tokens) = match manner.max_tokens_field {
            MaxTokensField::MaxCompletionTokens => (wanted.max_output_tokens, None),
            MaxTokensField::MaxTokens => (None, wanted.max_output_tokens),
        };
        Self {
            model: manner.model,
            messages: messages(lines),
            tools: tools.iter().map(tool).collect(),
            tool_choice: wanted.tool_choice,
            parallel_tool_calls: wanted.parallel_tool_calls,
            temperature: wanted.temperature,
            top_p: wanted.top_p,
            max_completion_tokens,
            max_tokens,
            seed: wanted.seed,
            stop: wanted.stop,
            reasoning_effort: wanted.reasoning_effort,
            response_format: wanted.response_format,
            stream: manner.streamed.then_some(true),
            stream_options: (manner.streamed && manner.wants_usage).then_some(StreamOptions {
                include_usage: true,
            }),
        }
    }
}

/// A tool message holds text alone, and an assistant's tool messages stand together: what the tools
/// of a round showed follows as a message of the user.
fn messages<'a>(lines: &'a [Line<'a>]) -> Vec<Said<'a>> {
    let mut all = Vec::with_capacity(lines.len());
    let mut shown = Vec::new();
    for line in lines {
        let next = match line {
            Line::Result {
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
            Line::System(content) => Said::Plain {
                role: "system",
                content: (*content).into(),
            },
            Line::Said { role, content } => said(*role, content),
            Line::Answer {
                message,
                calls,
                at_home,
            } => Said::Assistant(Replay::new(message, calls, *at_home)),
        };
        show(&mut shown, &mut all);
        all.push(next);
    }
    show(&mut shown, &mut all);
    all
}

/// Only users show pictures; the words of others are sent as one text, which every server takes.
fn said(role: Role, content: &Content) -> Said<'_> {
    match role {
        Role::User => Said::Parts {
            role: "user",
            content,
        },
        Role::System => Said::Plain {
            role: "system",
            content: text(content),
        },
        Role::Assistant => Said::Plain {
            role: "assistant",
            content: text(content),
        },
    }
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
            strict: false,
        },
    }
}

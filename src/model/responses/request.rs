//! A prompt as a request of the Responses API.
//!
//! Shapes: <https://platform.openai.com/docs/api-reference/responses/create>. Of a job's options the
//! API has no `seed` and no `stop`.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::super::legal::Line;
use super::super::lenient::Fields;
use super::super::manner::{Manner, Reasoning};
use super::item::{Item, items};
use crate::chat::{ReasoningEffort, ToolSpec};

/// The fewest tokens that the API lets an answer be limited to.
const LEAST_OUTPUT: u32 = 16;
/// Has the provider seal what the model thinks and send it along, since it is to keep nothing.
const SEALED: &[&str] = &["reasoning.encrypted_content"];

/// The body of a request.
#[derive(Serialize)]
pub(in crate::model) struct Request<'a> {
    model: &'a str,
    input: Vec<Item<'a>>,
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
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Effort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Format<'a>>,
    store: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    include: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: &'a RawValue,
    /// The API would take it for true, and refuse most schemas of tools for it.
    strict: bool,
}

#[derive(Serialize)]
struct Effort {
    effort: ReasoningEffort,
}

#[derive(Serialize)]
struct Format<'a> {
    format: InOrder<'a>,
}

/// An object whose fields stand in this order.
struct InOrder<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, json)| (key, json)))
    }
}

impl<'a> Request<'a> {
    /// The request that `lines` and `tools` are, made in this manner.
    pub(in crate::model) fn new(
        lines: &'a [Line<'a>],
        tools: &'a [ToolSpec],
        manner: &Manner<'a>,
    ) -> Self {
        let wanted = manner.wanted;
        Self {
            model: manner.model,
            input: items(lines, manner.reasoning),
            tools: tools.iter().map(tool).collect(),
            tool_choice: wanted.tool_choice,
            parallel_tool_calls: wanted.parallel_tool_calls,
            temperature: wanted.temperature,
            top_p: wanted.top_p,
            max_output_tokens: wanted.max_output_tokens.map(|most| most.max(LEAST_OUTPUT)),
            reasoning: wanted.reasoning_effort.map(|effort| Effort { effort }),
            text: wanted.response_format.map(format),
            store: false,
            include: match manner.reasoning {
                Reasoning::Kept | Reasoning::Forgotten => SEALED,
                Reasoning::Unknown => &[],
            },
            stream: manner.streamed.then_some(true),
        }
    }
}

fn tool(spec: &ToolSpec) -> Tool<'_> {
    Tool {
        r#type: "function",
        name: &spec.name,
        description: &spec.description,
        parameters: &spec.schema,
        strict: false,
    }
}

/// `response_format` of Chat Completions: what stands in its `json_schema` stands beside the type here.
fn format(given: &RawValue) -> Format<'_> {
    let mut format = Vec::new();
    for (key, json) in Fields::read(given).0 {
        if key == "json_schema" && json.get().starts_with('{') {
            format.extend(Fields::read(json).0);
        } else {
            format.push((key, json));
        }
    }
    Format {
        format: InOrder(format),
    }
}

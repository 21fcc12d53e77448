//! Tests of the pure parts: no runtime, no server.

mod classify;
mod legal;
mod replay;
mod reply;
mod request;
mod responses;

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::completions::request::Request;
use super::legal::lines;
use super::manner::{Manner, Reasoning, Wanted};
use super::responses::request::Request as ResponsesRequest;
use crate::chat::{
    Content, Message, ModelOptions, Prompt, PromptMessage, Role, ToolCall, ToolChoice,
};
use crate::config::{MaxTokensField, ModelProfile, ProviderConfig};

fn raw(json: &str) -> Arc<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap().into()
}

fn user(text: &str) -> PromptMessage {
    PromptMessage::Given(Arc::new(Message {
        role: Role::User,
        content: Content::Text(text.to_owned()),
    }))
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall {
        call_id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    }
}

fn prompt(messages: Vec<PromptMessage>) -> Prompt {
    Prompt {
        model: "gpt-4o-mini".into(),
        messages,
        tools: Arc::new([]),
        tool_choice: ToolChoice::Auto,
        options: Arc::new(ModelOptions::default()),
    }
}

fn profile() -> ModelProfile {
    ModelProfile::at(ProviderConfig::new("http://127.0.0.1:1/v1", None))
}

fn manner<'a>(prompt: &'a Prompt, profile: &ModelProfile) -> Manner<'a> {
    Manner {
        model: &prompt.model,
        wanted: Wanted::of(prompt, profile),
        max_tokens_field: profile
            .max_tokens_field
            .unwrap_or(MaxTokensField::MaxTokens),
        reasoning: Reasoning::Kept,
        streamed: false,
        wants_usage: true,
    }
}

/// Models whose names start so are asked elsewhere.
const ELSEWHERE: &str = "elsewhere";

/// The body that `prompt` is sent as.
fn body(prompt: &Prompt) -> String {
    body_for(prompt, &profile())
}

/// The same, for a model with this profile.
fn body_for(prompt: &Prompt, profile: &ModelProfile) -> String {
    let lines = lines(&prompt.messages, profile.images, is_home);
    let request = Request::new(&lines, &prompt.tools, &manner(prompt, profile));
    serde_json::to_string(&request).unwrap()
}

/// The body that `prompt` is sent as over Responses.
fn response_body(prompt: &Prompt, reasoning: Reasoning) -> String {
    let profile = profile();
    let lines = lines(&prompt.messages, true, is_home);
    let manner = Manner {
        reasoning,
        ..manner(prompt, &profile)
    };
    let request = ResponsesRequest::new(&lines, &prompt.tools, &manner);
    serde_json::to_string(&request).unwrap()
}

fn is_home(model: &str) -> bool {
    !model.starts_with(ELSEWHERE)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

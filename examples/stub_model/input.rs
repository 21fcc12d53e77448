//! A request of the Responses API, read as strictly as `OpenAI` reads one, and seen as one of Chat
//! Completions by the scripts.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::responses::{of, seal, thinks};
use super::rules::Refusal;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "some fields are there so that an unknown one is noticed"
)]
struct Request {
    model: String,
    input: Value,
    instructions: Option<String>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    max_output_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    reasoning: Option<Value>,
    text: Option<Text>,
    metadata: Option<Value>,
    prompt_cache_key: Option<String>,
    store: Option<bool>,
    stream: Option<bool>,
    include: Option<Vec<String>>,
}

/// A function on offer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "some fields are there so that an unknown one is noticed"
)]
struct Tool {
    r#type: String,
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
    strict: Option<bool>,
}

/// How the answer is formed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: Option<Map<String, Value>>,
}

/// A request as one of Chat Completions, in which the scripts and the rules about messages know their
/// way around.
pub(super) fn as_chat(body: &[u8]) -> Result<Value, Refusal> {
    let request: Request = serde_json::from_slice(body).map_err(|error| {
        Refusal::new(
            "",
            format!("We could not parse the JSON body of your request: {error}"),
        )
    })?;
    let input = match &request.input {
        Value::String(text) => vec![json!({"role": "user", "content": text})],
        Value::Array(items) if !items.is_empty() => items.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err(Refusal::new(
                "input",
                "Invalid 'input': expected a string or a list that is not empty.",
            ));
        }
    };
    check(&request, &input)?;
    let mut chat = Map::new();
    let mut messages = Vec::new();
    if let Some(instructions) = &request.instructions {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    for item in &input {
        push(item, &mut messages);
    }
    chat.insert("model".to_owned(), json!(request.model));
    chat.insert("messages".to_owned(), Value::Array(messages));
    if let Some(tools) = &request.tools {
        let tool = |tool: &Tool| {
            let schema = tool.parameters.as_ref();
            json!({"type": tool.r#type, "function": {
                "name": tool.name, "description": tool.description.as_deref().unwrap_or_default(),
                "parameters": schema.unwrap_or(&json!({"type": "object"})),
            }})
        };
        chat.insert("tools".to_owned(), tools.iter().map(tool).collect());
    }
    let effort = request.reasoning.as_ref();
    for (name, value) in [
        ("tool_choice", request.tool_choice.clone()),
        (
            "parallel_tool_calls",
            request.parallel_tool_calls.map(Value::from),
        ),
        (
            "max_completion_tokens",
            request.max_output_tokens.map(Value::from),
        ),
        ("temperature", request.temperature.map(Value::from)),
        ("top_p", request.top_p.map(Value::from)),
        (
            "reasoning_effort",
            effort
                .and_then(|reasoning| reasoning.get("effort"))
                .cloned(),
        ),
        (
            "response_format",
            request.text.and_then(|text| text.format).map(format),
        ),
        ("stream", request.stream.map(Value::from)),
    ] {
        chat.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(Value::Object(chat))
}

/// `text.format` as `response_format`.
fn format(mut format: Map<String, Value>) -> Value {
    match format.remove("type") {
        Some(kind) if kind == "json_schema" => json!({"type": kind, "json_schema": format}),
        kind => json!({ "type": kind }),
    }
}

/// An item as a message, or as a part of the one before.
fn push(item: &Value, messages: &mut Vec<Value>) {
    match of(item, "type").as_str().unwrap_or("message") {
        "reasoning" => {}
        "function_call" => {
            let call = json!({"id": of(item, "call_id"), "type": "function",
                              "function": {"name": of(item, "name"), "arguments": of(item, "arguments")}});
            let last = messages.last_mut();
            match last.filter(|message| of(message, "role") == "assistant") {
                Some(Value::Object(message)) => {
                    let calls = message.entry("tool_calls").or_insert_with(|| json!([]));
                    if let Value::Array(calls) = calls {
                        calls.push(call);
                    }
                }
                _ => messages
                    .push(json!({"role": "assistant", "content": null, "tool_calls": [call]})),
            }
        }
        "function_call_output" => {
            let output = plain(of(item, "output"));
            messages.push(
                json!({"role": "tool", "tool_call_id": of(item, "call_id"), "content": output}),
            );
        }
        _ if of(item, "role") == "assistant" => {
            messages.push(json!({"role": "assistant", "content": plain(of(item, "content"))}));
        }
        _ => {
            messages.push(json!({"role": of(item, "role"), "content": parts(of(item, "content"))}));
        }
    }
}

/// The texts of a content in a row.
fn plain(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => (parts.iter())
            .filter_map(|part| {
                of(part, "text")
                    .as_str()
                    .or_else(|| of(part, "refusal").as_str())
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// A content with the names that parts have in Chat Completions.
fn parts(content: &Value) -> Value {
    let part = |part: &Value| match of(part, "type").as_str() {
        Some("input_image") => {
            json!({"type": "image_url", "image_url": {"url": of(part, "image_url")}})
        }
        Some("input_file") => {
            json!({"type": "file", "file": {"filename": of(part, "filename"), "file_data": of(part, "file_data")}})
        }
        _ => json!({"type": "text", "text": of(part, "text")}),
    };
    match content.as_array() {
        Some(all) => all.iter().map(part).collect(),
        None => content.clone(),
    }
}

fn check(request: &Request, input: &[Value]) -> Result<(), Refusal> {
    if request.max_output_tokens.is_some_and(|most| most < 16) {
        let message =
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16.";
        return Err(Refusal::new("max_output_tokens", message).coded("integer_below_min_value"));
    }
    let include = request.include.as_deref().unwrap_or_default();
    let seals = include
        .iter()
        .any(|name| name == "reasoning.encrypted_content");
    if seals && !thinks(&request.model) {
        let message = "Encrypted content is not supported with this model.";
        return Err(Refusal::new("include", message));
    }
    let mut ids = HashSet::new();
    for (index, item) in input.iter().enumerate() {
        check_item(index, item)?;
        if let Some(id) = of(item, "id").as_str()
            && !ids.insert(id)
        {
            let message = format!(
                "Duplicate item found with id {id}. Remove duplicate items from your input and try again."
            );
            return Err(Refusal::new("input", message));
        }
    }
    check_thoughts(input, &ids)?;
    check_calls(input)
}

fn check_item(index: usize, item: &Value) -> Result<(), Refusal> {
    let at = format!("input[{index}]");
    match of(item, "type").as_str().unwrap_or("message") {
        "reasoning" => check_seal(item),
        "function_call" => {
            let arguments = of(item, "arguments").as_str().unwrap_or_default();
            let is_object = arguments.trim_start().starts_with('{')
                && serde_json::from_str::<IgnoredAny>(arguments).is_ok();
            if !is_object {
                let message = format!("Invalid '{at}.arguments': expected a JSON object.");
                return Err(Refusal::new(at, message).coded("invalid_value"));
            }
            let name = of(item, "name").as_str().unwrap_or_default();
            super::tool_rules::check_name(&format_args!("{at}.name"), name)
        }
        "function_call_output" => match of(item, "output") {
            Value::String(text) if !text.is_empty() => Ok(()),
            Value::Array(parts) if !parts.is_empty() => check_parts(&at, parts, "input"),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => Err(Refusal::new(
                at.clone(),
                format!("Invalid type for '{at}.output': expected one of a string or an array."),
            )),
        },
        "message" => {
            let voice = if of(item, "role") == "assistant" {
                "output"
            } else {
                "input"
            };
            match of(item, "content") {
                Value::String(_) => Ok(()),
                Value::Array(parts) => check_parts(&at, parts, voice),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                    Err(Refusal::new(
                        at.clone(),
                        format!("Missing required parameter: '{at}.content'."),
                    ))
                }
            }
        }
        kind => Err(Refusal::new(at, format!("Invalid value: '{kind}'.")).coded("invalid_value")),
    }
}

fn check_parts(at: &str, parts: &[Value], voice: &str) -> Result<(), Refusal> {
    for part in parts {
        let kind = of(part, "type").as_str().unwrap_or_default();
        let known: &[&str] = match voice {
            "output" => &["output_text", "refusal"],
            _ => &["input_text", "input_image", "input_file"],
        };
        if !known.contains(&kind) {
            let message = format!("Invalid value: '{kind}'. Supported values are: {known:?}.");
            return Err(Refusal::new(at, message).coded("invalid_value"));
        }
        if kind == "input_image" && !of(part, "image_url").is_string() {
            let message = format!("Invalid type for '{at}.image_url': expected an image URL.");
            return Err(Refusal::new(at, message).coded("invalid_type"));
        }
    }
    Ok(())
}

/// With nothing stored, what was thought has to come back as it was sealed.
fn check_seal(item: &Value) -> Result<(), Refusal> {
    let id = of(item, "id").as_str().unwrap_or_default();
    match of(item, "encrypted_content").as_str() {
        Some(sealed) if sealed == seal(id) => Ok(()),
        Some(_) => {
            let message = format!(
                "The encrypted content for item {id} could not be verified. Reason: Encrypted content could not be decrypted or parsed."
            );
            Err(Refusal::new("input", message).coded("invalid_encrypted_content"))
        }
        None => {
            let message = format!(
                "Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with `store` set to true, or remove this item from your input."
            );
            Err(Refusal::new("input", message))
        }
    }
}

/// What was thought stands before what came of it, and what came of it has it in front.
fn check_thoughts(input: &[Value], ids: &HashSet<&str>) -> Result<(), Refusal> {
    for (index, item) in input.iter().enumerate() {
        let id = of(item, "id").as_str().unwrap_or_default();
        if of(item, "type") == "reasoning" {
            let next = input.get(index + 1);
            let follows = next.is_some_and(|next| {
                of(next, "type") == "function_call" || of(next, "role") == "assistant"
            });
            if !follows {
                let message = format!(
                    "Item '{id}' of type 'reasoning' was provided without its required following item."
                );
                return Err(Refusal::new("input", message));
            }
        } else if let Some((kind, thought)) = id.split_once("_thought_") {
            let needed = format!("rs_thought_{thought}");
            // Of several calls the first has it in front.
            let needed = needed.split('.').next().unwrap_or_default();
            if !ids.contains(needed) {
                let kind = if kind == "fc" {
                    "function_call"
                } else {
                    "message"
                };
                let message = format!(
                    "Item '{id}' of type '{kind}' was provided without its required 'reasoning' item: '{needed}'."
                );
                return Err(Refusal::new("input", message));
            }
        }
    }
    Ok(())
}

fn check_calls(input: &[Value]) -> Result<(), Refusal> {
    let (mut open, mut seen): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for item in input {
        let id = of(item, "call_id").as_str().unwrap_or_default();
        if of(item, "type") == "function_call" {
            if seen.contains(&id) {
                let message = format!("Two function calls have the call_id {id}.");
                return Err(Refusal::new("input", message));
            }
            seen.push(id);
            open.push(id);
        } else if of(item, "type") == "function_call_output" {
            let Some(at) = open.iter().position(|open| *open == id) else {
                let message =
                    format!("No tool call found for function call output with call_id {id}.");
                return Err(Refusal::new("input", message));
            };
            open.remove(at);
        }
    }
    match open.first() {
        None => Ok(()),
        Some(id) => Err(Refusal::new(
            "input",
            format!("No tool output found for function call {id}."),
        )),
    }
}

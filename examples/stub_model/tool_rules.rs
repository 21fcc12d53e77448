//! The rules about tools on offer, in `OpenAI`'s words.

use std::collections::HashSet;

use super::request::{Chat, Tool};
use super::rules::{Refusal, empty_array};

/// Whether the tools of a request, and what is said about them, would be taken.
pub(super) fn check(chat: &Chat<'_>) -> Result<(), Refusal> {
    let Some(tools) = &chat.tools else {
        if chat.tool_choice.is_some() {
            return Err(only_with_tools("tool_choice"));
        }
        if chat.parallel_tool_calls.is_some() {
            return Err(only_with_tools("parallel_tool_calls"));
        }
        return Ok(());
    };
    if tools.is_empty() {
        return Err(empty_array("tools"));
    }
    if tools.len() > 128 {
        let message = format!(
            "Invalid 'tools': array too long. Expected an array with maximum length 128, but got an array with length {} instead.",
            tools.len()
        );
        return Err(Refusal::new("tools", message).coded("array_above_max_length"));
    }
    if let Some(choice) = chat.tool_choice
        && !matches!(choice.get(), "\"auto\"" | "\"none\"" | "\"required\"")
        && !choice.get().starts_with('{')
    {
        let message = format!(
            "Invalid value: {}. Supported values are: 'none', 'auto', and 'required'.",
            choice.get()
        );
        return Err(Refusal::new("tool_choice", message).coded("invalid_value"));
    }
    let mut names = HashSet::with_capacity(tools.len());
    for (index, tool) in tools.iter().enumerate() {
        check_tool(index, tool)?;
        if !names.insert(&tool.function.name) {
            return Err(Refusal::new("tools", "Tool names must be unique."));
        }
    }
    Ok(())
}

fn check_tool(index: usize, tool: &Tool<'_>) -> Result<(), Refusal> {
    if tool.kind != "function" {
        let message = format!(
            "Invalid value: '{}'. Supported values are: 'function' and 'custom'.",
            tool.kind
        );
        return Err(Refusal::new(format!("tools[{index}].type"), message).coded("invalid_value"));
    }
    check_name(
        &format_args!("tools[{index}].function.name"),
        &tool.function.name,
    )?;
    let Some(schema) = &tool.function.parameters else {
        return Ok(());
    };
    let kind = schema.kind.as_deref().unwrap_or("None");
    if kind != "object" {
        let message = format!(
            "Invalid schema for function '{}': schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'.",
            tool.function.name
        );
        let param = format!("tools[{index}].function.parameters");
        return Err(Refusal::new(param, message).coded("invalid_function_parameters"));
    }
    Ok(())
}

/// Whether `name`, which stands at `param`, is the name of a function.
pub(super) fn check_name(param: &dyn std::fmt::Display, name: &str) -> Result<(), Refusal> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || !name.bytes().all(legal) {
        let message = format!(
            "Invalid '{param}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        );
        return Err(Refusal::new(param.to_string(), message).coded("invalid_value"));
    }
    if name.len() > 64 {
        let message = format!(
            "Invalid '{param}': string too long. Expected a string with maximum length 64, but got a string with length {} instead.",
            name.len()
        );
        return Err(Refusal::new(param.to_string(), message).coded("string_above_max_length"));
    }
    Ok(())
}

fn only_with_tools(param: &str) -> Refusal {
    let message = format!(
        "Invalid value for '{param}': '{param}' is only allowed when 'tools' are specified."
    );
    Refusal::new(param, message)
}

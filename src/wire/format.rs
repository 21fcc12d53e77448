//! What a reply has to be where the job says so in `options.response_format`. Pure.

use std::fmt::Write as _;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use super::format_bounds::check_bounds;
use crate::chat::ModelOptions;
use crate::fault::{ErrorCode, Failure};

/// How many misfits are told at once, and how much of each.
const MAX_ERRORS: usize = 5;
const MAX_ERROR_CHARS: usize = 200;
/// How often a pattern of the schema may try again on one text, and how large it may get.
const MAX_BACKTRACKS: usize = 20_000;
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// What a reply has to be.
#[derive(Debug)]
pub struct ReplyFormat(Kind);

#[derive(Debug)]
enum Kind {
    /// `json_object`
    Object,
    /// `json_schema`
    Schema(Box<Validator>),
}

impl ReplyFormat {
    /// What the replies of a job with these options have to be; none where any text will do.
    /// Formats that are not `OpenAI`'s are the provider's business.
    ///
    /// # Errors
    /// `invalid_job`: what is wrong with the format, by JSON pointer.
    pub fn of(options: &ModelOptions) -> Result<Option<Self>, Failure> {
        let Some(format) = &options.response_format else {
            return Ok(None);
        };
        let format = format.fields();
        match format.get("type") {
            Some(Value::String(kind)) if kind == "json_object" => Ok(Some(Self(Kind::Object))),
            Some(Value::String(kind)) if kind == "json_schema" => {
                let validator = compile(schema(format)?)?;
                Ok(Some(Self(Kind::Schema(Box::new(validator)))))
            }
            Some(Value::String(_)) => Ok(None),
            Some(_) | None => Err(invalid(
                "/type",
                "expected `text`, `json_object` or `json_schema`",
            )),
        }
    }

    /// Why `reply` is not taken. What JSON mode makes of it is the provider's business: it has no
    /// schema to hold a reply against.
    #[must_use]
    pub fn misfit(&self, reply: &str) -> Option<String> {
        match &self.0 {
            Kind::Object => None,
            Kind::Schema(_) => self.read(reply).err(),
        }
    }

    /// The value that `reply` is. What models like to put around it, a fence of Markdown, is no part of it.
    ///
    /// # Errors
    /// Why it does not fit, for the model to read.
    pub fn read(&self, reply: &str) -> Result<Value, String> {
        let value: Value = serde_json::from_str(unfenced(reply))
            .map_err(|error| format!("it is no JSON: {error}"))?;
        match &self.0 {
            Kind::Object if value.is_object() => Ok(value),
            Kind::Object => Err("it is JSON, but no object".to_owned()),
            Kind::Schema(validator) if validator.is_valid(&value) => Ok(value),
            Kind::Schema(validator) => Err(misfits(validator, &value)),
        }
    }
}

/// The schema in a format of the type `json_schema`.
fn schema(format: &Map<String, Value>) -> Result<&Value, Failure> {
    let Some(named) = format.get("json_schema").and_then(Value::as_object) else {
        return Err(invalid(
            "/json_schema",
            "expected an object with a name and a schema",
        ));
    };
    let name = named
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !(1..=64).contains(&name.len()) || !name.bytes().all(is_name) {
        return Err(invalid(
            "/json_schema/name",
            "expected a name, 1 to 64 characters of a-z A-Z 0-9 _ -",
        ));
    }
    match named.get("schema") {
        Some(schema @ Value::Object(_)) => Ok(schema),
        Some(_) | None => Err(invalid(
            "/json_schema/schema",
            "expected a JSON Schema, an object",
        )),
    }
}

fn compile(schema: &Value) -> Result<Validator, Failure> {
    let refused = |what: String| invalid("/json_schema/schema", &what);
    check_bounds(schema).map_err(refused)?;
    let patterns = PatternOptions::fancy_regex()
        .backtrack_limit(MAX_BACKTRACKS)
        .size_limit(MAX_PATTERN_BYTES);
    let compiled = jsonschema::options()
        .offline()
        .with_pattern_options(patterns)
        .build(schema);
    compiled.map_err(|error| {
        let what: String = error.to_string().chars().take(MAX_ERROR_CHARS).collect();
        refused(format!("expected a JSON Schema: {what}"))
    })
}

fn invalid(pointer: &str, expected: &str) -> Failure {
    let text = format!("/options/response_format{pointer}: {expected}");
    Failure::new(ErrorCode::InvalidJob, text)
}

fn misfits(validator: &Validator, value: &Value) -> String {
    let mut text = "it does not fit the JSON Schema:".to_owned();
    let mut errors = validator.iter_errors(value);
    for error in errors.by_ref().take(MAX_ERRORS) {
        let what: String = error.to_string().chars().take(MAX_ERROR_CHARS).collect();
        let at = error.instance_path().to_string();
        let at = if at.is_empty() { "/" } else { &at };
        // Writing to a String cannot fail.
        write!(text, "\n- {at}: {what}").ok();
    }
    if errors.next().is_some() {
        text.push_str("\n- and more");
    }
    text
}

/// What stands between fences, if `reply` is one fenced block and nothing else.
fn unfenced(reply: &str) -> &str {
    let reply = reply.trim();
    let inner = || {
        let body = reply.strip_prefix("```")?.strip_suffix("```")?;
        let (_language, body) = body.split_once('\n')?;
        Some(body.trim())
    };
    inner().unwrap_or(reply)
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;

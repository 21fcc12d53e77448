//! A tool's schema: what the model is shown of it, and whether arguments fit it. Pure.

use std::fmt::Write as _;
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::acceptable::acceptable;

/// The largest schema that is shown, in bytes of JSON.
const MAX_BYTES: usize = 64 * 1024;
/// The largest one that is read.
const MAX_GIVEN_BYTES: usize = 256 * 1024;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;
/// How many misfits are told at once, and how much of each.
const MAX_ERRORS: usize = 5;
const MAX_ERROR_CHARS: usize = 200;

/// A schema that is fit to be offered.
#[derive(Debug)]
pub(super) struct Schema {
    /// As the model sees it.
    pub(super) shown: Arc<RawValue>,
    /// None for a schema that is no valid JSON Schema: the server judges the arguments itself.
    validator: Option<Validator>,
}

impl Schema {
    /// The schema for `given`, as a server lists it; `rest` is what of the tool's description finds
    /// no room there.
    ///
    /// # Errors
    /// Why it cannot be offered.
    pub(super) fn new(given: Option<Value>, rest: &str) -> Result<Self, String> {
        let root = match given {
            Some(Value::Object(root)) => root,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err("its schema is no object".to_owned()),
        };
        if !root.get("type").is_none_or(is_object) {
            return Err("its schema is not of an object".to_owned());
        }
        if !root.values().all(|value| is_shallow(value, MAX_DEPTH)) {
            return Err(format!(
                "its schema is nested deeper than {MAX_DEPTH} levels"
            ));
        }
        // As the server wrote it, which says how the rest is meant.
        let whole = Value::Object(root);
        if whole.to_string().len() > MAX_GIVEN_BYTES {
            return Err(format!("its schema is larger than {MAX_GIVEN_BYTES} bytes"));
        }
        // What takes too long to be looked at is left to the server.
        let compiled = is_cheap(&whole)
            .then(|| jsonschema::options().offline().build(&whole).ok())
            .flatten();
        let Value::Object(root) = whole else {
            return Err("its schema is no object".to_owned());
        };
        let mut root = acceptable(&root);
        if !rest.is_empty() {
            let own = root.get("description").and_then(Value::as_str);
            let both = own.map_or_else(|| rest.to_owned(), |own| format!("{rest}\n\n{own}"));
            root.insert("description".to_owned(), json!(both));
        }
        let shown = to_raw_value(&root).map_err(|error| error.to_string())?;
        if shown.get().len() > MAX_BYTES {
            return Err(format!("its schema is larger than {MAX_BYTES} bytes"));
        }
        Ok(Self {
            shown: shown.into(),
            validator: compiled,
        })
    }

    /// Reads arguments as a model wrote them; an empty text and null are as good as `{}`.
    ///
    /// # Errors
    /// What is wrong with them, for the model to read.
    pub(super) fn read(&self, arguments: &str) -> Result<Map<String, Value>, String> {
        let arguments = arguments.trim();
        let value = if arguments.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(arguments).map_err(|error| {
                format!("The arguments are no JSON: {error}. Expected a JSON object.")
            })?
        };
        let value = if value.is_null() { json!({}) } else { value };
        let Value::Object(_) = &value else {
            return Err(format!(
                "The arguments are {}; expected a JSON object.",
                kind(&value)
            ));
        };
        let Err(text) = self.check(&value) else {
            return Ok(members(value));
        };
        // Models say null where they mean to say nothing.
        let mut said = members(value);
        said.retain(|_, value| !value.is_null());
        match self.check(&Value::Object(said.clone())) {
            Ok(()) => Ok(said),
            Err(_) => Err(text),
        }
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        let Some(validator) = &self.validator else {
            return Ok(());
        };
        if validator.is_valid(value) {
            return Ok(());
        }
        let mut text = "The arguments do not fit the tool's schema:".to_owned();
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
        Err(text)
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

/// Whether a schema's `type` lets objects through.
fn is_object(kind: &Value) -> bool {
    kind == "object"
        || kind
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
}

fn is_shallow(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return false;
    };
    match value {
        Value::Object(map) => map.values().all(|value| is_shallow(value, below)),
        Value::Array(items) => items.iter().all(|value| is_shallow(value, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// The most parts of a schema that one value may be held against.
const MOST_PARTS: u32 = 2_000;
/// The same, of all values together that a schema has a place for.
const MOST_PARTS_IN_ALL: u32 = 200_000;

/// Whether no value is held against too many parts of `root`. References are followed: a few that name
/// each other twice would come to more parts than can be looked at in a lifetime, or never end. Nor is it
/// if one leads to where nobody can tell what it is.
fn is_cheap(root: &Value) -> bool {
    fn each(root: &Value, value: &Value, left: &mut u32) -> bool {
        let most = MOST_PARTS.min(*left);
        let Some(rest) = parts(root, value, &mut Vec::new(), most) else {
            return false;
        };
        *left -= most - rest;
        match value {
            Value::Object(map) => map.values().all(|value| each(root, value, left)),
            Value::Array(items) => items.iter().all(|value| each(root, value, left)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        }
    }
    each(root, root, &mut MOST_PARTS_IN_ALL.clone())
}

/// What is left of `most` after the parts of `schema` that hold for the same value; none if it is too little.
fn parts<'a>(
    root: &'a Value,
    schema: &'a Value,
    open: &mut Vec<&'a str>,
    most: u32,
) -> Option<u32> {
    let left = most.checked_sub(1)?;
    let Value::Object(map) = schema else {
        return Some(left);
    };
    map.iter()
        .try_fold(left, |left, (key, value)| match (key.as_str(), value) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(name)) => {
                // One that leads back to itself never ends.
                if open.contains(&name.as_str()) {
                    return None;
                }
                let there = root.pointer(name.strip_prefix('#')?)?;
                open.push(name);
                let left = parts(root, there, open, left);
                open.pop();
                left
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(items)) => items
                .iter()
                .try_fold(left, |left, item| parts(root, item, open, left)),
            ("not" | "if" | "then" | "else", one) => parts(root, one, open, left),
            ("dependentSchemas" | "dependencies", Value::Object(all)) => all
                .values()
                .try_fold(left, |left, one| parts(root, one, open, left)),
            _ => Some(left),
        })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(given: Value) -> Schema {
        Schema::new(Some(given), "").unwrap()
    }

    #[test]
    fn a_schema_whose_parts_name_each_other_without_end_holds_nothing_up() {
        let twice = |name: String| json!({"allOf": [{"$ref": &name}, {"$ref": &name}]});
        let mut defs: Map<String, Value> = (0..40)
            .map(|number| {
                (
                    format!("d{number}"),
                    twice(format!("#/$defs/d{}", number + 1)),
                )
            })
            .collect();
        defs.insert("d40".to_owned(), json!({}));
        let bomb =
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs});
        assert!(!is_cheap(&bomb));
        assert!(schema(bomb).read(r#"{"a": 1}"#).is_ok());
        for odd in [
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"allOf": [{"$ref": "#a"}], "$defs": {"a": {"$anchor": "a", "not": {}}}}),
        ] {
            assert!(!is_cheap(&odd), "{odd}");
            assert!(schema(odd).read("{}").is_ok());
        }
        let parts = json!({"anyOf": vec![json!({"anyOf": vec![json!({}); 20]}); 95]});
        assert!(is_cheap(&parts));
        assert!(!is_cheap(&json!(vec![parts; 100])), "all together");
        // A tree of nodes is none of them.
        let tree = json!({"type": "object", "properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}}});
        assert!(schema(tree).read(r#"{"next": {"n": "x"}}"#).is_err());
    }

    #[test]
    fn a_root_without_type_or_properties_gets_both_and_loses_its_dialect() {
        let shown = |given| serde_json::from_str::<Value>(schema(given).shown.get()).unwrap();
        let bare = json!({"type": "object", "properties": {}});
        assert_eq!(shown(json!({})), bare);
        assert_eq!(shown(json!({"type": ["object", "null"]})), bare);
        assert_eq!(
            shown(
                json!({"$schema": "http://json-schema.org/draft-07/schema#", "properties": null})
            ),
            bare
        );
        assert_eq!(
            Schema::new(None, "").unwrap().shown.get(),
            Schema::new(Some(Value::Null), "").unwrap().shown.get()
        );
    }

    #[test]
    fn schemas_that_no_provider_takes_are_refused() {
        assert!(Schema::new(Some(json!("string")), "").is_err());
        assert!(Schema::new(Some(json!({"type": "string"})), "").is_err());
        assert!(
            Schema::new(Some(json!({"description": "x".repeat(70_000)})), "")
                .unwrap_err()
                .contains("larger")
        );
        let mut deep = json!({});
        for _ in 0..70 {
            deep = json!({"not": deep});
        }
        assert!(Schema::new(Some(deep), "").unwrap_err().contains("deeper"));
    }

    #[test]
    fn empty_arguments_and_null_are_an_empty_object() {
        let open = schema(json!({}));
        for text in ["", "  ", "null", "{}"] {
            assert!(open.read(text).unwrap().is_empty(), "{text:?}");
        }
        for text in ["[]", "1", "\"{}\"", "{", "{} {}"] {
            assert!(open.read(text).unwrap_err().contains("JSON"), "{text:?}");
        }
    }

    #[test]
    fn a_null_for_what_may_be_left_out_is_left_out_and_another_one_is_passed_on() {
        let schema = schema(json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "integer"}, "b": {"type": "boolean"}, "c": {"type": ["string", "null"]}}}));
        let read = |arguments: &str| schema.read(arguments).map(Value::Object);
        assert_eq!(read(r#"{"a": 1, "b": null}"#).unwrap(), json!({"a": 1}));
        assert_eq!(
            read(r#"{"a": 1, "c": null}"#).unwrap(),
            json!({"a": 1, "c": null})
        );
        assert!(read(r#"{"a": null}"#).unwrap_err().contains("/a"));
    }

    #[test]
    fn arguments_that_do_not_fit_are_told_field_by_field_and_bounded() {
        let sum = schema(json!({"properties": {"a": {"type": "number"}}, "required": ["a", "b"]}));
        assert!(sum.read(r#"{"a": 1, "b": 2}"#).is_ok());
        let told = sum.read(r#"{"a": "one"}"#).unwrap_err();
        assert!(
            told.contains("/a: \"one\" is not of type \"number\""),
            "{told}"
        );
        assert!(told.contains("\"b\" is a required property"), "{told}");
        let long = sum
            .read(&format!(r#"{{"a": "{}", "b": 1}}"#, "é".repeat(9000)))
            .unwrap_err();
        assert!(long.len() < 1000, "{}", long.len());
    }

    #[test]
    fn arguments_are_held_against_the_schema_as_the_server_wrote_it() {
        let either = schema(json!({"oneOf": [
            {"properties": {"path": {"type": "string"}}, "required": ["path"]},
            {"properties": {"id": {"type": "integer"}}, "required": ["id"]}]}));
        assert!(!either.shown.get().contains("oneOf"));
        assert!(either.read(r#"{"id": 1}"#).is_ok());
        assert!(either.read("{}").unwrap_err().contains("oneOf"));
    }

    #[test]
    fn a_schema_that_goes_in_circles_ends_no_program() {
        for circle in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"anyOf": [{"$ref": "#/$defs/y"}]}, "y": {"not": {"$ref": "#/$defs/x"}}}}),
        ] {
            // Whatever it says: it comes back.
            schema(circle).read(r#"{"a": 1}"#).ok();
        }
    }

    #[test]
    fn a_schema_that_points_elsewhere_is_never_fetched_and_the_server_judges() {
        let remote =
            schema(json!({"properties": {"a": {"$ref": "http://127.0.0.1:1/schema.json"}}}));
        assert!(remote.read(r#"{"a": 1}"#).is_ok());
    }
}

//! What a schema may be, so that to check a reply with it takes no longer than the reply is worth. Pure.

use std::collections::HashMap;

use serde_json::Value;

/// The largest schema, in bytes of JSON, and the deepest.
const MAX_BYTES: usize = 64 * 1024;
const MAX_DEPTH: usize = 64;
/// The most schemas that one value may have to be checked with, references followed.
const MAX_AT_ONE_PLACE: u64 = 10_000;

/// Whether a schema is small and flat enough, and its references lead somewhere within it and come
/// to an end.
///
/// # Errors
/// What is too much.
pub(super) fn check_bounds(schema: &Value) -> Result<(), String> {
    if schema.to_string().len() > MAX_BYTES {
        return Err(format!("expected at most {MAX_BYTES} bytes of JSON"));
    }
    if !is_shallow(schema, MAX_DEPTH) {
        return Err(format!("expected at most {MAX_DEPTH} levels of nesting"));
    }
    let mut weigher = Weigher {
        root: schema,
        weights: HashMap::new(),
    };
    weigher.weigh_all(schema)
}

fn is_shallow(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return false;
    };
    children(value).all(|child| is_shallow(child, below))
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Object(map) => Box::new(map.values()),
        Value::Array(items) => Box::new(items.iter()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Box::new(std::iter::empty())
        }
    }
}

/// Counts the schemas that apply to one and the same value.
struct Weigher<'a> {
    root: &'a Value,
    /// By address; none while it is being weighed.
    weights: HashMap<usize, Option<u64>>,
}

impl<'a> Weigher<'a> {
    fn weigh_all(&mut self, value: &'a Value) -> Result<(), String> {
        self.weigh(value)?;
        children(value).try_for_each(|child| self.weigh_all(child))
    }

    fn weigh(&mut self, schema: &'a Value) -> Result<u64, String> {
        let Value::Object(fields) = schema else {
            return Ok(1);
        };
        let address = std::ptr::from_ref(schema).addr();
        match self.weights.get(&address) {
            Some(Some(weight)) => return Ok(*weight),
            Some(None) => return Err("expected references that come to an end".to_owned()),
            None => self.weights.insert(address, None),
        };
        let mut weight: u64 = 1;
        for (key, value) in fields {
            let parts = match (key.as_str(), value) {
                ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => all.iter().collect(),
                ("dependentSchemas", Value::Object(all)) => all.values().collect(),
                ("not" | "if" | "then" | "else", one) => vec![one],
                ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                    vec![self.find(reference)?]
                }
                _ => Vec::new(),
            };
            for part in parts {
                weight = weight.saturating_add(self.weigh(part)?);
            }
        }
        if weight > MAX_AT_ONE_PLACE {
            return Err(format!(
                "expected at most {MAX_AT_ONE_PLACE} schemas for one value"
            ));
        }
        self.weights.insert(address, Some(weight));
        Ok(weight)
    }

    fn find(&self, reference: &str) -> Result<&'a Value, String> {
        let pointer = reference.strip_prefix('#').unwrap_or("?");
        self.root.pointer(pointer).ok_or_else(|| {
            let reference: String = reference.chars().take(100).collect();
            format!("expected references within the schema, like `#/$defs/name`, got {reference:?}")
        })
    }
}

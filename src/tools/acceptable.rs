//! A tool's schema as every provider takes it: they refuse a whole request for one schema that they
//! do not like, so the model is shown less where it must be. What it then gets wrong is told to it:
//! arguments are held against the schema as the server wrote it. Pure.

use serde_json::{Map, Value, json};

type Schema = Map<String, Value>;

/// How many branches of the root are followed: they may point at each other.
const MAX_BRANCHES: usize = 256;

/// `given` as it may be offered: an object at the root, with `properties` and without alternatives;
/// lists with `items`; no word that points elsewhere or says which dialect this is.
pub(super) fn acceptable(given: &Schema) -> Schema {
    let mut root = cleaned(given);
    let whole = root.clone();
    let mut left = MAX_BRANCHES;
    merge_branches(&mut root, &whole, &mut left);
    for word in ["enum", "const", "not"] {
        root.remove(word);
    }
    root.insert("type".to_owned(), json!("object"));
    let required = root.get("required").cloned().unwrap_or_default();
    let properties = root.entry("properties").or_insert_with(|| json!({}));
    // What is required has to be described.
    if let (Some(properties), Some(required)) = (properties.as_object_mut(), required.as_array()) {
        for name in required.iter().filter_map(Value::as_str) {
            properties.entry(name).or_insert_with(|| json!({}));
        }
    }
    let whole = Value::Object(root.clone());
    for value in root.values_mut() {
        drop_dangling(value, &whole);
    }
    root
}

/// What stands behind a word of a schema, as far as it is a schema itself.
enum Role {
    /// A schema, or true or false.
    One,
    /// `items`: a schema, or a list of them in old dialects.
    Items,
    /// A list of schemas.
    List,
    /// Schemas by name.
    Named,
    /// The names of types.
    Types,
    /// A list that is not empty.
    Choices,
    /// A list of texts.
    Texts,
    /// A text.
    Text,
    /// Nothing that a model needs.
    Dropped,
    /// Anything else.
    Kept,
}

fn role(word: &str) -> Role {
    match word {
        "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
            Role::Named
        }
        "anyOf" | "oneOf" | "allOf" | "prefixItems" => Role::List,
        "items" => Role::Items,
        "not"
        | "if"
        | "then"
        | "else"
        | "contains"
        | "propertyNames"
        | "unevaluatedItems"
        | "unevaluatedProperties"
        | "additionalProperties"
        | "contentSchema" => Role::One,
        "type" => Role::Types,
        "enum" => Role::Choices,
        "required" => Role::Texts,
        "description" | "title" | "$ref" => Role::Text,
        "$schema" | "$id" | "id" | "$anchor" | "$dynamicAnchor" | "$dynamicRef"
        | "$recursiveRef" | "$recursiveAnchor" | "$vocabulary" | "$comment" | "additionalItems" => {
            Role::Dropped
        }
        _ => Role::Kept,
    }
}

fn cleaned(schema: &Schema) -> Schema {
    let mut clean: Schema = schema
        .iter()
        .filter_map(|(word, value)| Some((word.clone(), clean_word(word, value)?)))
        .collect();
    if says(&clean, "array") {
        clean.entry("items").or_insert_with(|| json!({}));
    }
    clean
}

fn clean_word(word: &str, value: &Value) -> Option<Value> {
    let list = || value.as_array().filter(|list| !list.is_empty());
    match role(word) {
        Role::One => match value {
            Value::Bool(_) => Some(value.clone()),
            Value::Object(schema) => Some(Value::Object(cleaned(schema))),
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
        },
        Role::Items => Some(match list() {
            Some(places) => json!({"anyOf": places.iter().map(subschema).collect::<Vec<_>>()}),
            None => subschema(value),
        }),
        Role::List => Some(list()?.iter().map(subschema).collect()),
        Role::Named => {
            let named = value.as_object()?.iter();
            Some(Value::Object(
                named
                    .map(|(name, value)| (name.clone(), subschema(value)))
                    .collect(),
            ))
        }
        Role::Types => types(value),
        Role::Choices => list().map(|_| value.clone()),
        Role::Texts => {
            let texts = value.as_array()?.iter().filter(|text| text.is_string());
            Some(texts.cloned().collect())
        }
        Role::Text => value.is_string().then(|| value.clone()),
        Role::Dropped => None,
        Role::Kept => Some(value.clone()),
    }
}

/// A schema where another one needs one: what is none lets everything through.
fn subschema(value: &Value) -> Value {
    match value {
        Value::Object(schema) => Value::Object(cleaned(schema)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            json!({})
        }
    }
}

/// The types that there are; some servers say `any`.
fn types(value: &Value) -> Option<Value> {
    let known = |value: &Value| {
        let kinds = [
            "string", "number", "integer", "boolean", "object", "array", "null",
        ];
        value.as_str().is_some_and(|kind| kinds.contains(&kind))
    };
    match value {
        Value::String(_) => known(value).then(|| value.clone()),
        Value::Array(kinds) => {
            let kinds: Vec<_> = kinds.iter().filter(|kind| known(kind)).cloned().collect();
            (!kinds.is_empty()).then_some(Value::Array(kinds))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn says(schema: &Schema, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(said)) => said == kind,
        Some(Value::Array(said)) => said.iter().any(|said| said == kind),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => false,
    }
}

/// Takes the properties of all branches of `schema` in: of alternatives none is required.
fn merge_branches(schema: &mut Schema, whole: &Schema, left: &mut usize) {
    let branches = ["$ref", "allOf", "anyOf", "oneOf"].map(|word| (word, schema.remove(word)));
    for (word, found) in branches {
        let all_hold = matches!(word, "$ref" | "allOf");
        let found = match found {
            Some(Value::Array(list)) => list,
            Some(reference @ Value::String(_)) => vec![json!({"$ref": reference})],
            Some(_) | None => continue,
        };
        for branch in found {
            let Value::Object(mut branch) = branch else {
                continue;
            };
            let Some(fewer) = left.checked_sub(1) else {
                return;
            };
            *left = fewer;
            if let Some(target) = branch.get("$ref").and_then(|target| resolve(target, whole)) {
                branch.remove("$ref");
                for (word, value) in target {
                    branch.entry(word.clone()).or_insert_with(|| value.clone());
                }
            }
            merge_branches(&mut branch, whole, left);
            take_in(schema, branch, all_hold);
        }
    }
}

fn take_in(schema: &mut Schema, mut branch: Schema, all_hold: bool) {
    if let Some(Value::Object(fresh)) = branch.remove("properties") {
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            for (name, value) in fresh {
                properties.entry(name).or_insert(value);
            }
        }
    }
    if let (true, Some(Value::Array(fresh))) = (all_hold, branch.remove("required")) {
        let required = schema.entry("required").or_insert_with(|| json!([]));
        if let Some(required) = required.as_array_mut() {
            let new: Vec<_> = fresh
                .into_iter()
                .filter(|name| !required.contains(name))
                .collect();
            required.extend(new);
        }
    }
    if let Some(description) = branch.remove("description").filter(|_| all_hold) {
        schema.entry("description").or_insert(description);
    }
}

/// What a reference within the schema points at.
fn resolve<'w>(reference: &Value, whole: &'w Schema) -> Option<&'w Schema> {
    let pointer = reference.as_str()?.strip_prefix("#/")?;
    let (first, rest) = pointer.split_once('/').unwrap_or((pointer, ""));
    let value = whole.get(first)?;
    let found = if rest.is_empty() {
        Some(value)
    } else {
        value.pointer(&format!("/{rest}"))
    };
    found?.as_object()
}

/// Drops what points to nowhere or elsewhere: nothing is ever fetched.
fn drop_dangling(value: &mut Value, whole: &Value) {
    match value {
        Value::Object(members) => {
            let dangles = members
                .get("$ref")
                .and_then(Value::as_str)
                .is_some_and(|target| match target.strip_prefix('#') {
                    Some(pointer) => whole.pointer(pointer).is_none(),
                    None => true,
                });
            if dangles {
                members.remove("$ref");
            }
            for member in members.values_mut() {
                drop_dangling(member, whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_dangling(item, whole)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(given: Value) -> Value {
        let Value::Object(given) = given else {
            panic!("no object");
        };
        let shown = acceptable(&given);
        let again = acceptable(&shown);
        assert_eq!(again, shown, "it is not acceptable yet");
        Value::Object(shown)
    }

    #[test]
    fn a_plain_schema_is_shown_as_it_is() {
        let plain = json!({
            "type": "object",
            "description": "All of it",
            "properties": {
                "a": {"type": ["string", "null"], "format": "date", "default": null, "examples": ["x"]},
                "b": {"type": "array", "items": {"$ref": "#/$defs/b"}, "minItems": 1},
                "$schema": {"type": "string"}, "id": {"enum": ["x"]},
            },
            "required": ["a"], "additionalProperties": false,
            "$defs": {"b": {"anyOf": [{"type": "string"}, {"const": 1}]}},
        });
        assert_eq!(shown(plain.clone()), plain);
    }

    #[test]
    fn lists_get_items_and_what_is_no_schema_lets_everything_through() {
        let given = json!({"properties": {
            "a": {"type": "array"},
            "b": {"type": ["null", "array"], "items": [{"type": "string"}, {"type": "integer"}]},
            "c": true, "d": null, "e": {"type": "any", "enum": [], "required": true, "description": 7},
            "f": {"type": "array", "items": true}, "g": {"anyOf": []},
            "h": {"type": "object", "$schema": "x", "$id": "y", "additionalProperties": {"type": "array"}},
        }});
        assert_eq!(
            shown(given)["properties"],
            json!({
                "a": {"type": "array", "items": {}},
                "b": {"type": ["null", "array"], "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                "c": {}, "d": {}, "e": {},
                "f": {"type": "array", "items": {}}, "g": {},
                "h": {"type": "object", "additionalProperties": {"type": "array", "items": {}}},
            })
        );
    }

    #[test]
    fn alternatives_at_the_root_become_properties_of_which_none_is_required() {
        let given = json!({
            "oneOf": [
                {"properties": {"path": {"type": "string"}}, "required": ["path"]},
                {"$ref": "#/$defs/by_id"},
            ],
            "allOf": [{"properties": {"all": {"type": "boolean"}}, "required": ["all", "undescribed"]}],
            "not": {"required": ["x"]}, "enum": [{}], "const": {},
            "$defs": {"by_id": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}},
        });
        assert_eq!(
            shown(given),
            json!({
                "type": "object",
                "properties": {
                    "path": {"type": "string"}, "id": {"type": "integer"}, "all": {"type": "boolean"},
                    "undescribed": {},
                },
                "required": ["all", "undescribed"],
                "$defs": {"by_id": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}},
            })
        );
    }

    #[test]
    fn a_root_that_only_points_is_what_it_points_at() {
        let given = json!({
            "$ref": "#/definitions/Args",
            "definitions": {"Args": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
        });
        let shown = shown(given);
        assert_eq!(shown["properties"]["a"], json!({"type": "string"}));
        assert_eq!(shown["required"], json!(["a"]));
        assert_eq!(shown.get("$ref"), None);
    }

    #[test]
    fn references_that_point_elsewhere_nowhere_or_in_circles_do_no_harm() {
        let given = json!({
            "$ref": "#/$defs/loop",
            "properties": {
                "far": {"$ref": "https://example.org/x.json", "description": "far"},
                "gone": {"$ref": "#/$defs/none"}, "anchor": {"$ref": "#a"},
                "self": {"$ref": "#/$defs/loop"},
            },
            "$defs": {"loop": {"allOf": [{"$ref": "#/$defs/loop"}]}},
        });
        assert_eq!(
            shown(given)["properties"],
            json!({
                "far": {"description": "far"}, "gone": {}, "anchor": {},
                "self": {"$ref": "#/$defs/loop"},
            })
        );
    }
}

//! What a server is answered that wants to ask a person: nobody is there. Pure.

use serde_json::{Map, Value, json};

use crate::config::Elicitation;

/// The answer to `elicitation/create` with these parameters.
pub(super) fn answer(policy: Elicitation, params: &Value) -> Value {
    let filled = match policy {
        Elicitation::Decline => None,
        Elicitation::Defaults => fill(params),
    };
    match filled {
        Some(content) => json!({"action": "accept", "content": content}),
        None => json!({"action": "decline"}),
    }
}

/// The form with its own defaults, if these are all that it wants.
fn fill(params: &Value) -> Option<Map<String, Value>> {
    // There is nobody to open an address.
    if params.get("mode").is_some_and(|mode| mode != "form") {
        return None;
    }
    let schema = params.get("requestedSchema")?;
    let properties = schema.get("properties")?.as_object()?;
    let content: Map<_, _> = properties
        .iter()
        .filter_map(|(name, property)| Some((name.clone(), property.get("default")?.clone())))
        .collect();
    let required = schema.get("required").and_then(Value::as_array);
    let mut required = required.into_iter().flatten().filter_map(Value::as_str);
    required
        .all(|name| content.contains_key(name))
        .then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(required: &[&str]) -> Value {
        json!({"message": "Who are you?", "requestedSchema": {"type": "object", "required": required,
            "properties": {"name": {"type": "string", "default": "Ada"}, "age": {"type": "integer"}}}})
    }

    #[test]
    fn nothing_is_told_where_the_policy_is_to_decline() {
        let answered = answer(Elicitation::Decline, &form(&[]));
        assert_eq!(answered, json!({"action": "decline"}));
    }

    #[test]
    fn a_form_is_filled_with_its_defaults_if_it_wants_no_more() {
        let filled = json!({"action": "accept", "content": {"name": "Ada"}});
        for required in [&[][..], &["name"]] {
            assert_eq!(answer(Elicitation::Defaults, &form(required)), filled);
        }
        let declined = json!({"action": "decline"});
        assert_eq!(answer(Elicitation::Defaults, &form(&["age"])), declined);
        let url =
            json!({"mode": "url", "message": "Sign in", "url": "https://h", "elicitationId": "1"});
        assert_eq!(answer(Elicitation::Defaults, &url), declined);
    }
}

//! What a server lists: each tool read alone and leniently, so that one bad tool costs nothing
//! else. Pure.

use std::sync::Arc;

use serde_json::Value;

use super::schema::Schema;

/// The longest description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 8 * 1024;

/// A tool as its server lists it.
#[derive(Debug)]
pub(super) struct ListedTool {
    /// The tool's own name.
    pub(super) name: String,
    /// What it is for; may be empty.
    pub(super) description: String,
    /// What it takes.
    pub(super) schema: Schema,
    /// The server says that calling it again does no harm.
    pub(super) repeatable: bool,
}

/// The tools of a server in the order of their names, and the JSON they were read from, by which a
/// list that says nothing new is known.
#[derive(Debug)]
pub(super) struct Listing {
    /// The tools.
    pub(super) tools: Vec<Arc<ListedTool>>,
    source: Vec<Value>,
}

impl Listing {
    /// Reads the members of a server's `tools`; what cannot be offered is left out with a warning.
    pub(super) fn read(server: &str, source: Vec<Value>) -> Self {
        let mut tools: Vec<Arc<ListedTool>> = Vec::new();
        for value in &source {
            match read_tool(value) {
                Ok(tool) => tools.push(Arc::new(tool)),
                Err((name, reason)) => {
                    tracing::warn!(
                        tool.server = server,
                        tool.name = name,
                        reason,
                        "a tool is left out"
                    );
                }
            }
        }
        tools.sort_by(|one, other| one.name.cmp(&other.name));
        tools.dedup_by(|one, other| one.name == other.name);
        Self { tools, source }
    }

    /// Whether `source` says the same.
    pub(super) fn is_of(&self, source: &[Value]) -> bool {
        self.source == source
    }
}

fn read_tool(value: &Value) -> Result<ListedTool, (String, String)> {
    let name = value
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if name.is_empty() {
        return Err((String::new(), "it has no name".to_owned()));
    }
    let schema = value.get("inputSchema").cloned();
    let schema = Schema::new(schema).map_err(|reason| (name.to_owned(), reason))?;
    let description = value
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let hint = |hint| value.pointer(hint).and_then(Value::as_bool) == Some(true);
    Ok(ListedTool {
        name: name.to_owned(),
        description: description.chars().take(MAX_DESCRIPTION_CHARS).collect(),
        schema,
        repeatable: hint("/annotations/readOnlyHint") || hint("/annotations/idempotentHint"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_bad_tool_costs_nothing_else() {
        let source = vec![
            json!({"name": "b", "inputSchema": null, "annotations": {"readOnlyHint": true}}),
            json!({"name": "bad", "inputSchema": {"type": "array"}}),
            json!({"description": "no name"}),
            json!("no tool"),
            json!({"name": "a", "description": null, "annotations": {"idempotentHint": "yes"}}),
            json!({"name": "a", "description": "a repeat"}),
        ];
        let listing = Listing::read("s", source.clone());
        let read: Vec<_> = listing
            .tools
            .iter()
            .map(|tool| (&tool.name[..], tool.repeatable))
            .collect();
        assert_eq!(read, [("a", false), ("b", true)]);
        assert!(listing.is_of(&source) && !listing.is_of(&source[1..]));
    }
}

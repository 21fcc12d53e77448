//! What a server lists: each tool read alone and leniently, so that one bad tool costs nothing
//! else. Pure.

use std::sync::Arc;

use serde_json::Value;

use super::schema::Schema;

/// The longest description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 8 * 1024;
/// The longest one that `OpenAI` and Azure take for a function: they refuse a whole request for more. The
/// rest stands in the description of the arguments, for which there is no such limit.
const MAX_FUNCTION_CHARS: usize = 1024;

/// A tool as its server lists it.
#[derive(Debug)]
pub(super) struct ListedTool {
    /// The tool's own name.
    pub(super) name: String,
    /// What it is for; may be empty.
    pub(super) description: String,
    /// What it takes.
    pub(super) schema: Schema,
    /// The same in its server's own words; null where it said nothing.
    pub(super) input_schema: Value,
    /// The server says that calling it again does no harm.
    pub(super) repeatable: bool,
}

/// The tools of a server in the order of their names, and the JSON they were read from, by which a
/// list that says nothing new is known.
#[derive(Debug)]
pub(super) struct Listing {
    /// The tools.
    pub(super) tools: Vec<Arc<ListedTool>>,
    /// What was left out, and why.
    pub(super) warnings: Vec<String>,
    source: Vec<Value>,
}

impl Listing {
    /// Reads the members of a server's `tools`; what cannot be offered is left out with a warning.
    ///
    /// `cut` says that the server lists more.
    pub(super) fn read(server: &str, source: Vec<Value>, cut: bool) -> Self {
        let mut tools: Vec<Arc<ListedTool>> = Vec::new();
        let mut warnings = Vec::new();
        if cut {
            let most = source.len();
            tracing::warn!(tool.server = server, most, "only the first tools are read");
            warnings.push(format!(
                "it lists more tools than are read: only the first {most} are known"
            ));
        }
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
                    warnings.push(format!("the tool {name:?} is left out: {reason}"));
                }
            }
        }
        // In no order of the server's, not even of tools with the same name.
        let key = |tool: &ListedTool| (tool.name.clone(), tool.schema.shown.get().to_owned());
        tools.sort_by_cached_key(|tool| key(tool));
        tools.dedup_by(|one, other| {
            let repeats = one.name == other.name;
            if repeats {
                warnings.push(format!("the tool {:?} is listed more than once", one.name));
            }
            repeats
        });
        Self {
            tools,
            warnings,
            source,
        }
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
    let description = value
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let (description, rest) = parts(description);
    let given = value.get("inputSchema").cloned();
    let input_schema = given.clone().unwrap_or_default();
    let schema = Schema::new(given, rest).map_err(|reason| (name.to_owned(), reason))?;
    let hint = |hint| value.pointer(hint).and_then(Value::as_bool) == Some(true);
    Ok(ListedTool {
        name: name.to_owned(),
        input_schema,
        description: description.to_owned(),
        schema,
        repeatable: hint("/annotations/readOnlyHint") || hint("/annotations/idempotentHint"),
    })
}

/// A description as far as a function's may go, and the rest of it.
fn parts(description: &str) -> (&str, &str) {
    let description = head(description, MAX_DESCRIPTION_CHARS);
    let first = head(description, MAX_FUNCTION_CHARS);
    if first.len() == description.len() {
        return (description, "");
    }
    // Between lines or words, if there are any.
    let end = first.rfind('\n').or_else(|| first.rfind(' '));
    let end = end
        .filter(|end| *end > first.len() / 2)
        .unwrap_or(first.len());
    let (first, rest) = description.split_at(end);
    (first.trim_end(), rest.trim())
}

fn head(text: &str, chars: usize) -> &str {
    let end = text
        .char_indices()
        .nth(chars)
        .map_or(text.len(), |(at, _)| at);
    text.split_at(end).0
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
        let listing = Listing::read("s", source.clone(), false);
        let read: Vec<_> = listing
            .tools
            .iter()
            .map(|tool| (&tool.name[..], tool.repeatable))
            .collect();
        assert_eq!(read, [("a", false), ("b", true)]);
        assert_eq!(
            listing.warnings,
            [
                r#"the tool "bad" is left out: its schema is not of an object"#,
                r#"the tool "" is left out: it has no name"#,
                r#"the tool "" is left out: it has no name"#,
                r#"the tool "a" is listed more than once"#,
            ]
        );
        assert!(listing.is_of(&source) && !listing.is_of(&source[1..]));
    }

    #[test]
    fn a_long_description_goes_on_in_the_arguments() {
        let words = "grüße ".repeat(400);
        let lines = format!("{}\n{}", "a".repeat(1000), "b".repeat(100));
        let solid = "x".repeat(3000);
        let listed = |description: &str| {
            let source = vec![json!({"name": "a", "description": description})];
            let listing = Listing::read("s", source, false);
            let tool = &listing.tools[0];
            let schema: Value = serde_json::from_str(tool.schema.shown.get()).unwrap();
            let rest = schema["description"].as_str().unwrap_or_default();
            (tool.description.clone(), rest.to_owned())
        };
        for (description, glue) in [(words.trim(), " "), (&lines, "\n"), (&solid, "")] {
            let (first, rest) = listed(description);
            assert!(first.chars().count() <= 1024 && first.len() > 500);
            assert_eq!(format!("{first}{glue}{rest}"), description);
        }
        assert_eq!(listed("short"), ("short".to_owned(), String::new()));
        let (first, rest) = listed(&"y".repeat(50_000));
        assert_eq!(first.len() + rest.len(), MAX_DESCRIPTION_CHARS);
    }
}

//! What a write holds, as columns for `unnest`.

use chrono::{DateTime, Utc};

use super::record::{NewIteration, NewResult, count, number};
use crate::chat::ToolOutcome;
use crate::escape::{armour, armour_text, is_too_deep};

/// Results as columns, for `unnest`.
pub(super) struct Results<'a> {
    pub(super) iterations: Vec<i32>,
    pub(super) positions: Vec<i32>,
    pub(super) statuses: Vec<&'a str>,
    pub(super) texts: Vec<&'a str>,
    pub(super) bytes: Vec<i64>,
    /// JSON; none for an outcome that shows nothing.
    pub(super) media: Vec<Option<String>>,
    pub(super) started_at: Vec<DateTime<Utc>>,
    pub(super) finished_at: Vec<DateTime<Utc>>,
}

impl<'a> Results<'a> {
    pub(super) fn of(results: &'a [NewResult]) -> Self {
        Self {
            iterations: results
                .iter()
                .map(|result| number(result.iteration))
                .collect(),
            positions: results
                .iter()
                .map(|result| number(result.position))
                .collect(),
            statuses: results
                .iter()
                .map(|result| result.outcome.status.as_str())
                .collect(),
            texts: results
                .iter()
                .map(|result| result.outcome.text.as_str())
                .collect(),
            bytes: results
                .iter()
                .map(|result| count(result.outcome.bytes))
                .collect(),
            media: results
                .iter()
                .map(|result| media(&result.outcome))
                .collect(),
            started_at: results.iter().map(|result| result.started_at).collect(),
            finished_at: results.iter().map(|result| result.finished_at).collect(),
        }
    }
}

/// Calls as columns, for `unnest`.
#[derive(Default)]
pub(super) struct Calls<'a> {
    pub(super) ids: Vec<&'a str>,
    pub(super) names: Vec<&'a str>,
    pub(super) servers: Vec<Option<&'a str>>,
    pub(super) tools: Vec<&'a str>,
    pub(super) arguments: Vec<String>,
}

impl<'a> Calls<'a> {
    pub(super) fn of(iteration: Option<&NewIteration<'a>>) -> Self {
        let Some(iteration) = iteration else {
            return Self::default();
        };
        let calls = || iteration.answer.tool_calls.iter();
        Self {
            ids: calls().map(|call| call.call_id.as_str()).collect(),
            names: calls().map(|call| call.name.as_str()).collect(),
            servers: iteration
                .routes
                .iter()
                .map(|route| route.server.as_deref())
                .collect(),
            tools: iteration
                .routes
                .iter()
                .map(|route| route.tool.as_str())
                .collect(),
            arguments: calls().map(|call| as_json(&call.arguments)).collect(),
        }
    }
}

/// The arguments as the model wrote them, if that is JSON; else as a JSON string.
fn as_json(arguments: &str) -> String {
    let json = armour(arguments);
    match serde_json::from_str::<serde::de::IgnoredAny>(&json) {
        Ok(_) if !is_too_deep(&json) => json.into_owned(),
        Ok(_) | Err(_) => serde_json::Value::from(armour_text(arguments).as_ref()).to_string(),
    }
}

/// What an outcome shows, as it stands in its row.
fn media(outcome: &ToolOutcome) -> Option<String> {
    let shows = !outcome.media.is_empty();
    // Texts in a list: nothing that could fail.
    shows.then(|| serde_json::to_string(&outcome.media).ok())?
}

/// Places of calls as a column.
pub(super) fn places(places: Option<&[u32]>) -> Vec<i32> {
    let places = places.unwrap_or_default().iter();
    places.map(|place| number(*place)).collect()
}

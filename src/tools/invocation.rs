use serde_json::{Map, Value, json};

use super::catalogue::Offer;
use super::progress::ToolProgress;
use crate::clock::Deadline;
use crate::ids::{ConversationId, JobId, UserId};

/// How many names an unknown one is answered with.
const MAX_SUGGESTIONS: usize = 50;

/// One call as the model asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// The tool's name as the model says it.
    pub tool: &'a str,
    /// The arguments as the model wrote them.
    pub arguments: &'a str,
    /// On whose behalf.
    pub meta: CallMeta<'a>,
    /// When the call is given up; waiting for a free process counts.
    pub deadline: Deadline,
    /// Who is told how far the tool is.
    pub listener: Option<Listener<'a>>,
}

/// Somebody who is told how far a tool is, as often as the tool says so but at most ten times a
/// second. It must not block; what comes while it runs may be left out.
#[derive(Clone, Copy)]
pub struct Listener<'a>(pub &'a (dyn Fn(ToolProgress) + Sync));

impl std::fmt::Debug for Listener<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// On whose behalf a call is made; it goes to the server in `_meta`.
#[derive(Clone, Copy, Debug)]
pub struct CallMeta<'a> {
    /// The job.
    pub job_id: JobId,
    /// Its user.
    pub user_id: &'a UserId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// The same for every repeat of this call: `<job>/<iteration>/<position>`.
    pub idempotency_key: &'a str,
}

impl CallMeta<'_> {
    /// As it goes to the server.
    pub(super) fn to_json(self) -> Map<String, Value> {
        [
            ("chat-worker/jobId", json!(self.job_id)),
            ("chat-worker/userId", json!(self.user_id)),
            ("chat-worker/conversationId", json!(self.conversation_id)),
            ("chat-worker/idempotencyKey", json!(self.idempotency_key)),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

/// What a model is told that asks for a tool it was not offered.
pub(super) fn unknown_tool(offer: &Offer, name: &str) -> String {
    let specs = offer.specs();
    let name: String = name.chars().take(64).collect();
    if specs.is_empty() {
        return format!("There is no tool {name:?}: no tools are available.");
    }
    let names: Vec<_> = specs
        .iter()
        .map(|spec| &spec.name[..])
        .take(MAX_SUGGESTIONS)
        .collect();
    let more = if specs.len() > names.len() {
        ", and more"
    } else {
        ""
    };
    format!(
        "There is no tool {name:?}. Available: {}{more}.",
        names.join(", ")
    )
}

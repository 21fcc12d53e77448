//! What the demo says is so, and what of it is not.

use std::fmt::{self, Display, Formatter};

use serde_json::Value;

use crate::job::{ReadBack, Sent};
use crate::record::{Line, Stored};

/// Claims that were checked.
#[derive(Default)]
pub(crate) struct Claims {
    checked: usize,
    broken: Vec<String>,
}

impl Claims {
    /// Notes a claim; `otherwise` says what is not so.
    pub(crate) fn claim(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.broken.push(otherwise());
        }
    }

    /// What is not so.
    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }

    /// The transcript begins with the question, has the tool's answer after its call, and ends with
    /// the reply.
    pub(crate) fn about_transcript(
        &mut self,
        lines: &[Line],
        question: &str,
        expected: &str,
        stored: &Stored,
    ) {
        let roles: Vec<_> = lines.iter().map(|line| line.role.as_str()).collect();
        let tool = roles.iter().position(|role| *role == "tool");
        let called = roles.iter().position(|role| *role == "assistant");
        self.claim(
            matches!((called, tool), (Some(called), Some(tool)) if called < tool)
                && roles.first() == Some(&"user")
                && roles.last() == Some(&"assistant"),
            || {
                format!(
                    "the transcript goes user, assistant, tool, assistant, but it goes {roles:?}"
                )
            },
        );
        self.claim(
            lines.first().is_some_and(|line| line.content == question),
            || "the transcript begins with the question".to_owned(),
        );
        let said = lines.iter().filter(|line| line.role == "tool");
        self.claim(
            said.clone().any(|line| line.content.contains(expected)),
            || format!("a tool's line of the transcript says {expected}"),
        );
        self.claim(
            lines.last().map(|line| &line.content) == stored.reply.as_ref(),
            || "the transcript ends with the stored reply".to_owned(),
        );
    }

    /// The result is that of the job, successful, and has the answer.
    pub(crate) fn about_result(
        &mut self,
        read: &ReadBack,
        sent: &Sent,
        expected: &str,
        stored: &Stored,
    ) {
        let at = |pointer: &str| read.body.pointer(pointer).unwrap_or(&Value::Null).clone();
        let id = sent.id.to_string();
        let wanted = [
            ("/job_id", Value::from(id.clone())),
            ("/success", true.into()),
            ("/status", "completed".into()),
            ("/finish_reason", "answered".into()),
            ("/user_id", sent.user.into()),
            ("/iterations", stored.iterations.into()),
            ("/tool_calls", stored.tool_calls.into()),
            ("/message/content", stored.reply.clone().into()),
            ("/metadata", sent.metadata.clone()),
        ];
        for (pointer, value) in wanted {
            let found = at(pointer);
            self.claim(found == value, || {
                format!("the result has {value} at {pointer}, but it has {found}")
            });
        }
        let answer = at("/message/content");
        self.claim(
            answer.as_str().is_some_and(|text| text.contains(expected)),
            || format!("the answer contains {expected}, but it is {answer}"),
        );
        self.claim(read.kind == "chat.result" && read.message_id == id, || {
            format!(
                "the result's type is chat.result and its message_id {id}, but they are {} and {}",
                read.kind, read.message_id
            )
        });
        self.claim(read.correlation_id == sent.correlation_id, || {
            format!(
                "the result's correlation_id is {}, but it is {}",
                sent.correlation_id, read.correlation_id
            )
        });
    }
}

impl Display for Claims {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} claims checked", self.checked)
    }
}

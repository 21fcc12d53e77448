//! Calls that take several rounds: a server of 2026-07-28 that wants something of its client says so
//! in its result, and the call is made again with the answers (SEP-2322). Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::elicitation;
use crate::config::Elicitation;

/// The most rounds of one call.
pub(super) const MAX_ROUNDS: usize = 10;

/// What a result asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Round {
    /// Nothing: it is the result.
    Done,
    /// The call once more.
    Again {
        /// The answers to what was asked; none: nothing was.
        answers: Option<BTreeMap<String, Value>>,
        /// To be given back as it is.
        state: Option<String>,
    },
    /// Something that is not done here.
    Unfit(String),
}

/// Reads what `result` asks for.
pub(super) fn read(result: &Value, policy: Elicitation) -> Round {
    match result.get("resultType").and_then(Value::as_str) {
        None | Some("complete") => return Round::Done,
        Some("input_required") => {}
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            return Round::Unfit(format!(
                "The tool server answered with a result of the type {other:?}, which is not known here."
            ));
        }
    }
    let state = result.get("requestState").and_then(Value::as_str);
    let asked = result.get("inputRequests").and_then(Value::as_object);
    if asked.is_none() && state.is_none() {
        return Round::Unfit("The tool server wants something and does not say what.".to_owned());
    }
    let mut answers = BTreeMap::new();
    for (id, request) in asked.into_iter().flatten() {
        let nothing = Value::Null;
        let params = request.get("params").unwrap_or(&nothing);
        let answer = match request.get("method").and_then(Value::as_str) {
            Some("elicitation/create") => elicitation::answer(policy, params),
            Some("roots/list") => json!({"roots": []}),
            Some(_) | None => {
                return Round::Unfit(
                    "The tool server wants something of its client that is not offered here."
                        .to_owned(),
                );
            }
        };
        answers.insert(id.clone(), answer);
    }
    Round::Again {
        answers: asked.is_some().then_some(answers),
        state: state.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_result_is_the_end() {
        for result in [json!({"content": []}), json!({"resultType": "complete"})] {
            assert_eq!(read(&result, Elicitation::Decline), Round::Done);
        }
    }

    #[test]
    fn what_is_asked_is_answered_and_the_state_given_back() {
        let result = json!({"resultType": "input_required", "requestState": "s", "inputRequests": {
            "a": {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}},
            "b": {"method": "roots/list"}}});
        let answers = BTreeMap::from([
            ("a".to_owned(), json!({"action": "decline"})),
            ("b".to_owned(), json!({"roots": []})),
        ]);
        let again = Round::Again {
            answers: Some(answers),
            state: Some("s".to_owned()),
        };
        assert_eq!(read(&result, Elicitation::Decline), again);
        let later = json!({"resultType": "input_required", "requestState": "s"});
        let again = Round::Again {
            answers: None,
            state: Some("s".to_owned()),
        };
        assert_eq!(read(&later, Elicitation::Decline), again);
    }

    #[test]
    fn what_is_not_offered_ends_the_call() {
        let sampling = json!({"resultType": "input_required",
            "inputRequests": {"a": {"method": "sampling/createMessage", "params": {}}}});
        for result in [
            sampling,
            json!({"resultType": "task"}),
            json!({"resultType": "input_required"}),
        ] {
            assert!(matches!(
                read(&result, Elicitation::Defaults),
                Round::Unfit(_)
            ));
        }
    }
}

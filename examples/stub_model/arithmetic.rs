//! The script of demonstrations and benchmarks: a model that knows one thing, to let a tool add.

use serde_json::{Number, json};

use super::reply::{Reply, call};
use super::request::Chat;

/// Asks for the tool, tells its result, or says something friendly.
pub(super) fn reply(chat: &Chat<'_>) -> Reply {
    let turn = chat
        .messages
        .iter()
        .rposition(|message| message.role == "user");
    let (question, since) = match turn.and_then(|turn| chat.messages.get(turn..)) {
        Some([question, since @ ..]) => (question.text(), since),
        _ => return friendly(),
    };
    let result = since.iter().rev().find(|message| message.role == "tool");
    if let Some(result) = result {
        return Reply::text(format!("The answer is {}", result.text().trim()));
    }
    let may_call = chat
        .tool_choice
        .is_none_or(|choice| choice.get() != "\"none\"");
    let tools = chat.tools.iter().flatten();
    let add = tools
        .map(|tool| &tool.function.name)
        .find(|name| name.ends_with("add"));
    match (add, summands(&question)) {
        (Some(add), Some((a, b))) if may_call => {
            let call = call(add, &json!({"a": a, "b": b}));
            Reply::message(&json!({
                "role": "assistant", "content": null, "refusal": null, "tool_calls": [call],
            }))
        }
        _ => friendly(),
    }
}

fn friendly() -> Reply {
    Reply::text("Hello! Ask me for the sum of two numbers, such as: what is 20 plus 22?")
}

/// The numbers to the left and to the right of `plus`, `más` or `+`.
fn summands(question: &str) -> Option<(Number, Number)> {
    let (left, right) = ["plus", "más", "+"]
        .iter()
        .find_map(|word| question.split_once(word))?;
    let left = left.split_whitespace().next_back()?;
    let right = right.split_whitespace().next()?;
    Some((number(left)?, number(right)?))
}

fn number(word: &str) -> Option<Number> {
    let word = word.trim_matches(|char: char| !char.is_ascii_digit() && char != '-');
    match word.parse::<i64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => Number::from_f64(word.parse().ok()?),
    }
}

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::chat::{Content, Message, Role, ToolCall};

/// A tokenizer that likes short words.
fn count(text: &str) -> u64 {
    text.split_inclusive(' ')
        .map(|word| word.len().div_ceil(3) as u64)
        .sum()
}

fn user(text: &str) -> PromptMessage {
    PromptMessage::Given(Arc::new(Message {
        role: Role::User,
        content: Content::Text(text.to_owned()),
    }))
}

/// An answer with a call for each result, and the results.
fn round(results: &[usize]) -> Vec<PromptMessage> {
    let calls = (0..results.len()).map(|number| ToolCall {
        call_id: format!("c{number}"),
        name: "t".into(),
        arguments: "{}".into(),
    });
    let message = serde_json::value::to_raw_value("said").unwrap();
    let mut lines = vec![PromptMessage::Assistant {
        message: message.into(),
        tool_calls: calls.collect(),
        asked: None,
    }];
    lines.extend(
        results
            .iter()
            .enumerate()
            .map(|(number, bytes)| PromptMessage::Tool {
                call_id: format!("c{number}"),
                content: "r ".repeat(bytes / 2).into(),
                media: Arc::default(),
            }),
    );
    lines
}

fn draft(turns: &[(usize, Vec<usize>)], said: usize, rounds: &[Vec<usize>]) -> Draft {
    let turn = |(number, (bytes, results)): (usize, &(usize, Vec<usize>))| {
        let text = format!("turn {number} {}", "word ".repeat(bytes / 5));
        let mut lines = vec![user(&text)];
        lines.extend(round(results));
        Arc::new(Turn::new(lines))
    };
    Draft {
        head: vec![PromptMessage::System("the rules".into())],
        turns: turns.iter().enumerate().map(turn).collect(),
        said: vec![user(&"now ".repeat(said / 4))],
        rounds: rounds.iter().map(|results| round(results)).collect(),
    }
}

/// What a provider demands: every call is answered right after it, and nothing else is.
fn is_legal(lines: &[PromptMessage]) -> bool {
    let mut open: Vec<&str> = Vec::new();
    for line in lines {
        match line {
            PromptMessage::Tool { call_id, .. } => {
                let Some(at) = open.iter().position(|id| id == call_id) else {
                    return false;
                };
                open.remove(at);
            }
            PromptMessage::Assistant { tool_calls, .. } if open.is_empty() => {
                open = tool_calls
                    .iter()
                    .map(|call| call.call_id.as_str())
                    .collect();
            }
            PromptMessage::System(_) | PromptMessage::Given(_) if open.is_empty() => {}
            PromptMessage::System(_)
            | PromptMessage::Given(_)
            | PromptMessage::Assistant { .. } => {
                return false;
            }
        }
    }
    open.is_empty()
}

/// The turns that are there, by their numbers.
fn turns_in(lines: &[PromptMessage]) -> Vec<usize> {
    let number = |line: &PromptMessage| match line {
        PromptMessage::Given(message) => match &message.content {
            Content::Text(text) => text.strip_prefix("turn ")?.split(' ').next()?.parse().ok(),
            Content::Parts(_) => None,
        },
        PromptMessage::System(_) | PromptMessage::Assistant { .. } | PromptMessage::Tool { .. } => {
            None
        }
    };
    lines.iter().filter_map(number).collect()
}

#[test]
fn the_oldest_turns_are_left_out_first_and_whole() {
    let turns = vec![(400, vec![100]); 3];
    let whole = draft(&turns, 40, &[]);
    let weight = whole.weight(&count);
    assert_eq!(whole.clone().whole().len(), 1 + 3 * 3 + 1);
    let all = whole.clone().fit(weight, &count);
    assert_eq!(
        (all.turns_left_out, all.weight, all.is_trimmed),
        (0, weight, false)
    );
    let some = whole.clone().fit(weight - 1, &count);
    assert_eq!(
        (some.turns_left_out, turns_in(&some.messages)),
        (1, vec![1, 2])
    );
    let none = whole.fit(0, &count);
    assert_eq!(none.messages.len(), 2);
}

#[test]
fn a_job_that_is_too_long_by_itself_keeps_less_of_its_older_results() {
    let whole = draft(&[(40, vec![])], 40, &[vec![9000, 9000], vec![600]]);
    let fitted = whole.clone().fit(1500, &count);
    assert!(
        fitted.is_trimmed && fitted.weight <= 1500,
        "{}",
        fitted.weight
    );
    let lengths: Vec<_> = fitted
        .messages
        .iter()
        .filter_map(|line| match line {
            PromptMessage::Tool { content, .. } => Some(content.len()),
            PromptMessage::System(_)
            | PromptMessage::Given(_)
            | PromptMessage::Assistant { .. } => None,
        })
        .collect();
    assert_eq!(lengths.len(), 3);
    assert!(lengths[0] < 1100 && lengths[2] == 600, "{lengths:?}");
    assert!(is_legal(&fitted.messages));
    // Nothing is left that could be cut.
    let least = whole.clone().fit(0, &count).weight;
    assert_eq!(whole.fit(1, &count).weight, least);
}

proptest! {
    /// A prompt never passes its room, unless there is nothing left that may be cut.
    #[test]
    fn a_prompt_is_legal_and_fits(
        turns in proptest::collection::vec((0_usize..3000, proptest::collection::vec(0_usize..3000, 0..3)), 0..12),
        said in 0_usize..2000,
        rounds in proptest::collection::vec(proptest::collection::vec(0_usize..20_000, 0..3), 0..5),
        room in 0_u64..12_000,
    ) {
        let draft = draft(&turns, said, &rounds);
        let least = draft.clone().fit(0, &count).weight;
        prop_assert!(draft.weight(&count) <= draft.most());
        let fitted = draft.clone().fit(room, &count);
        prop_assert!(fitted.weight <= room.max(least));
        prop_assert_eq!(fitted.weight, super::weight(&fitted.messages, &count));
        prop_assert!(is_legal(&fitted.messages));
        // The rules stay, and the newest turns, all of them from one on.
        prop_assert!(matches!(&fitted.messages[0], PromptMessage::System(_)));
        let left: Vec<_> = (fitted.turns_left_out..turns.len()).collect();
        prop_assert_eq!(turns_in(&fitted.messages), left);
        // One turn more would not have fitted.
        if let Some(next) = fitted.turns_left_out.checked_sub(1) {
            let more = fitted.weight + draft.turns[next].weight(&count);
            prop_assert!(more > room);
        }
        // Where there is room for all, nothing is touched.
        if draft.weight(&count) <= room {
            prop_assert_eq!(fitted.messages.len(), draft.clone().whole().len());
            prop_assert!(!fitted.is_trimmed && fitted.turns_left_out == 0);
        }
    }
}

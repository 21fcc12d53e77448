use std::sync::Arc;

use super::*;
use crate::chat::{Answer, Message, OutcomeStatus, Stop, ToolCall, ToolOutcome, Usage};
use crate::conversation::PastRound;

fn job(json: &str) -> Job {
    crate::wire::decode(json.as_bytes(), 1 << 20).unwrap().0
}

fn said(role: Role, text: &str) -> Arc<Message> {
    Arc::new(Message {
        role,
        content: Content::Text(text.into()),
    })
}

fn round(text: &str, outcomes: Vec<Option<&str>>) -> PastRound {
    let tool_calls = outcomes.iter().enumerate().map(|(number, _)| ToolCall {
        call_id: format!("c{number}"),
        name: "t".into(),
        arguments: "{}".into(),
    });
    let message = format!(r#"{{"role":"assistant","content":"{text}"}}"#);
    PastRound {
        answer: Answer {
            message: Arc::from(serde_json::value::RawValue::from_string(message).unwrap()),
            content: Some(text.into()),
            refusal: None,
            stop: Stop::Done,
            finish_reason: None,
            tool_calls: tool_calls.collect(),
            usage: Usage::default(),
            model: None,
            asked: None,
            response_id: None,
        },
        outcomes: outcomes
            .into_iter()
            .map(|text| {
                text.map(|text| ToolOutcome {
                    status: OutcomeStatus::Succeeded,
                    text: text.into(),
                    bytes: 1,
                    media: Arc::default(),
                })
            })
            .collect(),
    }
}

fn lines(opening: &Opening) -> Vec<String> {
    let text = |line: &PromptMessage| match line {
        PromptMessage::System(text) => format!("rules {text}"),
        PromptMessage::Given(message) => format!("{:?} {:?}", message.role, message.content),
        PromptMessage::Assistant { tool_calls, .. } => format!("assistant {}", tool_calls.len()),
        PromptMessage::Tool {
            call_id, content, ..
        } => format!("tool {call_id} {content}"),
    };
    opening.lines.iter().map(text).collect()
}

#[test]
fn a_prompt_is_rules_then_earlier_turns_then_what_is_said_now() {
    let history = [PastTurn {
        messages: vec![said(Role::System, "be brief"), said(Role::User, "one")],
        rounds: vec![
            round("calling", vec![Some("5"), Some("6")]),
            round("unanswered", vec![None]),
            round("eleven", vec![]),
        ],
    }];
    let job = job(
        r#"{"user_id":"u","messages":[{"role":"user","content":"two"},{"role":"system","content":"be kind"}]}"#,
    );
    assert_eq!(
        lines(&Opening::new("rules", &history, &job, 100, None)),
        [
            "rules rules",
            r#"System Text("be kind")"#,
            r#"User Text("one")"#,
            "assistant 2",
            "tool c0 5",
            "tool c1 6",
            "assistant 0",
            r#"User Text("two")"#,
        ]
    );
}

#[test]
fn the_oldest_turns_are_left_out_first_and_whole() {
    let turn = |text: &str| PastTurn {
        messages: vec![said(Role::User, text)],
        rounds: vec![round("r", vec![Some("5")])],
    };
    let history = [turn("first"), turn("second"), turn("third")];
    let job = job(r#"{"user_id":"u","messages":[{"role":"user","content":"now"}]}"#);
    let all = lines(&Opening::new("", &history, &job, 100, Some(10_000)));
    assert_eq!(all.len(), 10);
    let some = lines(&Opening::new("", &history, &job, 100, Some(60)));
    assert_eq!(some.len(), 7, "{some:?}");
    assert!(some[0].contains("second"));
    let none = lines(&Opening::new("", &history, &job, 100, Some(1)));
    assert_eq!(none.len(), 1);
}

#[test]
fn the_model_sees_head_and_tail_of_a_long_result() {
    assert_eq!(model_view("short", 5), "short");
    let long = format!("head{}tail", "é".repeat(1_000));
    let seen = model_view(&long, 90);
    assert!(seen.starts_with("head") && seen.ends_with("tail"), "{seen}");
    assert!(seen.contains("of 2008 bytes left out"), "{seen}");
    assert!(seen.len() < 150);
}

#[test]
fn the_place_holders_of_the_system_prompt_are_filled_in() {
    let id = ConversationId(uuid::Uuid::nil());
    let text = system_prompt(
        "{user_id} {conversation_id} {date} {other}",
        "u",
        id,
        DateTime::UNIX_EPOCH,
    );
    assert_eq!(text, format!("u {id} 1970-01-01 {{other}}"));
}

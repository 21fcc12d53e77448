use std::sync::Arc;

use super::*;
use crate::chat::{Answer, Message, OutcomeStatus, Stop, ToolCall, ToolOutcome, Usage};
use crate::chat::{ImageUrl, Part};
use crate::conversation::weight::weight;
use crate::conversation::{Count, Limits, PastRound, PastTurn, Summary};

fn job(json: &str) -> Job {
    crate::wire::decode(json.as_bytes(), 1 << 20).unwrap().0
}

fn limits() -> Limits {
    Limits {
        max_iterations: 3,
        on_iteration_limit: crate::config::OnIterationLimit::Reply,
        total_tokens: None,
        tool_calls: None,
        cost: None,
        deadline: None,
        tool_choice: crate::chat::ToolChoice::Auto,
    }
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
            is_estimated: false,
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
    let conversation = Conversation::resume(limits(), []).unwrap();
    let lines = opening.with(&conversation).whole();
    lines.iter().map(text).collect()
}

#[test]
fn a_prompt_is_rules_then_earlier_turns_then_what_is_said_now() {
    let history = History {
        summary: None,
        turns: vec![PastTurn {
            number: 1,
            messages: vec![said(Role::System, "be brief"), said(Role::User, "one")],
            rounds: vec![
                round("calling", vec![Some("5"), Some("6")]),
                round("unanswered", vec![None]),
                round("eleven", vec![]),
            ],
        }],
    };
    let job = job(
        r#"{"user_id":"u","messages":[{"role":"user","content":"two"},{"role":"system","content":"be kind"}]}"#,
    );
    assert_eq!(
        lines(&Opening::new("rules", &history, &job, 100)),
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
fn a_summary_stands_after_the_configured_rules() {
    let history = History {
        summary: Some(Summary {
            up_to_turn: 7,
            content: "they met".into(),
        }),
        turns: vec![],
    };
    let job = job(
        r#"{"user_id":"u","messages":[{"role":"system","content":"be kind"},{"role":"user","content":"two"}]}"#,
    );
    assert_eq!(
        lines(&Opening::new("rules", &history, &job, 100)),
        [
            "rules rules",
            "rules Summary of the earlier conversation: they met",
            r#"System Text("be kind")"#,
            r#"User Text("two")"#,
        ]
    );
}

#[test]
fn what_is_to_be_summarised_is_told_in_plain_text_and_the_newest_turns_stay() {
    let turn = |number: u32, text: &str| PastTurn {
        number,
        messages: vec![said(Role::System, "be brief"), said(Role::User, text)],
        rounds: vec![round("calling", vec![Some("5")]), round("five", vec![])],
    };
    let history = History {
        summary: Some(Summary {
            up_to_turn: 3,
            content: "they met".into(),
        }),
        turns: vec![turn(4, "old"), turn(5, "older than now"), turn(6, "new")],
    };
    let of_a_turn = |turn: &PastTurn| weight(&turn.prompt(100), &|text| text.len() as u64);
    let window = 3 * of_a_turn(&history.turns[2]);
    let count: Count<'_> = &|text| text.len() as u64;
    let older = history.older(window, 100, count).unwrap();
    assert_eq!(older.up_to_turn, 5);
    for part in [
        "they met",
        "User: old\n",
        "Assistant: calling",
        "Tool t({}): 5",
        "Assistant: five",
    ] {
        assert!(older.text.contains(part), "{part}: {}", older.text);
    }
    assert!(!older.text.contains("be brief") && !older.text.contains("User: new"));
    assert_eq!(older.prompt().len(), 2);
    assert_eq!(history.older(100 * window, 100, count), None);
    assert!(history.older(0, 100, count).unwrap().text.len() < 100);
}

#[test]
fn the_newest_images_of_earlier_turns_are_kept_and_a_note_stands_for_the_rest() {
    let shown = |count: usize| {
        let image = || Part::ImageUrl {
            image_url: ImageUrl {
                url: "https://example.org/i.png".into(),
            },
        };
        Arc::new(Message {
            role: Role::User,
            content: Content::Parts((0..count).map(|_| image()).collect()),
        })
    };
    let turn = |number: u32, images: usize| PastTurn {
        number,
        messages: vec![shown(images)],
        rounds: vec![],
    };
    let history = History {
        summary: None,
        turns: vec![turn(1, 1), turn(2, 12), turn(3, 12)],
    };
    let mut job = job(r#"{"user_id":"u","messages":[{"role":"user","content":"x"}]}"#);
    let images = |job: &Job| -> Vec<_> {
        let lines = lines(&Opening::new("", &history, job, 100));
        lines
            .iter()
            .map(|line| line.matches("example.org").count())
            .collect()
    };
    assert_eq!(images(&job), [0, 0, 12, 0]);
    job.messages = vec![shown(9)];
    assert_eq!(images(&job), [0, 0, 0, 9]);
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

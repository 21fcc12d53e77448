use std::sync::Arc;

use chrono::DateTime;

use super::super::state::{Conversation, Entry};
use super::super::step::{Outcome, PendingCall, Step};
use super::super::{History, Limits, Opening};
use super::*;
use crate::chat::{Content, PromptMessage, Stop, ToolChoice, ToolOutcome, Usage};
use crate::config::OnIterationLimit;
use crate::fault::ErrorCode;
use crate::wire::FinishReason;

const LIMITS: Limits = Limits {
    max_iterations: 20,
    on_iteration_limit: OnIterationLimit::Reply,
    total_tokens: None,
    tool_calls: None,
    cost: None,
    deadline: None,
    tool_choice: ToolChoice::Auto,
};

fn says(content: Option<&str>) -> Entry {
    calls_of(content, &[])
}

fn calls(calls: &[(&str, &str)]) -> Entry {
    calls_of(None, calls)
}

fn calls_of(content: Option<&str>, calls: &[(&str, &str)]) -> Entry {
    let calls = calls
        .iter()
        .zip(1..)
        .map(|((name, arguments), number)| ToolCall {
            call_id: format!("call_{number}"),
            name: (*name).to_owned(),
            arguments: (*arguments).to_owned(),
        });
    let message = serde_json::value::to_raw_value(&serde_json::json!({"content": content}));
    Entry::Answered(Answer {
        message: Arc::from(message.unwrap()),
        content: content.map(str::to_owned),
        refusal: None,
        stop: Stop::Done,
        finish_reason: None,
        tool_calls: calls.collect(),
        usage: Usage::default(),
        is_estimated: false,
        model: None,
        asked: None,
        response_id: None,
    })
}

fn returned(position: u32, status: OutcomeStatus) -> Entry {
    let outcome = ToolOutcome {
        status,
        text: "so".into(),
        bytes: 2,
        media: Arc::default(),
    };
    Entry::Returned { position, outcome }
}

fn ok() -> Entry {
    returned(1, OutcomeStatus::Succeeded)
}

fn refused() -> Entry {
    returned(1, OutcomeStatus::Refused)
}

fn conversation(limits: Limits, log: Vec<Entry>) -> Conversation {
    Conversation::resume(limits, log).unwrap()
}

fn step(log: Vec<Entry>) -> Step {
    conversation(LIMITS, log).next_step(DateTime::UNIX_EPOCH)
}

fn pending(log: Vec<Entry>) -> Vec<PendingCall> {
    match step(log) {
        Step::CallTools(calls) => calls,
        other @ (Step::AskModel(_) | Step::AwaitApproval(_) | Step::Finish(_)) => {
            panic!("no calls: {other:?}")
        }
    }
}

fn answered(content: &str) -> Step {
    Step::Finish(Outcome::Completed {
        reason: FinishReason::Answered,
        content: Some(content.to_owned()),
        refusal: None,
    })
}

/// The last line of the prompt that follows.
fn last_line(log: Vec<Entry>) -> Option<(crate::chat::Role, String)> {
    let job = br#"{"user_id":"u","messages":[{"role":"user","content":"hi"}]}"#;
    let (job, _) = crate::wire::decode(job, 1000).unwrap();
    let opening = Opening::new("", &History::default(), &job, 100);
    let mut lines = opening.with(&conversation(LIMITS, log)).whole();
    match lines.pop()? {
        PromptMessage::Given(message) => match &message.content {
            Content::Text(text) => Some((message.role, text.clone())),
            Content::Parts(_) => None,
        },
        PromptMessage::System(_) | PromptMessage::Assistant { .. } | PromptMessage::Tool { .. } => {
            None
        }
    }
}

#[test]
fn an_empty_answer_is_asked_about_once_and_then_taken() {
    for nothing in [None, Some(""), Some(" \n")] {
        let log = vec![says(nothing)];
        assert!(matches!(step(log.clone()), Step::AskModel(ask) if ask.iteration == 2));
        let (role, text) = last_line(log.clone()).unwrap();
        assert_eq!(role, crate::chat::Role::User);
        assert!(text.contains("empty"), "{text}");
        let twice = [log, vec![says(nothing)]].concat();
        assert_eq!(step(twice.clone()), answered(nothing.unwrap_or_default()));
        let warnings = conversation(LIMITS, twice).warnings();
        assert_eq!(warnings, ["the model's answer was empty"]);
    }
}

#[test]
fn an_empty_answer_in_the_last_iteration_is_taken() {
    let limits = Limits {
        max_iterations: 1,
        ..LIMITS
    };
    let step = conversation(limits, vec![says(None)]).next_step(DateTime::UNIX_EPOCH);
    assert_eq!(step, answered(""));
}

#[test]
fn what_the_model_says_after_an_empty_answer_counts() {
    let log = vec![calls(&[("add", "{}")]), ok(), says(None), says(Some("5"))];
    assert_eq!(step(log.clone()), answered("5"));
    assert!(conversation(LIMITS, log).warnings().is_empty());
}

#[test]
fn an_answer_cut_off_before_its_first_word_says_why_it_is_empty() {
    let Entry::Answered(mut answer) = says(None) else {
        panic!("no answer");
    };
    answer.stop = Stop::Length;
    let log = vec![Entry::Answered(answer)];
    assert!(matches!(
        step(log.clone()),
        Step::Finish(Outcome::Completed {
            reason: FinishReason::Length,
            ..
        })
    ));
    let warnings = conversation(LIMITS, log).warnings();
    assert!(warnings[0].contains("max_output_tokens"), "{warnings:?}");
}

fn json(schema: &serde_json::Value) -> Option<Arc<crate::wire::ReplyFormat>> {
    let format = serde_json::json!({"response_format":
        {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}});
    let options = serde_json::from_value(format).unwrap();
    crate::wire::ReplyFormat::of(&options)
        .unwrap()
        .map(Arc::new)
}

fn step_of_numbers(most: u32, log: Vec<Entry>) -> (Step, Option<String>) {
    let limits = Limits {
        max_iterations: most,
        ..LIMITS
    };
    let conversation = conversation(limits, log);
    let conversation = conversation.expecting(json(&serde_json::json!({"type": "number"})));
    let told = conversation.rounds.last();
    let told = told.and_then(|round| conversation.told_after(round));
    (conversation.next_step(DateTime::UNIX_EPOCH), told)
}

fn code(step: Step) -> Option<ErrorCode> {
    match step {
        Step::Finish(Outcome::Failed(failure)) => Some(failure.code),
        Step::Finish(Outcome::Completed { .. } | Outcome::Cancelled(_))
        | Step::AskModel(_)
        | Step::CallTools(_)
        | Step::AwaitApproval(_) => None,
    }
}

#[test]
fn a_reply_that_is_not_what_was_asked_for_is_sent_back_once_with_the_reason() {
    let unfit = || says(Some("five"));
    let (next, told) = step_of_numbers(5, vec![unfit()]);
    assert!(matches!(next, Step::AskModel(ask) if ask.iteration == 2));
    assert!(told.unwrap().contains("no JSON"));
    assert_eq!(
        step_of_numbers(5, vec![unfit(), says(Some("5"))]).0,
        answered("5")
    );
    assert_eq!(
        code(step_of_numbers(5, vec![unfit(), says(Some("\"5\""))]).0),
        Some(ErrorCode::ModelProtocol)
    );
}

#[test]
fn an_unfit_reply_in_the_last_iteration_fails_the_job() {
    let (next, _) = step_of_numbers(1, vec![says(Some("five"))]);
    assert_eq!(code(next), Some(ErrorCode::ModelProtocol));
}

#[test]
fn an_empty_answer_and_an_unfit_one_are_each_sent_back_once() {
    let mut log = vec![says(None), says(Some("five"))];
    assert!(matches!(
        step_of_numbers(9, log.clone()).0,
        Step::AskModel(_)
    ));
    log.push(says(None));
    let (next, told) = step_of_numbers(9, log);
    assert_eq!(code(next), Some(ErrorCode::ModelProtocol));
    assert!(told.unwrap().contains("empty"));
}

#[test]
fn words_beside_calls_are_no_reply_yet() {
    let log = vec![calls_of(Some("let me see"), &[("add", "{}")]), ok()];
    let (next, told) = step_of_numbers(9, log);
    assert!(matches!(next, Step::AskModel(_)) && told.is_none());
}

#[test]
fn the_third_invalid_turn_in_a_row_fails_the_job() {
    let wrong = |name| vec![calls(&[(name, "{}")]), refused()];
    let log = [wrong("a"), wrong("b"), wrong("c")].concat();
    assert!(matches!(step(log[..4].to_vec()), Step::AskModel(_)));
    let Step::Finish(Outcome::Failed(failure)) = step(log) else {
        panic!("it goes on");
    };
    assert_eq!(failure.code, ErrorCode::ModelProtocol);
    assert!(failure.message.contains("\"c\""), "{failure}");
}

#[test]
fn one_call_that_was_made_makes_a_turn_valid() {
    let wrong = |name| vec![calls(&[(name, "{}")]), refused()];
    let half = vec![
        calls(&[("x", "{}"), ("add", "{}")]),
        refused(),
        returned(2, OutcomeStatus::Failed),
    ];
    let log = [wrong("a"), wrong("b"), half, wrong("c"), wrong("d")].concat();
    assert!(matches!(step(log), Step::AskModel(_)));
}

#[test]
fn the_same_call_in_three_turns_in_a_row_is_answered_and_then_the_job_stops() {
    // However the arguments are written.
    let add = |arguments| calls(&[("add", arguments)]);
    let mut log = vec![add(r#"{"a":1,"b":2}"#), ok(), add(r#"{"b": 2, "a": 1}"#)];
    assert_eq!(pending(log.clone())[0].barred, None);
    log.extend([ok(), add(r#"{"a":1,"b":2}"#)]);
    assert_eq!(pending(log.clone())[0].barred, Some(Barred::Repeated));
    let told = not_made(&pending(log.clone())[0].call, Barred::Repeated);
    assert!(told.contains("add was not made"), "{told}");
    log.push(refused());
    assert!(matches!(step(log.clone()), Step::AskModel(_)));
    let mut other = log.clone();
    log.push(add(r#"{"a":1,"b":2}"#));
    assert_eq!(
        step(log.clone()),
        Step::Finish(Outcome::unfinished(FinishReason::IterationLimit))
    );
    let warnings = conversation(LIMITS, log).warnings();
    assert!(warnings[0].contains("\"add\""), "{warnings:?}");
    other.push(add(r#"{"a":1,"b":3}"#));
    assert_eq!(pending(other)[0].barred, None);
}

#[test]
fn a_turn_that_also_asks_for_something_new_goes_on() {
    let turn = |number: u32| {
        let new = format!(r#"{{"n":{number}}}"#);
        vec![
            calls(&[("same", "{}"), ("new", &new)]),
            ok(),
            returned(2, OutcomeStatus::Succeeded),
        ]
    };
    let mut log: Vec<_> = (0..4).flat_map(turn).collect();
    log.push(calls(&[("same", "{}"), ("new", r#"{"n":9}"#)]));
    let flags: Vec<_> = pending(log)
        .iter()
        .map(|call| call.barred.is_some())
        .collect();
    assert_eq!(flags, [true, false]);
}

#[test]
fn the_same_call_twice_in_one_turn_is_no_repetition() {
    let twice = [("dice", "{}"); 4];
    let flags: Vec<_> = pending(vec![calls(&twice)])
        .iter()
        .map(|call| call.barred.is_some())
        .collect();
    assert_eq!(flags, [false; 4]);
}

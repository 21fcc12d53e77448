use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::chat::{OutcomeStatus, Stop};
use crate::cost::Cost;

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

fn limits() -> Limits {
    Limits {
        max_iterations: 3,
        on_iteration_limit: OnIterationLimit::Reply,
        total_tokens: None,
        tool_calls: None,
        cost: None,
        deadline: None,
        tool_choice: ToolChoice::Auto,
    }
}

fn answer(content: Option<&str>, calls: usize) -> Answer {
    let tool_calls = (1..=calls).map(|number| ToolCall {
        call_id: format!("call_{number}"),
        name: "add".into(),
        arguments: "{}".into(),
    });
    Answer {
        message: Arc::from(serde_json::value::RawValue::from_string("{}".into()).unwrap()),
        content: content.map(str::to_owned),
        refusal: None,
        stop: Stop::Done,
        finish_reason: None,
        tool_calls: tool_calls.collect(),
        usage: Usage {
            total_tokens: 10,
            ..Usage::default()
        },
        is_estimated: false,
        model: None,
        asked: None,
        response_id: None,
    }
}

fn returned(position: u32) -> Entry {
    let outcome = ToolOutcome {
        status: OutcomeStatus::Succeeded,
        text: "5".into(),
        bytes: 1,
        media: Arc::default(),
    };
    Entry::Returned { position, outcome }
}

fn denied(position: u32) -> Entry {
    let Entry::Returned { outcome, .. } = returned(position) else {
        panic!("no result");
    };
    let status = OutcomeStatus::Refused;
    let outcome = ToolOutcome { status, ..outcome };
    Entry::Returned { position, outcome }
}

fn step(limits: Limits, entries: Vec<Entry>) -> Step {
    Conversation::resume(limits, entries)
        .unwrap()
        .next_step(now())
}

fn asks(step: &Step) -> Option<Ask> {
    match step {
        Step::AskModel(ask) => Some(*ask),
        Step::CallTools(_) | Step::AwaitApproval(_) | Step::Finish(_) => None,
    }
}

fn positions(step: &Step) -> Vec<u32> {
    match step {
        Step::CallTools(calls) => calls.iter().map(|call| call.position).collect(),
        Step::AskModel(_) | Step::AwaitApproval(_) | Step::Finish(_) => Vec::new(),
    }
}

fn awaited(step: &Step) -> Vec<u32> {
    match step {
        Step::AwaitApproval(calls) => calls.iter().map(|call| call.position).collect(),
        Step::AskModel(_) | Step::CallTools(_) | Step::Finish(_) => Vec::new(),
    }
}

fn reason(step: &Step) -> Option<FinishReason> {
    match step {
        Step::Finish(Outcome::Completed { reason, .. }) => Some(*reason),
        Step::Finish(Outcome::Failed(_) | Outcome::Cancelled(_))
        | Step::AskModel(_)
        | Step::CallTools(_)
        | Step::AwaitApproval(_) => None,
    }
}

#[test]
fn a_job_asks_calls_asks_and_ends() {
    assert_eq!(asks(&step(limits(), vec![])).unwrap().iteration, 1);
    let called = vec![Entry::Answered(answer(None, 2))];
    assert_eq!(positions(&step(limits(), called.clone())), [1, 2]);
    let half = [called.clone(), vec![returned(2)]].concat();
    assert_eq!(positions(&step(limits(), half)), [1]);
    let whole = [called, vec![returned(2), returned(1)]].concat();
    assert_eq!(asks(&step(limits(), whole.clone())).unwrap().iteration, 2);
    let done = [whole, vec![Entry::Answered(answer(Some("5"), 0))]].concat();
    assert_eq!(reason(&step(limits(), done)), Some(FinishReason::Answered));
}

#[test]
fn after_the_last_iteration_the_tools_that_the_model_still_wants_are_not_called() {
    let limits = Limits {
        max_iterations: 1,
        ..limits()
    };
    let step = step(limits, vec![Entry::Answered(answer(Some("wait"), 1))]);
    assert_eq!(
        step,
        Step::Finish(Outcome::unfinished(FinishReason::IterationLimit))
    );
}

#[test]
fn with_the_answer_policy_the_last_iteration_has_no_tools_and_its_text_counts() {
    let limits = Limits {
        max_iterations: 1,
        on_iteration_limit: OnIterationLimit::Answer,
        ..limits()
    };
    assert_eq!(
        asks(&step(limits, vec![])).unwrap().tool_choice,
        ToolChoice::None
    );
    let text = step(limits, vec![Entry::Answered(answer(Some("so be it"), 1))]);
    assert_eq!(reason(&text), Some(FinishReason::Answered));
    let none = step(limits, vec![Entry::Answered(answer(None, 1))]);
    assert_eq!(reason(&none), Some(FinishReason::IterationLimit));
}

#[test]
fn calls_of_a_model_that_was_told_to_do_without_tools_are_not_made() {
    let limits = Limits {
        tool_choice: ToolChoice::None,
        ..limits()
    };
    let text = step(limits, vec![Entry::Answered(answer(Some("well"), 1))]);
    assert_eq!(reason(&text), Some(FinishReason::Answered));
    // Without words it is told so, and asked again for as long as there are rounds.
    let called = vec![Entry::Answered(answer(None, 1))];
    let Step::CallTools(calls) = step(limits, called.clone()) else {
        panic!("it is not told");
    };
    assert_eq!(calls[0].barred, Some(Barred::WithoutTools));
    let told = [called, vec![returned(1)]].concat();
    assert!(asks(&step(limits, told.clone())).is_some());
    let last = Limits {
        max_iterations: 2,
        ..limits
    };
    let again = [told, vec![Entry::Answered(answer(None, 1))]].concat();
    assert_eq!(
        reason(&step(last, again)),
        Some(FinishReason::IterationLimit)
    );
    // One that will not hear ends with what there is, and is no fault of the tools.
    let refusal = || {
        let Entry::Returned { position, outcome } = returned(1) else {
            panic!("no result");
        };
        let status = OutcomeStatus::Refused;
        let outcome = ToolOutcome { status, ..outcome };
        Entry::Returned { position, outcome }
    };
    let stubborn = (0..3).flat_map(|_| [Entry::Answered(answer(None, 1)), refusal()]);
    let many = Limits {
        max_iterations: 10,
        ..limits
    };
    let end = step(many, stubborn.collect());
    assert_eq!(reason(&end), Some(FinishReason::IterationLimit));
}

#[test]
fn required_tools_are_required_once() {
    let limits = Limits {
        tool_choice: ToolChoice::Required,
        ..limits()
    };
    assert_eq!(
        asks(&step(limits, vec![])).unwrap().tool_choice,
        ToolChoice::Required
    );
    let later = vec![Entry::Answered(answer(None, 1)), returned(1)];
    assert_eq!(
        asks(&step(limits, later)).unwrap().tool_choice,
        ToolChoice::Auto
    );
}

#[test]
fn a_budget_of_calls_is_spent_to_the_last_one_and_then_ends_the_job() {
    let limits = Limits {
        tool_calls: Some(1),
        ..limits()
    };
    let called = vec![Entry::Answered(answer(None, 2))];
    assert_eq!(positions(&step(limits, called.clone())), [1]);
    let spent = [called, vec![returned(1)]].concat();
    assert_eq!(reason(&step(limits, spent)), Some(FinishReason::Budget));
}

#[test]
fn a_budget_of_money_counts_answers_with_a_price_and_others_as_nothing() {
    let cent = Cost::from_usd(0.01).unwrap();
    let limits = Limits {
        cost: Some(cent),
        ..limits()
    };
    let after = |cost_usd| {
        let mut answer = answer(None, 1);
        answer.usage.cost_usd = cost_usd;
        let conversation = Conversation::resume(limits, vec![Entry::Answered(answer)]).unwrap();
        conversation.next_step(now())
    };
    assert!(matches!(after(None), Step::CallTools(_)));
    let less = Cost::from_usd(0.009).unwrap();
    assert!(matches!(after(Some(less)), Step::CallTools(_)));
    assert_eq!(
        after(Some(cent)),
        Step::Finish(Outcome::unfinished(FinishReason::Budget))
    );
}

#[test]
fn a_budget_of_tokens_is_looked_at_before_the_next_call_and_never_takes_an_answer_away() {
    let limits = Limits {
        total_tokens: Some(10),
        ..limits()
    };
    let called = vec![Entry::Answered(answer(None, 1))];
    assert_eq!(reason(&step(limits, called)), Some(FinishReason::Budget));
    let answered = vec![Entry::Answered(answer(Some("done"), 0))];
    assert_eq!(
        reason(&step(limits, answered)),
        Some(FinishReason::Answered)
    );
}

#[test]
fn a_deadline_that_has_passed_fails_the_job_unless_it_is_already_answered() {
    let limits = Limits {
        deadline: Some(now()),
        ..limits()
    };
    let Step::Finish(Outcome::Failed(failure)) = step(limits, vec![]) else {
        panic!("went on");
    };
    assert_eq!(failure.code, ErrorCode::DeadlineExceeded);
    let answered = vec![Entry::Answered(answer(Some("done"), 0))];
    assert_eq!(
        reason(&step(limits, answered)),
        Some(FinishReason::Answered)
    );
}

#[test]
fn what_stops_the_model_decides_how_the_job_ends() {
    let with = |stop, refusal: Option<&str>| {
        let mut answer = answer(Some("half"), 0);
        answer.stop = stop;
        answer.refusal = refusal.map(str::to_owned);
        step(limits(), vec![Entry::Answered(answer)])
    };
    assert_eq!(
        reason(&with(Stop::Length, None)),
        Some(FinishReason::Length)
    );
    assert_eq!(
        reason(&with(Stop::Done, Some("no"))),
        Some(FinishReason::Refused)
    );
    let Step::Finish(Outcome::Failed(failure)) = with(Stop::ContentFilter, None) else {
        panic!("not failed");
    };
    assert_eq!(failure.code, ErrorCode::ContentFiltered);
}

#[test]
fn calls_that_a_dead_run_began_are_open_until_they_return() {
    let mut log = vec![Entry::Answered(answer(None, 2)), returned(1)];
    let open = |log: &[Entry]| {
        let resumed = Conversation::resume(limits(), log.to_vec()).unwrap();
        resumed.has_interrupted_calls()
    };
    assert!(!open(&log));
    log.push(Entry::Interrupted {
        position: 2,
        server: None,
    });
    assert!(open(&log));
    log.push(returned(2));
    assert!(!open(&log));
}

#[test]
fn a_call_that_needs_a_persons_word_waits_until_the_others_are_done() {
    let log = vec![
        Entry::Answered(answer(None, 3)),
        Entry::Held { position: 1 },
        Entry::Held { position: 3 },
    ];
    assert_eq!(positions(&step(limits(), log.clone())), [2]);
    let rest_done = [log, vec![returned(2)]].concat();
    assert_eq!(awaited(&step(limits(), rest_done.clone())), [1, 3]);
    let one_denied = [rest_done, vec![denied(3)]].concat();
    assert_eq!(awaited(&step(limits(), one_denied.clone())), [1]);
    let approved = [one_denied, vec![Entry::Approved { position: 1 }]].concat();
    assert_eq!(positions(&step(limits(), approved.clone())), [1]);
    let whole = [approved, vec![returned(1)]].concat();
    assert_eq!(asks(&step(limits(), whole)).unwrap().iteration, 2);
}

#[test]
fn a_model_whose_calls_are_denied_is_not_taken_for_one_that_goes_wrong() {
    let turns = |ends: fn(u32) -> Entry, held| {
        let limits = Limits {
            max_iterations: 9,
            ..limits()
        };
        let log = (0..3).flat_map(|turn| {
            let mut answer = answer(None, 1);
            let asks = |call: &ToolCall| ToolCall {
                arguments: turn.to_string(),
                ..call.clone()
            };
            answer.tool_calls = answer.tool_calls.iter().map(asks).collect();
            let held = held_if(held);
            [vec![Entry::Answered(answer)], held, vec![ends(1)]].concat()
        });
        step(limits, log.collect())
    };
    assert!(matches!(turns(denied, false), Step::Finish(_)));
    assert!(asks(&turns(denied, true)).is_some());
}

fn held_if(held: bool) -> Vec<Entry> {
    if held {
        vec![Entry::Held { position: 1 }]
    } else {
        Vec::new()
    }
}

#[test]
fn nobody_is_asked_about_a_call_that_the_budget_does_not_reach() {
    let limits = Limits {
        tool_calls: Some(2),
        ..limits()
    };
    let log = vec![
        Entry::Answered(answer(None, 3)),
        Entry::Held { position: 1 },
        Entry::Held { position: 3 },
        returned(2),
    ];
    assert_eq!(awaited(&step(limits, log.clone())), [1]);
    let spent = [log, vec![returned(1)]].concat();
    assert_eq!(reason(&step(limits, spent)), Some(FinishReason::Budget));
}

#[test]
fn entries_that_cannot_follow_are_refused() {
    let resume = |entries: Vec<Entry>| Conversation::resume(limits(), entries).map(|_| ());
    let illegal = |position| Err(IllegalEntry::Outcome { position });
    assert_eq!(resume(vec![returned(1)]), illegal(1));
    assert_eq!(
        resume(vec![Entry::Answered(answer(None, 1)), returned(2)]),
        illegal(2)
    );
    assert_eq!(
        resume(vec![
            Entry::Answered(answer(None, 1)),
            returned(1),
            returned(1)
        ]),
        illegal(1)
    );
    assert_eq!(
        resume(vec![Entry::Answered(answer(None, 1)), returned(0)]),
        illegal(0)
    );
    let twice = vec![
        Entry::Answered(answer(None, 1)),
        Entry::Answered(answer(None, 0)),
    ];
    assert_eq!(resume(twice), Err(IllegalEntry::Answer));
}

/// What a run finds that goes on from `log` as the one before it left it: the calls that were under
/// way are marked.
fn step_after_a_death(limits: Limits, log: &[Entry], live: &Step) -> (Step, Step) {
    let mut log = log.to_vec();
    let mut expected = live.clone();
    if let Step::CallTools(calls) = &mut expected {
        for call in calls {
            let server = Some("calc".into());
            call.interrupted = Some(Interrupted {
                server: server.clone(),
            });
            call.approval = Approval::Given;
            let position = call.position;
            log.push(Entry::Interrupted { position, server });
        }
    }
    (step(limits, log), expected)
}

/// What the model does in a round.
#[derive(Clone, Debug)]
enum Does {
    Speaks,
    Keeps(&'static str),
    /// Calls tools with one of a few arguments; how they end.
    Calls(Vec<(u8, OutcomeStatus)>),
}

fn does() -> impl Strategy<Value = Does> {
    let status = proptest::sample::select(OutcomeStatus::ALL.to_vec());
    prop_oneof![
        1 => Just(Does::Speaks),
        2 => proptest::sample::select(vec!["", " "]).prop_map(Does::Keeps),
        5 => proptest::collection::vec((0_u8..2, status), 1..4).prop_map(Does::Calls),
    ]
}

fn answer_of(does: &Does) -> Answer {
    match does {
        Does::Speaks => answer(Some("text"), 0),
        Does::Keeps(silence) => answer(Some(silence), 0),
        Does::Calls(calls) => {
            let mut answer = answer(Some("text"), calls.len());
            let calls = answer.tool_calls.iter().zip(calls);
            let calls = calls.map(|(call, (argument, _))| ToolCall {
                arguments: argument.to_string(),
                ..call.clone()
            });
            answer.tool_calls = calls.collect();
            answer
        }
    }
}

/// What the calls that are pending come to.
fn returns(does: &Does, pending: &[PendingCall]) -> Vec<Entry> {
    let Does::Calls(calls) = does else {
        return Vec::new();
    };
    let returned = pending.iter().rev().map(|call| {
        let (_, status) = calls[call.position as usize - 1];
        let Entry::Returned { position, outcome } = returned(call.position) else {
            panic!("no result");
        };
        let outcome = ToolOutcome { status, ..outcome };
        Entry::Returned { position, outcome }
    });
    returned.collect()
}

proptest! {
    /// Law 1: from every prefix of every log, resuming asks for the same next step as the live run did.
    #[test]
    fn a_resumed_conversation_goes_on_as_the_live_one(
        rounds in proptest::collection::vec(does(), 0..9),
        most in 1_u32..9,
        tool_calls in proptest::option::of(0_u64..20),
        tokens in proptest::option::of(1_u64..100),
        held in proptest::collection::vec(0_u32..8, 9),
    ) {
        let limits = Limits { max_iterations: most, tool_calls, total_tokens: tokens, ..limits() };
        let mut live = Conversation::resume(limits, []).unwrap();
        let mut log = Vec::new();
        let mut wanted = rounds.into_iter();
        let mut now_does = Does::Speaks;
        // Entries of one step: the log may end between any two of them.
        let mut coming = std::collections::VecDeque::new();
        loop {
            let step = live.next_step(now());
            let resumed = Conversation::resume(limits, log.clone()).unwrap();
            prop_assert_eq!(&resumed.next_step(now()), &step);
            prop_assert_eq!(resumed.totals(), live.totals());
            prop_assert_eq!(resumed.warnings(), live.warnings());
            let (found, expected) = step_after_a_death(limits, &log, &step);
            prop_assert_eq!(found, expected);
            if coming.is_empty() {
                match step {
                    Step::Finish(_) => break,
                    Step::AskModel(_) => match wanted.next() {
                        Some(does) => {
                            now_does = does;
                            let answer = answer_of(&now_does);
                            let calls = u32::try_from(answer.tool_calls.len()).unwrap();
                            let mask = held[live.iterations() as usize];
                            coming.push_back(Entry::Answered(answer));
                            let held = (1..=calls).filter(|place| mask >> (place - 1) & 1 == 1);
                            coming.extend(held.map(|position| Entry::Held { position }));
                        }
                        None => break,
                    },
                    Step::CallTools(calls) => coming.extend(returns(&now_does, &calls)),
                    // Every other call is denied.
                    Step::AwaitApproval(calls) => coming.extend(calls.iter().map(|call| match call.position {
                        position if position % 2 == 0 => denied(position),
                        position => Entry::Approved { position },
                    })),
                }
            }
            let entry: Entry = coming.pop_front().unwrap();
            log.push(entry.clone());
            live = live.after(entry).unwrap();
        }
        prop_assert!(live.iterations() <= most);
    }
}

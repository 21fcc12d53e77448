//! Small scripts, in every order in which those who follow them may come to act.

use chat_worker::store::NewJob;
use chat_worker::wire::OnBusy;
use uuid::Uuid;

use crate::ground::{Ground, job_of};
use crate::world::{Deed, World};
use Deed::{
    Append, Cancel, Die, Finish, Ghosts, HandOver, Lose, Park, SignOff, SweepDead, SweepDue,
    SweepOver, Take, TimePasses, Wake, WakeSuspecting,
};

/// Every order of these deeds in which each actor's own stay in theirs.
fn orders(actors: &[&[Deed]]) -> Vec<Vec<Deed>> {
    if actors.iter().all(|deeds| deeds.is_empty()) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, deeds) in actors.iter().enumerate() {
        let Some((first, rest)) = deeds.split_first() else {
            continue;
        };
        let mut others = actors.to_vec();
        others[at] = rest;
        for mut order in orders(&others) {
            order.insert(0, *first);
            all.push(order);
        }
    }
    all
}

#[test]
fn every_order_is_tried_once() {
    let all = orders(&[
        &[Take(0, 0), Finish(0, 0)],
        &[Take(1, 0), Finish(1, 0)],
        &[SweepDead],
    ]);
    assert_eq!(all.len(), 30);
    assert!(all.iter().all(|order| order.len() == 5));
}

/// Jobs of one conversation, by what they do while it is busy.
async fn in_every_order(on_busy: &[OnBusy], before: &[Deed], actors: &[&[Deed]]) {
    Ground::run(async |ground| {
        for order in orders(actors) {
            let conversation = Uuid::now_v7();
            let jobs = on_busy.iter().map(|on_busy| NewJob {
                on_busy: *on_busy,
                ..job_of(conversation)
            });
            let mut world = World::new(ground, jobs.collect(), 3).await;
            for deed in before.iter().chain(&order) {
                world.does(*deed).await;
            }
            world.settle().await;
        }
    })
    .await;
}

const ONE: &[OnBusy] = &[OnBusy::Enqueue];
const TWO: &[OnBusy] = &[OnBusy::Enqueue; 2];
const THREE: &[OnBusy] = &[OnBusy::Enqueue; 3];

#[tokio::test]
async fn two_deliveries_and_a_wake_up_of_one_job() {
    let actors: &[&[Deed]] = &[
        &[Take(0, 0), Finish(0, 0)],
        &[Take(1, 0), Finish(1, 0)],
        &[Wake(2, 0), Append(2, 0)],
    ];
    in_every_order(ONE, &[], actors).await;
}

#[tokio::test]
async fn a_worker_that_dies_and_comes_back_while_others_take_its_job() {
    let actors: &[&[Deed]] = &[
        &[Die(0), Ghosts(0)],
        &[Wake(1, 0), Finish(1, 0)],
        &[SweepDead, SweepDue],
    ];
    in_every_order(ONE, &[Take(0, 0), Append(0, 0)], actors).await;
}

#[tokio::test]
async fn three_who_come_to_the_job_of_a_dead_worker() {
    let actors: &[&[Deed]] = &[
        &[SweepDead],
        &[Wake(1, 0)],
        &[WakeSuspecting(2, 0), Append(2, 0)],
        &[Take(0, 0)],
    ];
    in_every_order(ONE, &[Take(0, 0), Die(0)], actors).await;
}

#[tokio::test]
async fn a_worker_that_signs_off_and_those_that_go_on() {
    let actors: &[&[Deed]] = &[
        &[SignOff(0), Ghosts(0)],
        &[SweepDead],
        &[Wake(1, 0), Finish(1, 0)],
    ];
    in_every_order(ONE, &[Take(0, 0)], actors).await;
}

#[tokio::test]
async fn a_run_that_got_lost_within_its_worker() {
    let actors: &[&[Deed]] = &[
        &[Wake(0, 0), Finish(0, 0)],
        &[Wake(1, 0)],
        &[Take(2, 0)],
        &[Cancel(0)],
    ];
    in_every_order(ONE, &[Take(0, 0), Lose(0, 0)], actors).await;
}

#[tokio::test]
async fn two_turns_of_which_the_first_is_called_off() {
    let actors: &[&[Deed]] = &[
        &[Take(0, 0), Finish(0, 0)],
        &[Take(1, 1), Finish(1, 1)],
        &[Cancel(0), SweepOver],
    ];
    in_every_order(TWO, &[], actors).await;
}

#[tokio::test]
async fn three_turns_of_which_the_one_in_the_middle_is_called_off() {
    let actors: &[&[Deed]] = &[
        &[Finish(0, 0)],
        &[Cancel(1), SweepOver],
        &[Wake(1, 1), Finish(1, 1)],
        &[Wake(1, 2)],
    ];
    in_every_order(THREE, &[Take(0, 0), Take(0, 1), Take(0, 2)], actors).await;
}

#[tokio::test]
async fn a_turn_that_is_parked_and_called_off_before_another() {
    let actors: &[&[Deed]] = &[
        &[Park(0, 0)],
        &[TimePasses, SweepDue],
        &[Wake(1, 0), Finish(1, 0)],
        &[Cancel(0)],
    ];
    in_every_order(TWO, &[Take(0, 0), Take(1, 1)], actors).await;
}

#[tokio::test]
async fn a_turn_that_is_handed_over_while_the_next_one_comes() {
    let actors: &[&[Deed]] = &[
        &[HandOver(0, 0)],
        &[Take(1, 1), Finish(1, 1)],
        &[Wake(2, 0), Finish(2, 0)],
        &[SweepDue],
    ];
    in_every_order(TWO, &[], actors).await;
}

#[tokio::test]
async fn a_turn_that_interrupts_one_that_ends() {
    let jobs = [OnBusy::Enqueue, OnBusy::Interrupt];
    let actors: &[&[Deed]] = &[
        &[Take(0, 0), Finish(0, 0)],
        &[Take(1, 1), Finish(1, 1)],
        &[SweepOver],
    ];
    in_every_order(&jobs, &[], actors).await;
}

#[tokio::test]
async fn a_turn_that_interrupts_one_whose_worker_died_and_one_that_would_not_wait() {
    let jobs = [OnBusy::Enqueue, OnBusy::Interrupt, OnBusy::Reject];
    let actors: &[&[Deed]] = &[
        &[Take(1, 1), Finish(1, 1)],
        &[Take(2, 2)],
        &[SweepDead, SweepOver],
    ];
    in_every_order(&jobs, &[Take(0, 0), Die(0)], actors).await;
}

//! Long stories at random, each from a seed of its own.

use chat_worker::store::NewJob;
use chat_worker::wire::OnBusy;
use chrono::{DateTime, Utc};
use fastrand::Rng;
use uuid::Uuid;

use crate::ground::{Ground, job_of};
use crate::world::{Deed, World};

const WORKERS: usize = 3;
const DEEDS: usize = 30;

/// Three jobs of one conversation and one of another.
fn jobs(random: &mut Rng) -> Vec<NewJob<'static>> {
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let far: DateTime<Utc> = "2999-01-01T00:00:00Z".parse().unwrap();
    [one, one, one, other]
        .map(|conversation| NewJob {
            on_busy: match random.u8(..8) {
                0 => OnBusy::Reject,
                1 => OnBusy::Interrupt,
                _ => OnBusy::Enqueue,
            },
            not_before: (random.u8(..5) == 0).then_some(far),
            ..job_of(conversation)
        })
        .into()
}

fn deed(random: &mut Rng, jobs: usize) -> Deed {
    let (worker, job) = (random.usize(..WORKERS), random.usize(..jobs));
    match random.u8(..40) {
        0..8 => Deed::Take(worker, job),
        8..10 => Deed::HandOver(worker, job),
        10..15 => Deed::Wake(worker, job),
        15 => Deed::WakeSuspecting(worker, job),
        16..19 => Deed::Append(worker, job),
        19..22 => Deed::Finish(worker, job),
        22..24 => Deed::Park(worker, job),
        24 => Deed::GiveBack(worker, job),
        25 => Deed::CloseRun(worker, job),
        26 => Deed::Lose(worker, job),
        27..29 => Deed::Die(worker),
        29 => Deed::SignOff(worker),
        30 => Deed::Ghosts(job),
        31..33 => Deed::Cancel(job),
        33 => Deed::SweepDead,
        34 => Deed::SweepOver,
        35..37 => Deed::SweepDue,
        37 => Deed::SweepStranded,
        _ => Deed::TimePasses,
    }
}

async fn walks(seeds: std::ops::Range<u64>) {
    Ground::run(async |ground| {
        for seed in seeds {
            let mut random = Rng::with_seed(seed);
            let jobs = jobs(&mut random);
            let mut world = World::new(ground, jobs, WORKERS).await;
            world.tell(format!("seed {seed}")).await;
            for _ in 0..DEEDS {
                let jobs = world.jobs.len();
                world.does(deed(&mut random, jobs)).await;
            }
            world.settle().await;
        }
    })
    .await;
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_the_laws_hold_and_all_jobs_end() {
    walks(0..60).await;
}

#[tokio::test]
async fn and_so_they_do_in_another_hundred_stories() {
    walks(1000..1060).await;
}

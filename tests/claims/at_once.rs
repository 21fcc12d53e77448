//! Deeds that truly happen at once, on connections of their own.

use std::collections::HashSet;
use std::time::Duration;

use chat_worker::store::{
    Cancelled, Claimant, Claimed, Finished, NewJob, Run, StoreError, Wants, Written,
};
use chat_worker::wire::OnBusy;
use fastrand::Rng;
use futures_util::future::{BoxFuture, join_all};
use uuid::Uuid;

use crate::ground::{Ground, claimant, job_of};
use crate::world::{Deed, World, failure, finish, store_answer};

const MANY: u32 = 1000;

/// What came of something that was done at once with other things.
enum Came {
    /// A run.
    Run(Run),
    /// A run is over, or was already.
    Over(Run),
    Nothing,
}

type Doing<'a> = BoxFuture<'a, Result<Came, StoreError>>;

fn of(claimed: Claimed) -> Came {
    if let Claimed::Run(claimed) = claimed {
        Came::Run(claimed.run)
    } else {
        Came::Nothing
    }
}

fn claim<'a>(ground: &'a Ground, job: NewJob<'a>, claimant: Claimant<'static>) -> Doing<'a> {
    Box::pin(async move { Ok(of(ground.store.claim(&job, claimant).await?)) })
}

fn wake<'a>(ground: &'a Ground, job: &NewJob<'_>, claimant: Claimant<'static>) -> Doing<'a> {
    let id = job.id;
    Box::pin(async move {
        let claimed = ground.store.claim_known(id, claimant).await?;
        Ok(claimed.map_or(Came::Nothing, of))
    })
}

/// What the owner of a run does next.
fn go_on(ground: &Ground, run: Run, what: u8) -> Doing<'_> {
    Box::pin(async move {
        match what {
            0 => {
                let finished = finish(ground, &run).await;
                assert_ne!(finished, Finished::Fenced, "{run:?} is alive");
            }
            1 => {
                let parked = ground
                    .store
                    .park(&run, Duration::ZERO, &failure(), 1)
                    .await?;
                assert_eq!(parked, Written::Stored, "{run:?} is alive");
            }
            2 => {
                let next = ground.store.give_back(&run, 1).await?;
                assert!(next.is_some(), "{run:?} is alive");
            }
            _ => {
                store_answer(ground, &run, 1).await;
                return Ok(Came::Nothing);
            }
        }
        Ok(Came::Over(run))
    })
}

fn sweep(ground: &Ground, what: u8) -> Doing<'_> {
    let store = &ground.store;
    Box::pin(async move {
        match what {
            0 => drop(store.take_from_the_dead(MANY).await?),
            1 => drop(store.dispatch_due(MANY).await?),
            2 => drop(store.dispatch_stranded(MANY).await?),
            3 => store.apply_kept_cancels().await?,
            _ => {
                for job in store.find_over(MANY).await? {
                    store.close_over(job).await?;
                }
            }
        }
        Ok(Came::Nothing)
    })
}

/// Does all of it at once, and sees that every law holds after it.
async fn at_once(world: &mut World<'_>, what: String, doing: Vec<Doing<'_>>) -> usize {
    let came = join_all(doing).await;
    let mut runs = 0;
    for came in came {
        match came.unwrap_or_else(|error| panic!("{what}: {error}\n{}", world.story())) {
            Came::Run(run) => {
                runs += 1;
                world.adopt(run);
            }
            Came::Over(run) => world.let_go(&run),
            Came::Nothing => {}
        }
    }
    world.tell(what).await;
    runs
}

fn jobs(count: usize) -> Vec<NewJob<'static>> {
    let conversation = Uuid::now_v7();
    (0..count).map(|_| job_of(conversation)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_who_claim_jobs_of_a_conversation_in_any_way_one_runs_one() {
    Ground::run(async |ground| {
        for round in 0..15 {
            let mut world = World::new(ground, jobs(3), 4).await;
            let mut doing = Vec::new();
            for worker in 0..4 {
                for job in world.jobs.clone() {
                    let wants = if (round + worker) % 4 == 3 {
                        Wants::ToHandOver
                    } else {
                        Wants::ToRun
                    };
                    let claimant = Claimant {
                        wants,
                        ..world.claimant(worker, job.id)
                    };
                    doing.push(claim(ground, job, claimant));
                }
            }
            let runs = at_once(&mut world, format!("round {round}"), doing).await;
            assert!(runs <= 1, "{runs} run at once");
            world.settle().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_who_come_to_a_dead_workers_jobs_one_takes_each_and_one_death_is_counted() {
    Ground::run(async |ground| {
        for round in 0..15 {
            let mut jobs = jobs(2);
            jobs.extend((0..2).map(|_| job_of(Uuid::now_v7())));
            let mut world = World::new(ground, jobs, 4).await;
            for job in 0..4 {
                world.does(Deed::Take(0, job)).await;
            }
            world.does(Deed::Die(0)).await;
            let mut doing = vec![sweep(ground, 0), sweep(ground, 0), sweep(ground, 1)];
            for worker in 0..4 {
                for job in &world.jobs {
                    doing.push(wake(ground, job, world.claimant(worker, job.id)));
                }
            }
            let runs = at_once(&mut world, format!("round {round}"), doing).await;
            assert!(runs <= 3, "{runs} run at once");
            for row in world.rows().await {
                let died = u8::from(row.turn != Some(2));
                assert_eq!(row.failures, i32::from(died), "{row:?}");
            }
            world.settle().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_while_all_come_to_its_conversation_leaves_nothing_behind() {
    Ground::run(async |ground| {
        for round in 0..30 {
            let mut world = World::new(ground, jobs(4), 3).await;
            world.does(Deed::Take(0, 0)).await;
            world.does(Deed::Take(1, 1)).await;
            let run = world.in_hand()[0];
            let what = u8::try_from(round % 4).unwrap();
            let mut doing = vec![go_on(ground, run, what), sweep(ground, 4), sweep(ground, 2)];
            for (worker, job) in [(0, 1), (1, 2), (2, 3), (2, 1)] {
                let new = world.jobs[job];
                doing.push(claim(ground, new, world.claimant(worker, new.id)));
            }
            let called_off = world.jobs[round % 3].id;
            doing.push(Box::pin(async move {
                let cancelling = ground.store.request_cancel(called_off, None, None);
                cancelling.await.map(|_| Came::Nothing)
            }));
            let runs = at_once(&mut world, format!("round {round}"), doing).await;
            assert!(runs <= 1, "{runs} run at once");
            world.settle().await;
        }
    })
    .await;
}

/// Everything at once, again and again, from a seed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_breaks_no_law_and_leaves_no_job_behind() {
    Ground::run(async |ground| {
        for seed in 0..40 {
            let mut random = Rng::with_seed(seed);
            let mut all = jobs(4);
            all[2].on_busy = OnBusy::Interrupt;
            all[3].on_busy = OnBusy::Reject;
            all.extend(jobs(2));
            let mut world = World::new(ground, all, 3).await;
            for round in 0..4 {
                if random.bool() {
                    world.does(Deed::Die(random.usize(..3))).await;
                }
                if random.bool() {
                    world.does(Deed::TimePasses).await;
                }
                let mut doing: Vec<_> = world
                    .in_hand()
                    .into_iter()
                    .map(|run| go_on(ground, run, random.u8(..4)))
                    .collect();
                doing.extend((0..5).map(|what| sweep(ground, what)));
                for worker in 0..3 {
                    for job in &world.jobs {
                        let claimant = world.claimant(worker, job.id);
                        match random.u8(..4) {
                            0 => doing.push(claim(ground, *job, claimant)),
                            1 => doing.push(wake(ground, job, claimant)),
                            _ => {}
                        }
                    }
                }
                let what = format!("seed {seed}, round {round}");
                at_once(&mut world, what, doing).await;
            }
            world.settle().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_meets_its_job_on_the_way_in_is_not_lost() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        let mut outcomes = HashSet::new();
        for _ in 0..100 {
            let job = job_of(Uuid::now_v7());
            let (cancelled, claimed) = tokio::join!(
                ground.store.request_cancel(job.id, Some("why"), None),
                ground.store.claim(&job, claimant(worker)),
            );
            let (cancelled, claimed) = (cancelled.unwrap(), claimed.unwrap());
            ground.store.apply_kept_cancels().await.unwrap();
            // It is told to its worker, or was kept and is by now.
            if let Claimed::Run(claimed) = &claimed {
                let finished = finish(ground, &claimed.run).await;
                assert!(matches!(finished, Finished::Ended { .. }));
            } else {
                assert!(matches!(claimed, Claimed::Closed(_)), "{claimed:?}");
            }
            let status = format!("SELECT status::text FROM chat.jobs WHERE id = '{}'", job.id);
            assert_eq!(
                ground.texts(&status).await,
                [r#"{"status":"cancelled"}"#],
                "{cancelled:?}"
            );
            outcomes.insert(format!("{cancelled:?}"));
        }
        assert!(!outcomes.contains("Finished"), "{outcomes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_meets_the_end_of_its_job_says_who_was_first() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        for _ in 0..100 {
            let job = job_of(Uuid::now_v7());
            let Claimed::Run(claimed) = ground.claim(&job, worker).await else {
                panic!("it is not to run");
            };
            let (cancelled, finished) = tokio::join!(
                ground.store.request_cancel(job.id, None, None),
                finish(ground, &claimed.run),
            );
            assert!(matches!(finished, Finished::Ended { .. }), "{finished:?}");
            let cancelled = cancelled.unwrap();
            assert!(
                matches!(cancelled, Cancelled::Requested | Cancelled::Finished),
                "{cancelled:?}"
            );
            let status = if cancelled == Cancelled::Requested {
                "cancelled"
            } else {
                "completed"
            };
            let row = format!("SELECT status::text FROM chat.jobs WHERE id = '{}'", job.id);
            assert_eq!(
                ground.texts(&row).await,
                [format!("{{\"status\":\"{status}\"}}")]
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_who_stand_for_sweeper_one_is_elected_and_keeps_the_office() {
    Ground::run(async |ground| {
        // The row that a worker writes at its start.
        ground.store.claim_prefix("chat").await.unwrap();
        let workers = join_all((0..8).map(|_| ground.worker())).await;
        let stand = async || {
            let standing = workers
                .iter()
                .map(|worker| ground.store.stand_for_sweeper(*worker));
            let elected: Vec<_> = join_all(standing)
                .await
                .into_iter()
                .map(Result::unwrap)
                .collect();
            assert_eq!(elected.iter().filter(|elected| **elected).count(), 1);
            elected.iter().position(|elected| *elected)
        };
        let first = stand().await;
        for _ in 0..10 {
            assert_eq!(stand().await, first);
        }
        ground
            .sql("UPDATE chat.installation SET swept_until = now() - interval '1 ms'")
            .await;
        stand().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_that_are_due_are_leased_to_one_of_all_who_ask() {
    Ground::run(async |ground| {
        let worker = ground.worker().await;
        for _ in 0..60 {
            let Claimed::Run(claimed) = ground.claim(&job_of(Uuid::now_v7()), worker).await else {
                panic!("it is not to run");
            };
            finish(ground, &claimed.run).await;
        }
        assert!(
            ground
                .store
                .lease_unpublished(MANY)
                .await
                .unwrap()
                .is_empty(),
            "they are not due"
        );
        ground
            .sql("UPDATE chat.jobs SET publish_due_at = now()")
            .await;
        let asked = join_all((0..6).map(|_| ground.store.lease_unpublished(25))).await;
        let leased: Vec<_> = asked.into_iter().flat_map(Result::unwrap).collect();
        let jobs: HashSet<_> = leased.iter().map(|stored| stored.result.job_id).collect();
        assert_eq!((leased.len(), jobs.len()), (60, 60));
        assert!(
            ground
                .store
                .lease_unpublished(MANY)
                .await
                .unwrap()
                .is_empty()
        );
    })
    .await;
}

//! The database goes away.

use crate::hundred::{JOBS, hundred_jobs};
use crate::victims::{pg_ctl, terminate_backends};

#[tokio::test]
async fn a_hundred_jobs_outlive_every_connection_to_the_database_five_times() {
    hundred_jobs(async |jobs| {
        let each = 2 * JOBS / 5;
        for outage in 1..=5 {
            // Some answers come to connections that are dead, and the next outage only when they
            // are stored.
            jobs.let_answer(each / 2);
            terminate_backends().await;
            jobs.let_answer(each / 2);
            jobs.stored(outage * each).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_hundred_jobs_outlive_a_database_that_is_stopped_and_started() {
    hundred_jobs(async |jobs| {
        jobs.let_answer(JOBS / 2);
        pg_ctl(&["stop", "-m", "fast"]).await;
        jobs.let_answer(JOBS / 2);
        jobs.all_answered().await;
        pg_ctl(&["start"]).await;
        jobs.stored(JOBS).await;
        jobs.let_answer(JOBS);
    })
    .await;
}

#[tokio::test]
async fn a_hundred_jobs_outlive_a_database_that_breaks_down() {
    hundred_jobs(async |jobs| {
        jobs.let_answer(JOBS);
        jobs.stored(JOBS).await;
        pg_ctl(&["stop", "-m", "immediate"]).await;
        jobs.let_answer(JOBS);
        jobs.all_answered().await;
        pg_ctl(&["start"]).await;
    })
    .await;
}

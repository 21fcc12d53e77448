//! The broker goes away.

use crate::hundred::{JOBS, hundred_jobs};
use crate::victims::rabbitmqctl;

#[tokio::test]
async fn a_hundred_jobs_end_while_the_broker_is_away_and_are_answered_when_it_is_back() {
    hundred_jobs(async |jobs| {
        rabbitmqctl(&["stop_app"]).await;
        jobs.let_answer(JOBS);
        jobs.stored(JOBS).await;
        jobs.let_answer(JOBS);
        jobs.ended().await;
        rabbitmqctl(&["start_app"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_hundred_jobs_outlive_every_connection_to_the_broker_twice() {
    hundred_jobs(async |jobs| {
        jobs.let_answer(JOBS / 2);
        rabbitmqctl(&["close_all_connections", "an outage"]).await;
        jobs.let_answer(JOBS / 2);
        jobs.stored(JOBS).await;
        jobs.let_answer(JOBS / 2);
        rabbitmqctl(&["close_all_connections", "another outage"]).await;
        jobs.let_answer(JOBS / 2);
    })
    .await;
}

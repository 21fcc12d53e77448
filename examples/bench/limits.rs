//! What the machine's own services can do at most, to compare with.

use std::time::{Duration, Instant};

use lapin::options::{ConfirmSelectOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Channel};
use serde::Serialize;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::task::JoinSet;

use crate::Arguments;
use crate::load::{Pipeline, confirmed, declare, publish};
use crate::stage::Ground;

const TIME: Duration = Duration::from_secs(3);
const BYTES: usize = 1024;
/// Connections that are left to others.
const SPARE: i64 = 10;

/// The most that the services do.
#[derive(Serialize)]
pub(crate) struct Limits {
    /// Confirmed publishes of 1 KiB to a quorum queue a second, pipelined.
    pub(crate) publishes_per_s: f64,
    /// The same, one by one.
    pub(crate) single_publishes_per_s: f64,
    /// Inserts of 1 KiB a second, each a commit.
    pub(crate) commits_per_s: f64,
    /// Over so many connections.
    pub(crate) commit_connections: usize,
    /// The same over one connection.
    pub(crate) single_commits_per_s: f64,
}

/// Measures them, with nothing else running.
pub(crate) async fn measure(arguments: &Arguments, ground: &Ground) -> anyhow::Result<Limits> {
    let queue = ground.name("limit");
    let channel = ground.broker.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    declare(&channel, &queue, &[]).await?;
    let single_publishes_per_s = publish_singly(&channel, &queue).await?;
    let publishes_per_s = publish_pipelined(&channel, &queue).await?;
    channel
        .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
        .await?;
    channel.close(200, "done".into()).await?;

    sqlx::raw_sql(
        "CREATE TABLE commits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text)",
    )
    .execute(&ground.pool)
    .await?;
    let most: i64 = sqlx::query_scalar("SELECT current_setting('max_connections')::bigint")
        .fetch_one(&ground.pool)
        .await?;
    let most = usize::try_from((most - SPARE).max(1))?;
    let commit_connections = (arguments.concurrency * arguments.replicas).min(most);
    let limits = Limits {
        publishes_per_s,
        single_publishes_per_s,
        single_commits_per_s: commit(ground, 1).await?,
        commits_per_s: commit(ground, commit_connections).await?,
        commit_connections,
    };
    sqlx::raw_sql("DROP TABLE commits")
        .execute(&ground.pool)
        .await?;
    Ok(limits)
}

async fn publish_pipelined(channel: &Channel, queue: &str) -> anyhow::Result<f64> {
    let (body, begin) = (vec![b'x'; BYTES], Instant::now());
    let (mut pipeline, mut count) = (Pipeline::default(), 0.0);
    while begin.elapsed() < TIME {
        let sent = publish(channel, queue, &body, persistent()).await?;
        pipeline.push(sent).await?;
        count += 1.0;
    }
    pipeline.finish().await?;
    Ok(count / begin.elapsed().as_secs_f64())
}

async fn publish_singly(channel: &Channel, queue: &str) -> anyhow::Result<f64> {
    let (body, begin) = (vec![b'x'; BYTES], Instant::now());
    let mut count = 0.0;
    while begin.elapsed() < TIME {
        confirmed(publish(channel, queue, &body, persistent()).await?).await?;
        count += 1.0;
    }
    Ok(count / begin.elapsed().as_secs_f64())
}

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

async fn commit(ground: &Ground, connections: usize) -> anyhow::Result<f64> {
    let pool = PgPoolOptions::new()
        .max_connections(u32::try_from(connections)?)
        .min_connections(u32::try_from(connections)?)
        .connect(&ground.database_url)
        .await?;
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(insert_until(pool.clone(), begin + TIME));
    }
    let mut count = 0.0;
    while let Some(inserted) = tasks.join_next().await {
        count += inserted??;
    }
    let rate = count / begin.elapsed().as_secs_f64();
    pool.close().await;
    Ok(rate)
}

async fn insert_until(pool: PgPool, end: Instant) -> sqlx::Result<f64> {
    let body = "x".repeat(BYTES);
    let mut connection = pool.acquire().await?;
    let mut count = 0.0;
    while Instant::now() < end {
        sqlx::query("INSERT INTO commits (body) VALUES ($1)")
            .bind(&body)
            .execute(&mut *connection)
            .await?;
        count += 1.0;
    }
    Ok(count)
}

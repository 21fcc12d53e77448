//! How much memory a job in hand takes.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Serialize;
use tokio::time::sleep;

use crate::Arguments;
use crate::load::Load;
use crate::progress::shown;
use crate::round::{SETTLE, settings};
use crate::stage::{Ground, Model, Worker};
use crate::usage;

const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_mins(1);

/// A worker with many jobs in hand at once.
#[derive(Serialize)]
pub(crate) struct InHand {
    /// Jobs in hand when memory was read.
    pub(crate) jobs: i64,
    /// How long the model took.
    pub(crate) latency_ms: u64,
    /// Resident memory before the first job.
    pub(crate) idle_kib: u64,
    /// Resident memory with all of them in hand.
    pub(crate) busy_kib: u64,
    /// The most there ever was.
    pub(crate) peak_kib: u64,
    /// What each job added, with all of them in hand.
    pub(crate) kib_per_job: f64,
    /// What each job added, at the worst moment.
    pub(crate) peak_kib_per_job: f64,
}

/// Measures it with one worker and a slow model.
pub(crate) async fn measure(
    arguments: &Arguments,
    ground: &Ground,
    load: &Load,
    mcp_config: &str,
) -> anyhow::Result<InHand> {
    let latency_ms = arguments.in_hand_latency_ms;
    let latency = Duration::from_millis(latency_ms);
    let model = Model::start(&arguments.place, latency, ground.directory()).await?;
    let settings = settings(arguments.in_hand, &model, mcp_config);
    let worker = Worker::start(&arguments.place, ground, &settings).await?;
    sleep(SETTLE).await;
    let idle_kib = usage::resident_kib(worker.pid());
    let jobs = load.prepare(arguments.in_hand);
    let goal = load.tally.answered() + jobs.len();
    let run = async {
        load.publish_all(&jobs).await?;
        let (held, busy_kib) = all_in_hand(arguments.in_hand, ground, &worker).await?;
        load.tally.wait_for(goal, PATIENCE).await?;
        anyhow::Ok((held, busy_kib))
    };
    let (held, busy_kib) = shown("jobs in hand", &load.tally, jobs.len(), run).await?;
    let peak_kib = usage::peak_kib(worker.pid());
    let status = worker.stop().await?;
    if !status.success() {
        bail!("the worker ended with {status}");
    }
    load.tally.check()?;
    let per_job = |kib: u64| {
        as_f64(kib.saturating_sub(idle_kib)) / f64::from(i32::try_from(held).unwrap_or(i32::MAX))
    };
    Ok(InHand {
        jobs: held,
        latency_ms,
        idle_kib,
        busy_kib,
        peak_kib,
        kib_per_job: per_job(busy_kib),
        peak_kib_per_job: per_job(peak_kib),
    })
}

/// Waits until the worker runs all of them at once, or no longer more than before; returns how
/// many, and its resident memory then.
async fn all_in_hand(
    wanted: usize,
    ground: &Ground,
    worker: &Worker,
) -> anyhow::Result<(i64, u64)> {
    let begin = Instant::now();
    let mut most = (0, 0);
    loop {
        let running: i64 =
            sqlx::query_scalar("SELECT count(*) FROM chat.jobs WHERE status = 'running'")
                .fetch_one(&ground.pool)
                .await?;
        let now = (running, usage::resident_kib(worker.pid()));
        most = most.max(now);
        let has_all = usize::try_from(running).is_ok_and(|running| running >= wanted);
        // Where the first end before the last begin, there is a most all the same.
        if has_all || running < most.0 * 9 / 10 {
            return Ok(most);
        }
        if begin.elapsed() > PATIENCE {
            bail!("only {} of {wanted} jobs were in hand at once", most.0);
        }
        sleep(POLL).await;
    }
}

fn as_f64(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX))
}

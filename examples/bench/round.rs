//! One model latency: idle memory, warm-up, the low rate, the runs at full speed, the filled queue.

use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use sqlx::Connection as _;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::Arguments;
use crate::figures::{median, percentile};
use crate::load::Load;
use crate::progress::shown;
use crate::stage::{Ground, Model, Worker};
use crate::usage;

/// Between getting ready and being idle.
pub(crate) const SETTLE: Duration = Duration::from_millis(1500);
/// After the last result: what is written behind it belongs to the jobs.
const AFTERMATH: Duration = Duration::from_millis(500);
/// An idle backend of `PostgreSQL` reports its commits after ten seconds (`PGSTAT_IDLE_INTERVAL`).
const STATISTICS: Duration = Duration::from_millis(10_500);
const PATIENCE: Duration = Duration::from_mins(1);
const WARM_UP: usize = 200;
const SAMPLE: Duration = Duration::from_millis(500);

/// What one latency of the model gives.
#[derive(Serialize)]
pub(crate) struct Round {
    /// How long the model takes.
    pub(crate) latency_ms: u64,
    /// From the first publish to the last result; the median of the runs.
    pub(crate) jobs_per_s: f64,
    /// Every run.
    pub(crate) all_jobs_per_s: Vec<f64>,
    /// From the moment that a worker with a full queue may go on to the last result.
    pub(crate) filled_jobs_per_s: f64,
    /// Of the time from publish to result at the low rate.
    pub(crate) p50_ms: f64,
    /// The same.
    pub(crate) p99_ms: f64,
    /// Jobs at the low rate.
    pub(crate) samples: usize,
    /// Commits in the database during the runs, a job.
    pub(crate) commits_per_job: f64,
    /// CPU time during the runs, a job.
    pub(crate) cpu_ms: Cpu,
    /// What other programs used of the machine's CPU during the runs; where the services are not
    /// ours to watch, they count as strangers.
    pub(crate) strangers_percent: f64,
    /// Resident memory of a worker before its first job, the largest of the replicas.
    pub(crate) idle_kib: u64,
    /// The most resident memory of a worker.
    pub(crate) peak_kib: u64,
    /// The most memory of the tool servers of a worker together, shared pages counted once.
    pub(crate) tools_kib: u64,
    /// How long the workers took to get ready, together.
    pub(crate) starting_s: f64,
}

/// CPU time by program; of services elsewhere it is not known.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Cpu {
    pub(crate) worker: f64,
    pub(crate) tools: f64,
    pub(crate) postgres: Option<f64>,
    pub(crate) rabbitmq: Option<f64>,
    pub(crate) model: f64,
    pub(crate) driver: f64,
}

struct Bench<'a> {
    arguments: &'a Arguments,
    ground: &'a Ground,
    load: &'a Load,
    model: Model,
    workers: Vec<Worker>,
}

/// Measures with a model of this latency.
pub(crate) async fn measure(
    arguments: &Arguments,
    ground: &Ground,
    load: &Load,
    mcp_config: &str,
    latency_ms: u64,
) -> anyhow::Result<Round> {
    let latency = Duration::from_millis(latency_ms);
    let model = Model::start(&arguments.place, latency, ground.directory()).await?;
    let settings = settings(arguments.concurrency, &model, mcp_config);
    let mut workers = Vec::new();
    for _ in 0..arguments.replicas {
        workers.push(Worker::start(&arguments.place, ground, &settings).await?);
    }
    let bench = Bench {
        arguments,
        ground,
        load,
        model,
        workers,
    };
    sleep(SETTLE).await;
    let idle_kib = bench.largest(usage::resident_kib);
    bench.run("warm-up", WARM_UP).await?;
    let latencies = bench.at_low_rate().await?;
    let full = bench.at_full_speed().await?;
    let filled_jobs_per_s = bench.with_a_filled_queue().await?;
    let round = Round {
        latency_ms,
        jobs_per_s: median(&full.rates),
        all_jobs_per_s: full.rates,
        filled_jobs_per_s,
        p50_ms: percentile(&latencies, 50.0),
        p99_ms: percentile(&latencies, 99.0),
        samples: latencies.len(),
        commits_per_job: full.commits_per_job,
        cpu_ms: full.cpu_ms,
        strangers_percent: full.strangers_percent,
        idle_kib,
        peak_kib: bench.largest(usage::peak_kib),
        tools_kib: full.tools_kib,
        starting_s: bench
            .workers
            .iter()
            .map(|worker| worker.starting.as_secs_f64())
            .sum(),
    };
    bench.end().await?;
    Ok(round)
}

/// The settings of a worker.
pub(crate) fn settings(
    concurrency: usize,
    model: &Model,
    mcp_config: &str,
) -> [(&'static str, String); 3] {
    [
        ("CHAT_CONCURRENCY", concurrency.to_string()),
        ("OPENAI_BASE_URL", model.base_url().to_owned()),
        ("MCP_CONFIG", mcp_config.to_owned()),
    ]
}

struct FullSpeed {
    rates: Vec<f64>,
    commits_per_job: f64,
    cpu_ms: Cpu,
    strangers_percent: f64,
    tools_kib: u64,
}

impl Bench<'_> {
    /// Publishes so many jobs and waits for their results; returns jobs a second.
    async fn run(&self, what: &str, count: usize) -> anyhow::Result<f64> {
        let (jobs, tally) = (self.load.prepare(count), &self.load.tally);
        let goal = tally.answered() + count;
        let begin = Instant::now();
        let run = async {
            self.load.publish_all(&jobs).await?;
            tally.wait_for(goal, PATIENCE).await
        };
        shown(what, tally, count, run).await?;
        let last = jobs.iter().filter_map(|job| tally.arrival(job.id)).max();
        let time = last.unwrap_or_else(Instant::now).duration_since(begin);
        Ok(as_f64(count) / time.as_secs_f64())
    }

    async fn at_full_speed(&self) -> anyhow::Result<FullSpeed> {
        sleep(STATISTICS).await;
        let commits = self.commits().await?;
        let (before, mut rates) = (self.cpu(), Vec::new());
        let (begin, machine) = (Instant::now(), usage::cpu_of_machine());
        let mut tools_kib = 0;
        for number in 1..=self.arguments.runs {
            let what = format!("full speed {number}/{}", self.arguments.runs);
            let sampled = self.sampled(&mut tools_kib, self.run(&what, self.arguments.jobs));
            rates.push(sampled.await?);
            sleep(AFTERMATH).await;
        }
        let work = self.cpu().since(&before);
        let strangers = usage::cpu_of_machine() - machine - work.total();
        let all =
            begin.elapsed().as_secs_f64() * as_f64(std::thread::available_parallelism()?.get());
        sleep(STATISTICS).await;
        let jobs = as_f64(self.arguments.jobs * self.arguments.runs);
        Ok(FullSpeed {
            commits_per_job: (self.commits().await? - commits) / jobs,
            cpu_ms: work.times(1000.0 / jobs),
            strangers_percent: (100.0 * strangers / all).max(0.0),
            rates,
            tools_kib,
        })
    }

    /// Jobs at fixed moments, whether or not the last one is back (an open loop); milliseconds from
    /// publish to result, sorted.
    async fn at_low_rate(&self) -> anyhow::Result<Vec<f64>> {
        let (rate, tally) = (self.arguments.rate, &self.load.tally);
        let count = round_up(rate * self.arguments.rate_secs);
        let jobs = self.load.prepare(count);
        let goal = tally.answered() + count;
        let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let run = async {
            let (mut sent, mut confirms) = (Vec::new(), Vec::new());
            for job in &jobs {
                ticks.tick().await;
                sent.push(Instant::now());
                confirms.push(self.load.publish(job).await?);
            }
            tally.wait_for(goal, PATIENCE).await?;
            for confirm in confirms {
                crate::load::confirmed(confirm).await?;
            }
            anyhow::Ok(sent)
        };
        let sent = shown("low rate", tally, count, run).await?;
        let pairs = jobs.iter().zip(sent);
        let times =
            pairs.filter_map(|(job, sent)| Some(tally.arrival(job.id)?.duration_since(sent)));
        let mut times: Vec<_> = times.map(|time| time.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        Ok(times)
    }

    /// The workers are halted while the queue is filled, so that publishing takes nothing from them.
    async fn with_a_filled_queue(&self) -> anyhow::Result<f64> {
        let (count, tally) = (self.arguments.jobs, &self.load.tally);
        let jobs = self.load.prepare(count);
        let goal = tally.answered() + count;
        self.signal(Signal::STOP)?;
        let filled = self.load.publish_all(&jobs).await;
        self.signal(Signal::CONT)?;
        filled?;
        let begin = Instant::now();
        shown("filled queue", tally, count, tally.wait_for(goal, PATIENCE)).await?;
        Ok(as_f64(count) / begin.elapsed().as_secs_f64())
    }

    /// Ends the workers, and looks whether everything was answered once.
    async fn end(self) -> anyhow::Result<()> {
        for worker in self.workers {
            let status = worker.stop().await?;
            if !status.success() {
                bail!("a worker ended with {status}");
            }
        }
        // A second answer might still be on its way.
        sleep(AFTERMATH).await;
        self.load.tally.check()
    }

    /// Runs `work` while the memory of the tool servers is read now and then.
    async fn sampled<T>(&self, most: &mut u64, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(SAMPLE, &mut work).await {
                Ok(result) => return result,
                Err(_elapsed) => *most = (*most).max(self.largest(usage::memory_below_kib)),
            }
        }
    }

    fn largest(&self, of: impl Fn(u32) -> u64) -> u64 {
        let each = self.workers.iter().map(|worker| of(worker.pid()));
        each.max().unwrap_or_default()
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        for worker in &self.workers {
            let pid = i32::try_from(worker.pid()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                kill_process(pid, signal)?;
            }
        }
        Ok(())
    }

    fn cpu(&self) -> Cpu {
        let workers = || self.workers.iter().map(Worker::pid);
        Cpu {
            worker: workers().map(usage::cpu_of).sum(),
            tools: workers().map(usage::cpu_below).sum(),
            postgres: self.arguments.postgres_pid.map(usage::cpu_of_tree),
            rabbitmq: self.arguments.rabbitmq_pid.map(usage::cpu_of_tree),
            model: usage::cpu_of(self.model.pid()),
            driver: usage::cpu_of(std::process::id()),
        }
    }

    /// Read in another database, so that reading does not count.
    async fn commits(&self) -> anyhow::Result<f64> {
        let mut connection = self.ground.connect_admin().await?;
        let commits = sqlx::query_scalar(
            "SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = $1",
        )
        .bind(&self.ground.database)
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(commits)
    }
}

impl Cpu {
    /// What all of them used.
    pub(crate) fn total(&self) -> f64 {
        let services = self.postgres.unwrap_or_default() + self.rabbitmq.unwrap_or_default();
        self.worker + self.tools + services + self.model + self.driver
    }

    fn since(self, before: &Self) -> Self {
        let both = |now: Option<f64>, before: Option<f64>| Some(now? - before?);
        Self {
            worker: self.worker - before.worker,
            tools: self.tools - before.tools,
            postgres: both(self.postgres, before.postgres),
            rabbitmq: both(self.rabbitmq, before.rabbitmq),
            model: self.model - before.model,
            driver: self.driver - before.driver,
        }
    }

    fn times(self, factor: f64) -> Self {
        Self {
            worker: self.worker * factor,
            tools: self.tools * factor,
            postgres: self.postgres.map(|time| time * factor),
            rabbitmq: self.rabbitmq.map(|time| time * factor),
            model: self.model * factor,
            driver: self.driver * factor,
        }
    }
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a handful of jobs"
)]
fn round_up(count: f64) -> usize {
    count.max(1.0).ceil() as usize
}

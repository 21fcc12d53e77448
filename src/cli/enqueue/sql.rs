//! Jobs that are handed to the database, in which their end is then looked for: no reply queue is
//! theirs.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::interval;

use super::super::failure::{self, Usage};
use super::super::output::{self, Screen};
use super::super::progress::{Bar, Spinner};
use super::job::NewJob;
use super::wait::{self, Answer};
use crate::clock::Deadline;
use crate::config::StoreConfig;
use crate::escape::armour;
use crate::ids::JobId;
use crate::store::{Enqueued, Progress, Store};

/// Jobs of a transaction. Their conversations are locked meanwhile, so it is to be short.
const BATCH: usize = 100;
/// How often it is looked whether a job has ended.
const POLL: Duration = Duration::from_millis(200);
/// What is said of a job that `jsonb` cannot hold.
const NOT_IN_JSONB: &str = "jsonb holds no NUL and no half of a surrogate pair; nothing was sent; `--via amqp` takes such a job";

/// Hands one job in; then prints its id, or waits and prints its reply.
pub(super) async fn send(
    job: &NewJob,
    config: &StoreConfig,
    wait: Option<Duration>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let text = text_of(job).ok_or_else(|| Usage(NOT_IN_JSONB.to_owned()))?;
    let store = Store::connect(config).await?;
    let sent = match wait {
        Some(limit) => Box::pin(ask(&store, text, limit))
            .await
            .and_then(|answer| wait::tell(answer, json, "")),
        None => hand_in(&store, text).await.and_then(|id| {
            output::line(&id.to_string())?;
            Ok(ExitCode::SUCCESS)
        }),
    };
    store.close().await;
    sent
}

/// Hands the jobs of a file in, and waits for their results if `wait` says how long for the next
/// one.
pub(super) async fn send_file(
    jobs: &[NewJob],
    config: &StoreConfig,
    wait: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let readable =
        |job| text_of(job).ok_or_else(|| Usage(format!("line {}: {NOT_IN_JSONB}", job.line)));
    let texts: Vec<_> = jobs.iter().map(readable).collect::<Result<_, _>>()?;
    let store = Store::connect(config).await?;
    let sent = Box::pin(send_texts(jobs, &texts, &store, wait)).await;
    store.close().await;
    sent
}

/// The job's JSON, if `jsonb` can hold it.
fn text_of(job: &NewJob) -> Option<&str> {
    let text = std::str::from_utf8(&job.body).ok()?;
    // What is escaped besides the escape character itself is what it cannot hold.
    let fits = !armour(text).replace("␛241b", "").contains('␛');
    fits.then(|| text.trim_start_matches('\u{FEFF}'))
}

async fn hand_in(store: &Store, text: &str) -> anyhow::Result<JobId> {
    match store.enqueue(&[text]).await.map_err(failure::of_store)? {
        Enqueued::Stored(ids) => ids
            .first()
            .copied()
            .ok_or_else(|| anyhow::anyhow!("the database stored nothing")),
        Enqueued::Refused { failure, .. } => Err(failure.into()),
    }
}

async fn ask(store: &Store, text: &str, limit: Duration) -> anyhow::Result<Answer> {
    let job = hand_in(store, text).await?;
    let spinner = Spinner::new(&format!("job {job} is sent"));
    let ended = watch(store, job, &spinner, limit).await;
    spinner.end();
    ended.map_err(|error| anyhow::anyhow!("{error}; see `chat-worker show {job}`"))
}

/// The result of the job, once there is one.
async fn watch(
    store: &Store,
    job: JobId,
    spinner: &Spinner,
    limit: Duration,
) -> anyhow::Result<Answer> {
    let deadline = Deadline::after(limit);
    let mut ticks = interval(POLL);
    let mut said = "";
    loop {
        ticks.tick().await;
        let event = match store.find_progress(job).await.map_err(failure::of_store)? {
            Progress::Ended(stored) => return Answer::stored(stored.result),
            Progress::Unknown => anyhow::bail!("the job {job} was deleted"),
            Progress::Waiting => "the job waits",
            Progress::Running => "the job runs",
        };
        if event != said {
            spinner.line(event);
            said = event;
        }
        if deadline.left().is_zero() {
            return Err(wait::too_late(limit));
        }
    }
}

async fn send_texts(
    jobs: &[NewJob],
    texts: &[&str],
    store: &Store,
    wait: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    // With --wait standard output is for the results, and on a terminal for the bar.
    let print_ids = wait.is_none() && !Screen::stdout().terminal;
    let bar = Bar::new(jobs.len(), "sent");
    let mut sent = Vec::with_capacity(jobs.len());
    for (batch, texts) in jobs.chunks(BATCH).zip(texts.chunks(BATCH)) {
        let ids = match hand_in_batch(store, batch, texts).await {
            Ok(ids) => ids,
            Err(error) => {
                let (done, many) = (bar.end(), jobs.len());
                return Err(error.context(format!(
                    "{done} of {many} jobs are stored; jobs with a job_id can be sent again"
                )));
            }
        };
        for id in ids {
            bar.step();
            if print_ids {
                output::line(&id.to_string())?;
            }
            sent.push(id);
        }
    }
    output::say(&format!("{} jobs sent", bar.end()));
    match wait {
        Some(limit) => Ok(wait::sum_up(jobs.len(), collect(store, sent, limit).await?)),
        None => Ok(ExitCode::SUCCESS),
    }
}

async fn hand_in_batch(
    store: &Store,
    batch: &[NewJob],
    texts: &[&str],
) -> anyhow::Result<Vec<JobId>> {
    match store.enqueue(texts).await.map_err(failure::of_store)? {
        Enqueued::Stored(ids) => Ok(ids),
        Enqueued::Refused { at, failure } => {
            let line = batch.get(at).map_or(0, |job| job.line);
            Err(anyhow::anyhow!("line {line}: {failure}"))
        }
    }
}

/// Prints the results of `open` jobs as they end, as lines of JSON; how many are of jobs that were
/// not completed.
async fn collect(store: &Store, mut open: Vec<JobId>, limit: Duration) -> anyhow::Result<usize> {
    // A repeat in the file is one job.
    open.sort_unstable();
    open.dedup();
    let bar = Bar::new(open.len(), "answered");
    let mut failed = 0;
    let mut deadline = Deadline::after(limit);
    let mut ticks = interval(POLL);
    while !open.is_empty() {
        ticks.tick().await;
        for job in store.find_settled(&open).await? {
            open.retain(|other| *other != job);
            let Progress::Ended(stored) = store.find_progress(job).await? else {
                anyhow::bail!("the job {job} was deleted");
            };
            let answer = Answer::stored(stored.result)?;
            failed += usize::from(!answer.result.success);
            bar.step();
            bar.beside(|| output::json(&answer.json))?;
            deadline = Deadline::after(limit);
        }
        if deadline.left().is_zero() && !open.is_empty() {
            bar.end();
            let (many, secs) = (open.len(), limit.as_secs());
            anyhow::bail!("no further result within {secs} s; {many} job(s) are open");
        }
    }
    bar.end();
    Ok(failed)
}

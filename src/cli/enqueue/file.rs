use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::super::failure::Usage;
use super::super::output::{self, Screen};
use super::super::progress::Bar;
use super::super::sender::Sender;
use super::job::NewJob;
use super::send::{connect, open_inbox};
use super::wait;
use crate::config::BrokerConfig;
use crate::ids::JobId;
use crate::wire;

/// Jobs on their way at once.
const PIPELINE: usize = 100;
/// Bad lines that are named one by one.
const MAX_NAMED: usize = 20;

/// The jobs in the file, all of them checked.
///
/// # Errors
/// Every bad line, by its number and with the JSON pointer of what is wrong.
pub(super) async fn read(path: &Path, max_bytes: usize) -> anyhow::Result<Vec<NewJob>> {
    let name = path.display();
    let content = read_all(path.to_owned()).await;
    let content = content.map_err(|error| Usage(format!("{name}: {error}")))?;
    let (jobs, bad) = parse(&content, max_bytes);
    if !bad.is_empty() {
        let mut text = format!("{name} has {} bad line(s); nothing was sent:", bad.len());
        for (line, what) in bad.iter().take(MAX_NAMED) {
            write!(text, "\n  line {line}: {what}").unwrap_or_default();
        }
        if bad.len() > MAX_NAMED {
            write!(text, "\n  and {} more", bad.len() - MAX_NAMED).unwrap_or_default();
        }
        return Err(Usage(text).into());
    }
    if jobs.is_empty() {
        return Err(Usage(format!("{name} holds no jobs")).into());
    }
    Ok(jobs)
}

/// The file's content, or that of standard input.
pub(super) async fn read_all(path: PathBuf) -> std::io::Result<Vec<u8>> {
    let reading = tokio::task::spawn_blocking(move || {
        if path.as_os_str() != "-" {
            return std::fs::read(path);
        }
        let mut content = Vec::new();
        std::io::stdin().lock().read_to_end(&mut content)?;
        Ok(content)
    });
    reading.await?
}

/// The jobs, and what is wrong with the lines that are none.
fn parse(content: &[u8], max_bytes: usize) -> (Vec<NewJob>, Vec<(usize, String)>) {
    let content = content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(content);
    let (mut jobs, mut bad) = (Vec::new(), Vec::new());
    let mut seen: HashMap<JobId, usize> = HashMap::new();
    for (line, body) in (1..).zip(content.split(|byte| *byte == b'\n')) {
        let body = body.trim_ascii();
        if body.is_empty() {
            continue;
        }
        let job = match wire::decode(body, max_bytes) {
            Ok((job, _)) => job,
            Err(refused) => {
                bad.push((line, refused.failure.to_string()));
                continue;
            }
        };
        let id = wire::job_id_of(Some(&job), None);
        if let Some(first) = seen.insert(id, line) {
            bad.push((line, format!("/job_id: the same as that of line {first}")));
            continue;
        }
        let body = Bytes::copy_from_slice(body);
        jobs.push(NewJob {
            id,
            body,
            line,
            stream: false,
        });
    }
    (jobs, bad)
}

/// Sends the jobs, and waits for their results if `wait` says how long for the next one.
pub(super) async fn send(
    jobs: Vec<NewJob>,
    broker: &BrokerConfig,
    wait: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let sender = connect(broker).await?;
    let sent = match wait {
        Some(limit) => Box::pin(send_and_wait(&jobs, &sender, broker, limit)).await,
        None => send_all(&jobs, &sender, None).await,
    };
    sender.close().await;
    sent
}

async fn send_all(
    jobs: &[NewJob],
    sender: &Sender,
    reply_to: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let bar = Bar::new(jobs.len(), "sent");
    // With an inbox standard output is for the results, and on a terminal for the bar.
    let print_ids = reply_to.is_none() && !Screen::stdout().terminal;
    let confirmed = stream::iter(jobs)
        .map(|job| async move {
            let message = job.message(sender.names(), reply_to);
            (job, sender.send(message).await)
        })
        .buffered(PIPELINE)
        .map(|(job, sent)| match sent {
            Ok(()) => Ok(job),
            Err(error) => Err(anyhow::anyhow!("line {}: {error}", job.line)),
        })
        .try_fold(0_usize, |count, job| {
            bar.step();
            let printed = if print_ids {
                output::line(&job.id.to_string())
            } else {
                Ok(())
            };
            async move { Ok(printed.map(|()| count + 1)?) }
        });
    // Unconstrained: a yield in the middle would change the order in which jobs are sent.
    let confirmed = tokio::task::unconstrained(confirmed).await;
    let done = bar.end();
    let many = jobs.len();
    let confirmed = confirmed.map_err(|error| {
        error.context(format!(
            "{done} of {many} jobs are confirmed, later ones may be sent; jobs with a job_id can be sent again"
        ))
    })?;
    output::say(&format!("{confirmed} jobs sent"));
    Ok(ExitCode::SUCCESS)
}

async fn send_and_wait(
    jobs: &[NewJob],
    sender: &Sender,
    broker: &BrokerConfig,
    limit: Duration,
) -> anyhow::Result<ExitCode> {
    let mut inbox = open_inbox(broker).await?;
    let reply_to = inbox.name().to_owned();
    let open: HashSet<JobId> = jobs.iter().map(|job| job.id).collect();
    let (_, failed) = futures_util::future::try_join(
        send_all(jobs, sender, Some(&reply_to)),
        wait::collect(&mut inbox, open, limit),
    )
    .await?;
    inbox.close().await;
    Ok(wait::sum_up(jobs.len(), failed))
}

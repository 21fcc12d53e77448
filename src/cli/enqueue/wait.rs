use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use super::super::output::{self, Screen};
use super::super::progress::Bar;
use super::super::sender::Sender;
use super::job::NewJob;
use super::send::{connect, open_inbox};
use super::watch::{Shown, Watch};
use crate::broker::{Letter, ReplyInbox};
use crate::clock::Deadline;
use crate::config::BrokerConfig;
use crate::escape::{armour, disarm, disarm_text};
use crate::ids::JobId;
use crate::wire::{JobResult, RESULT_TYPE};

/// How long the last events are waited for once the result is there.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// A result, and its JSON.
pub(super) struct Answer {
    pub(super) result: JobResult,
    pub(super) json: String,
}

impl Answer {
    /// A result that was stored, as a worker would send it.
    pub(super) fn stored(result: JobResult) -> anyhow::Result<Self> {
        let json = disarm(&serde_json::to_string(&result)?).into_owned();
        Ok(Self { result, json })
    }
}

/// Sends one job and prints its reply.
pub(super) async fn send(
    job: &NewJob,
    broker: &BrokerConfig,
    limit: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let sender = connect(broker).await?;
    // A reply is shown as it comes where it is not wanted as JSON.
    let aloud = job.stream && !json;
    let answered = Box::pin(ask(job, &sender, (broker, limit), aloud)).await;
    sender.close().await;
    let (answer, said) = answered?;
    tell(answer, json, &said)
}

/// Prints the result or the reply, but for what was `said` already; the exit code for it.
pub(super) fn tell(answer: Answer, json: bool, said: &str) -> anyhow::Result<ExitCode> {
    let Answer { result, json: text } = answer;
    if json {
        output::json(&text)?;
    } else if let Some(reply) = result.message.as_ref().filter(|_| result.success) {
        let text = match &reply.refusal {
            Some(refusal) if reply.content.is_empty() => refusal,
            Some(_) | None => &reply.content,
        };
        let text = disarm_text(text);
        // The last words may come later than the result.
        let rest = if said.is_empty() {
            Some(&*text)
        } else {
            text.strip_prefix(said)
        };
        if rest.is_none() {
            output::line("")?;
        }
        output::line(&Screen::stdout().safe(rest.unwrap_or(&text)))?;
    }
    if !result.success && !said.is_empty() {
        output::line("")?;
    }
    for warning in &result.warnings {
        output::say(&format!(
            "warning: {}",
            super::super::text::one_line(warning)
        ));
    }
    if result.success {
        return Ok(ExitCode::SUCCESS);
    }
    let status = result.status.as_str();
    let error = result.error.map_or_else(String::new, |error| {
        format!(": {}: {}", error.code, disarm_text(&error.message))
    });
    anyhow::bail!("the job {} is {status}{error}", result.job_id);
}

/// Says how the jobs of a file did; the exit code for it.
pub(super) fn sum_up(many: usize, failed: usize) -> ExitCode {
    output::say(&format!("{many} results, {failed} of jobs that failed"));
    ExitCode::from(u8::from(failed > 0))
}

async fn ask(
    job: &NewJob,
    sender: &Sender,
    (broker, limit): (&BrokerConfig, Duration),
    aloud: bool,
) -> anyhow::Result<(Answer, String)> {
    let (mut inbox, heard) = inbox_with_events(job.id, broker).await?;
    let message = job.message(sender.names(), Some(inbox.name()));
    sender.send(message).await?;
    let mut watch = Watch::new(&format!("job {} is sent", job.id), aloud);
    let waited = wait(&mut inbox, (job.id, heard), &mut watch, limit).await;
    let said = watch.end();
    inbox.close().await;
    let answer =
        waited.map_err(|error| anyhow::anyhow!("{error}; see `chat-worker show {}`", job.id))?;
    Ok((answer, said))
}

/// An inbox that the job's events come to as well, if this user may have them.
async fn inbox_with_events(
    job: JobId,
    config: &BrokerConfig,
) -> anyhow::Result<(ReplyInbox, Heard)> {
    let inbox = open_inbox(config).await?;
    match inbox.also_events(job).await {
        Ok(()) => Ok((inbox, Heard::More)),
        // The refusal closed the channel.
        Err(_no_progress) => Ok((open_inbox(config).await?, Heard::End)),
    }
}

async fn wait(
    inbox: &mut ReplyInbox,
    (job, mut heard): (JobId, Heard),
    watch: &mut Watch,
    limit: Duration,
) -> anyhow::Result<Answer> {
    let deadline = Deadline::after(limit);
    while let Some(letter) = inbox.next(deadline.left()).await? {
        match open(&letter)? {
            Some(Opened::Result(answer)) if answer.result.job_id == job => {
                // Of a job that never ran there is nothing to be heard.
                if heard == Heard::More && answer.result.attempt > 0 {
                    // The reply is there, whatever becomes of its story.
                    hear_out(inbox, watch).await.ok();
                }
                return Ok(*answer);
            }
            Some(Opened::Event(event)) => {
                heard = Heard::of(&event);
                watch.show(*event)?;
            }
            Some(Opened::Result(_)) | None => {}
        }
    }
    Err(too_late(limit))
}

/// What was heard of the job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// There is more to come.
    More,
    /// All that there is.
    End,
}

impl Heard {
    fn of(event: &Shown) -> Self {
        if event.is_last() {
            Self::End
        } else {
            Self::More
        }
    }
}

/// Shows what happened before the result came: events take another way, which may be longer.
async fn hear_out(inbox: &mut ReplyInbox, watch: &mut Watch) -> anyhow::Result<()> {
    let deadline = Deadline::after(LAST_EVENTS);
    while let Some(letter) = inbox.next(deadline.left()).await? {
        if let Some(Opened::Event(event)) = open(&letter)? {
            let heard = Heard::of(&event);
            watch.show(*event)?;
            if heard == Heard::End {
                break;
            }
        }
    }
    Ok(())
}

/// What is said when the result of one job does not come.
pub(super) fn too_late(limit: Duration) -> anyhow::Error {
    let seconds = limit.as_secs();
    anyhow::anyhow!("no result within {seconds} s; the job goes on if a worker runs")
}

/// Prints the results of `open` jobs as they come, as lines of JSON; how many are of jobs that
/// were not completed.
pub(super) async fn collect(
    inbox: &mut ReplyInbox,
    mut open_jobs: HashSet<JobId>,
    limit: Duration,
) -> anyhow::Result<usize> {
    let bar = Bar::new(open_jobs.len(), "answered");
    let mut failed = 0;
    while !open_jobs.is_empty() {
        let Some(letter) = inbox.next(limit).await? else {
            bar.end();
            let (many, secs) = (open_jobs.len(), limit.as_secs());
            anyhow::bail!("no further result within {secs} s; {many} job(s) are open");
        };
        if let Some(Opened::Result(answer)) = open(&letter)?
            && open_jobs.remove(&answer.result.job_id)
        {
            failed += usize::from(!answer.result.success);
            bar.step();
            bar.beside(|| output::json(&answer.json))?;
        }
    }
    bar.end();
    Ok(failed)
}

/// What a letter is.
enum Opened {
    Result(Box<Answer>),
    Event(Box<Shown>),
}

/// What is in a letter, if it is for us.
///
/// # Errors
/// It is a result that cannot be read: who waits for it must not wait on.
fn open(letter: &Letter) -> anyhow::Result<Option<Opened>> {
    let json = String::from_utf8_lossy(&letter.body);
    // A lone surrogate is legal in JSON and no Rust text.
    let armoured = armour(&json);
    if letter.properties.kind.as_deref() == Some(RESULT_TYPE) {
        let result = serde_json::from_str(&armoured).map_err(|error| {
            anyhow::anyhow!("a result came that this version cannot read: {error}")
        })?;
        let json = json.into_owned();
        return Ok(Some(Opened::Result(Box::new(Answer { result, json }))));
    }
    let event = serde_json::from_str::<Box<Shown>>(&armoured).ok();
    Ok(event.map(Opened::Event))
}

//! Which jobs are out, and what became of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Deserialize;
use tokio::sync::watch;
use uuid::Uuid;

/// The most complaints that are kept.
const COMPLAINTS: usize = 5;

/// The jobs of the whole benchmark. A clone is the same tally.
#[derive(Clone)]
pub(crate) struct Tally(Arc<Inner>);

struct Inner {
    jobs: Mutex<Jobs>,
    answered: watch::Sender<usize>,
}

#[derive(Default)]
struct Jobs {
    out: HashMap<Uuid, Job>,
    complaints: Vec<String>,
}

struct Job {
    answer: String,
    arrived: Option<Instant>,
}

/// What is read of a result.
#[derive(Deserialize)]
struct Result<'a> {
    success: bool,
    #[serde(borrow)]
    message: Option<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    content: &'a str,
}

impl Default for Tally {
    fn default() -> Self {
        Self(Arc::new(Inner {
            jobs: Mutex::default(),
            answered: watch::Sender::new(0),
        }))
    }
}

impl Tally {
    /// This job will be published, and has to be answered so.
    pub(crate) fn expect(&self, id: Uuid, answer: String) {
        let job = Job {
            answer,
            arrived: None,
        };
        self.lock().out.insert(id, job);
    }

    /// A result came.
    pub(crate) fn note(&self, id: Option<Uuid>, body: &[u8], at: Instant) {
        let mut jobs = self.lock();
        let complaint = match id.and_then(|id| jobs.out.get_mut(&id)) {
            None => Some("a result of no job of ours".to_owned()),
            Some(job) if job.arrived.is_some() => Some("a job answered twice".to_owned()),
            Some(job) => {
                job.arrived = Some(at);
                wrong(body, &job.answer)
            }
        };
        if let Some(complaint) = complaint
            && jobs.complaints.len() < COMPLAINTS
        {
            let text = String::from_utf8_lossy(body);
            jobs.complaints.push(format!("{complaint}: {text}"));
        }
        drop(jobs);
        self.0.answered.send_modify(|answered| *answered += 1);
    }

    /// How many results came so far.
    pub(crate) fn answered(&self) -> usize {
        *self.0.answered.borrow()
    }

    /// When the result of a job came.
    pub(crate) fn arrival(&self, id: Uuid) -> Option<Instant> {
        self.lock().out.get(&id)?.arrived
    }

    /// Waits until so many results have come.
    ///
    /// # Errors
    /// None came for `patience`: jobs are lost.
    pub(crate) async fn wait_for(&self, goal: usize, patience: Duration) -> anyhow::Result<()> {
        let mut answered = self.0.answered.subscribe();
        loop {
            let now = *answered.borrow_and_update();
            if now >= goal {
                return Ok(());
            }
            if tokio::time::timeout(patience, answered.changed())
                .await
                .is_err()
            {
                bail!(
                    "{} of {goal} jobs are lost: no result for {} s",
                    goal - now,
                    patience.as_secs()
                );
            }
        }
    }

    /// That each job was answered once and rightly.
    ///
    /// # Errors
    /// Which one was not.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let jobs = self.lock();
        if !jobs.complaints.is_empty() {
            bail!("{}", jobs.complaints.join("\n"));
        }
        let lost = jobs
            .out
            .iter()
            .filter(|(_, job)| job.arrived.is_none())
            .count();
        if lost > 0 {
            bail!("{lost} of {} jobs are lost", jobs.out.len());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong with a result.
fn wrong(body: &[u8], answer: &str) -> Option<String> {
    let result: Result<'_> = match serde_json::from_slice(body) {
        Ok(result) => result,
        Err(error) => return Some(format!("a result that cannot be read ({error})")),
    };
    let said = result.message.map(|message| message.content);
    match said {
        Some(said) if result.success && said == answer => None,
        Some(_) | None => Some(format!("a job that should have answered {answer:?}")),
    }
}

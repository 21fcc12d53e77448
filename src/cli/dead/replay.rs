use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};
use tokio::task::unconstrained;
use uuid::Uuid;

use super::super::output::{self, Screen};
use super::super::progress::Bar;
use super::super::sender::Sender;
use super::super::{checked, failure, init_quiet_logs};
use super::letters;
use super::new_job::{self, Terms};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{BrokerConfig, BrokerSettings, Problems, StoreConfig, StoreSettings};
use crate::fault::Fault;
use crate::ids::JobId;
use crate::store::{BuriedLetter, Store, StoreError};

/// Dead letters whose ids are read at once.
const PAGE: i64 = 500;
/// Dead letters that are read ahead, and replays on their way: bodies are large.
const AHEAD: usize = 4;
const UNDER_WAY: usize = 16;

/// The arguments of `dead replay`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct ReplayArgs {
    /// These, also if they were replayed before
    #[arg(value_name = "ID", group = "which")]
    ids: Vec<Uuid>,
    /// All that were not replayed yet, oldest first
    #[arg(long, group = "which")]
    all: bool,
    /// The largest job message that the workers take, in bytes
    #[arg(
        long,
        env = "CHAT_MAX_JOB_BYTES",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    chat_max_job_bytes: String,
    /// Whether the workers refuse a job of another user than the AMQP one: it is not replayed then
    #[arg(
        long,
        env = "CHAT_TRUST_AMQP_USER",
        value_name = "true|false",
        default_value = "false"
    )]
    chat_trust_amqp_user: String,
    #[command(flatten)]
    broker: BrokerSettings,
    #[command(flatten)]
    store: StoreSettings,
}

/// What the settings say.
struct Setup {
    broker: BrokerConfig,
    store: StoreConfig,
    terms: Terms,
}

impl ReplayArgs {
    fn setup(&self, problems: &mut Problems) -> Option<Setup> {
        let broker = self.broker.parse(problems);
        let store = self.store.parse(problems);
        let bytes = &self.chat_max_job_bytes;
        let bytes = problems.number("CHAT_MAX_JOB_BYTES", bytes, 1024, 16 << 20);
        let trust = problems.choice(
            "CHAT_TRUST_AMQP_USER",
            &self.chat_trust_amqp_user,
            &[("true", true), ("false", false)],
        );
        let broker = broker?;
        Some(Setup {
            terms: Terms {
                max_job_bytes: bytes?,
                reply_to_allow: broker.reply_to_allow.clone(),
                trust_amqp_user: trust?,
            },
            broker,
            store: store?,
        })
    }
}

/// Sends dead letters again.
pub(super) async fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let setup = checked(|problems| args.setup(problems))?;
    init_quiet_logs()?;
    let store = Store::connect(&setup.store).await?;
    let replayed = Box::pin(with_store(args, &setup, &store)).await;
    store.close().await;
    replayed
}

async fn with_store(args: &ReplayArgs, setup: &Setup, store: &Store) -> anyhow::Result<ExitCode> {
    // Jobs of this database in the queue of another installation would be nobody's.
    let claimed = store.claim_prefix(&setup.broker.prefix).await;
    claimed.map_err(failure::of_store)?;
    let sender = Sender::connect(&setup.broker, "chat-worker dead replay").await?;
    let replayed = Box::pin(with_sender(args, setup, store, &sender)).await;
    sender.close().await;
    replayed
}

async fn with_sender(
    args: &ReplayArgs,
    setup: &Setup,
    store: &Store,
    sender: &Sender,
) -> anyhow::Result<ExitCode> {
    let (many, until) = if args.all {
        let count = store.count_dead_letters(Duration::ZERO, false).await;
        let count = count.map_err(failure::of_store)?;
        let many = usize::try_from(count.many).unwrap_or_default();
        (many, Some(count.until))
    } else {
        (args.ids.len(), None)
    };
    let mut replay = Replay {
        store,
        sender,
        terms: &setup.terms,
        bar: Bar::new(many, "replayed"),
        // Of many a terminal shows the bar alone.
        prints: !args.all || !Screen::stdout().terminal,
        sent: 0,
        refused: 0,
    };
    let done = match until {
        Some(until) => replay.all(until).await,
        None => replay.these(once_each(&args.ids)).await,
    };
    replay.bar.end();
    let sent = letters(replay.sent);
    done.map_err(|error| {
        error.context(format!(
            "{sent} replayed; up to {UNDER_WAY} more may be sent and not marked as replayed"
        ))
    })?;
    if replay.refused == 0 {
        output::say(&format!("{sent} replayed"));
        return Ok(ExitCode::SUCCESS);
    }
    output::say(&format!("{sent} replayed, {} not", replay.refused));
    Ok(ExitCode::FAILURE)
}

fn once_each(ids: &[Uuid]) -> Vec<Uuid> {
    let mut seen = HashSet::new();
    let ids = ids.iter().copied();
    ids.filter(|id| seen.insert(*id)).collect()
}

/// A replay under way.
struct Replay<'a> {
    store: &'a Store,
    sender: &'a Sender,
    terms: &'a Terms,
    bar: Bar,
    prints: bool,
    sent: u64,
    refused: u64,
}

/// What became of a dead letter: the new job's id, or why there is none.
type Outcome = Result<JobId, String>;

impl Replay<'_> {
    /// All that were there at a moment: a replay that fails makes a dead letter again, which must
    /// not be replayed on and on.
    async fn all(&mut self, until: DateTime<Utc>) -> anyhow::Result<()> {
        let mut last = None;
        loop {
            let page = self.store.unreplayed_dead_letters(until, last, PAGE).await;
            let page = page.map_err(failure::of_store)?;
            let Some(end) = page.last() else {
                return Ok(());
            };
            last = Some(*end);
            self.these(page.into_iter().map(|(_, id)| id).collect())
                .await?;
        }
    }

    async fn these(&mut self, ids: Vec<Uuid>) -> anyhow::Result<()> {
        let (store, sender, terms) = (self.store, self.sender, self.terms);
        let outcomes = stream::iter(ids)
            .map(|id| async move { (id, store.find_dead_letter(id).await) })
            .buffered(AHEAD)
            .map(|(id, found)| async move { (id, one(found, store, sender, terms).await) })
            .buffered(UNDER_WAY);
        let mut outcomes = std::pin::pin!(outcomes);
        // Unconstrained: a yield in the middle would change the order in which jobs are sent.
        while let Some((id, outcome)) = unconstrained(outcomes.next()).await {
            self.note(id, outcome?);
        }
        Ok(())
    }

    fn note(&mut self, id: Uuid, outcome: Outcome) {
        self.bar.step();
        match outcome {
            Ok(job) => {
                self.sent += 1;
                let print = || output::line(&format!("{id} {job}"));
                // Who stops reading stops no replay: jobs are on their way.
                self.prints = self.prints && self.bar.beside(print).is_ok();
            }
            Err(why) => {
                self.refused += 1;
                let text = format!("the dead letter {id} is not replayed: {why}");
                self.bar.beside(|| output::complain(&text));
            }
        }
    }
}

/// Sends one dead letter again.
///
/// First the broker confirms the new job, then the row is marked. Who dies in between has sent the
/// job, and the row does not say so: another replay sends it a second time, as a second job. The
/// other way round a job would be lost while its row says that it was sent.
async fn one(
    found: Result<Option<BuriedLetter>, StoreError>,
    store: &Store,
    sender: &Sender,
    terms: &Terms,
) -> anyhow::Result<Outcome> {
    let Some(letter) = found.map_err(failure::of_store)? else {
        return Ok(Err("there is none in this database".to_owned()));
    };
    let job = JobId(Uuid::now_v7());
    let message = match new_job::replay(&letter, job, terms, sender.names(), SystemClock.now()) {
        Ok(message) => message,
        Err(why) => return Ok(Err(why)),
    };
    match sender.send(message).await {
        Ok(()) => {}
        Err(error) if error.fault() == Fault::Permanent => return Ok(Err(error.to_string())),
        // The others would fare no better.
        Err(error) => return Err(error.into()),
    }
    store
        .mark_replayed(letter.head.id)
        .await
        .map_err(|error| failure::of_store(error).context(format!("the job {job} is sent")))?;
    Ok(Ok(job))
}

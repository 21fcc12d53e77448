//! `enqueue`: one job from the command line, or a file of them; waits for what comes of them.

mod file;
mod job;
mod send;
mod sql;
mod wait;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use uuid::Uuid;

use super::failure::Usage;
use super::{checked, init_quiet_logs, output};
use crate::config::{BrokerConfig, BrokerSettings, Problems, StoreConfig, StoreSettings};
use job::NewJob;

/// The arguments of `enqueue`.
#[derive(Debug, clap::Args)]
pub(super) struct EnqueueArgs {
    /// What is said, as one message; `-` reads it from standard input
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    text: Vec<String>,
    /// Who the job speaks for
    #[arg(long, default_value = "cli")]
    user: String,
    /// Continue this conversation
    #[arg(long, value_name = "ID")]
    conversation: Option<Uuid>,
    /// The job's id, which tells a repeat [default: a fresh one]
    #[arg(long, value_name = "ID")]
    job_id: Option<Uuid>,
    /// Ask this model [default: the worker's]
    #[arg(long)]
    model: Option<String>,
    /// Rules for this turn, as a system message before TEXT
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Send a file of jobs, one JSON object a line; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "conversation", "job_id", "model", "system"])]
    file: Option<PathBuf>,
    /// Where jobs are handed in: the broker's queue, or the database's function chat.enqueue
    #[arg(long, value_enum, value_name = "WAY", default_value = "amqp")]
    via: Via,
    /// Have the reply come word by word; with --wait on a terminal it is shown as it comes (over the broker)
    #[arg(long, conflicts_with = "file")]
    stream: bool,
    /// Wait for the result and print the reply (with --file: every result, as a line of JSON)
    #[arg(long)]
    wait: bool,
    /// Seconds to wait for the result (with --file: for the next one)
    #[arg(long, value_name = "SECS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    timeout: u64,
    /// Print the whole result and not only the reply
    #[arg(long, requires = "wait")]
    json: bool,
    /// The largest job message that the workers take, in bytes
    #[arg(
        long,
        env = "CHAT_MAX_JOB_BYTES",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    chat_max_job_bytes: String,
    #[command(flatten)]
    broker: BrokerSettings,
    #[command(flatten)]
    store: StoreSettings,
}

/// Where jobs are handed in.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Via {
    /// RabbitMQ
    Amqp,
    /// Postgres
    Sql,
}

/// What the settings say.
struct Setup {
    way: Way,
    max_job_bytes: usize,
}

/// Where jobs are handed in, and how to get there.
enum Way {
    Amqp(BrokerConfig),
    Sql(StoreConfig),
}

/// Sends what the arguments say.
pub(super) async fn run(args: EnqueueArgs) -> anyhow::Result<ExitCode> {
    let setup = checked(|problems| args.setup(problems))?;
    init_quiet_logs()?;
    let wait = args.wait.then(|| Duration::from_secs(args.timeout));
    if let Some(path) = &args.file {
        let jobs = file::read(path, setup.max_job_bytes).await?;
        return match &setup.way {
            Way::Amqp(broker) => file::send(jobs, broker, wait).await,
            Way::Sql(store) => sql::send_file(&jobs, store, wait).await,
        };
    }
    let json = args.json;
    let job = args.into_job(setup.max_job_bytes).await?;
    match (&setup.way, wait) {
        (Way::Amqp(broker), Some(limit)) => wait::send(&job, broker, limit, json).await,
        (Way::Amqp(broker), None) => send_alone(&job, broker).await,
        (Way::Sql(store), _) => sql::send(&job, store, wait, json).await,
    }
}

async fn send_alone(job: &NewJob, broker: &BrokerConfig) -> anyhow::Result<ExitCode> {
    let sender = send::connect(broker).await?;
    let sent = sender.send(job.message(sender.names(), None)).await;
    sender.close().await;
    sent?;
    output::line(&job.id.to_string())?;
    Ok(ExitCode::SUCCESS)
}

impl EnqueueArgs {
    fn setup(&self, problems: &mut Problems) -> Option<Setup> {
        // Of the other way nothing needs to be right.
        let way = match self.via {
            Via::Amqp => self.broker.parse(problems).map(Way::Amqp),
            Via::Sql => self.store.parse(problems).map(Way::Sql),
        };
        let bytes = &self.chat_max_job_bytes;
        let max_job_bytes = problems.number("CHAT_MAX_JOB_BYTES", bytes, 1024, 16 << 20);
        Some(Setup {
            way: way?,
            max_job_bytes: max_job_bytes?,
        })
    }

    async fn into_job(self, max_bytes: usize) -> anyhow::Result<NewJob> {
        let text = match self.text.as_slice() {
            [dash] if dash == "-" => String::from_utf8(file::read_all("-".into()).await?)
                .map_err(|error| Usage(format!("standard input is not UTF-8: {error}")))?,
            words => words.join(" "),
        };
        let wish = job::Wish {
            text,
            user: self.user,
            conversation: self.conversation,
            job_id: self.job_id,
            model: self.model,
            system: self.system,
            stream: self.stream,
        };
        wish.into_job(max_bytes)
    }
}

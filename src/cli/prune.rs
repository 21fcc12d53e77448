use std::process::ExitCode;
use std::time::Duration;

use super::progress::Bar;
use super::{age, checked, failure, init_quiet_logs, output};
use crate::config::StoreSettings;
use crate::store::{Prunable, Store, StoreError};

/// Jobs that are deleted at once. Few, since each brings all its rows along, and the conversations of
/// a batch take no job in meanwhile.
const JOBS: i64 = 200;
/// Dead letters that are deleted at once.
const DEAD_LETTERS: i64 = 1000;

/// The arguments of `prune`.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// How old: a number and one of s, m, h, d, w, such as 90d
    #[arg(long, value_name = "AGE", value_parser = age::parse)]
    older_than: Duration,
    #[command(flatten)]
    store: StoreSettings,
}

/// What was deleted so far.
#[derive(Default)]
struct Pruned {
    jobs: u64,
    conversations: u64,
    dead_letters: u64,
    workers: u64,
    cancels: u64,
    costs: u64,
    /// Jobs that were left.
    in_use: u64,
}

/// Deletes what is old.
pub(super) async fn run(args: &PruneArgs) -> anyhow::Result<ExitCode> {
    let config = checked(|problems| args.store.parse(problems))?;
    init_quiet_logs()?;
    let store = Store::connect(&config).await?;
    let found = store.find_prunable(args.older_than).await;
    let found = found.map_err(failure::of_store)?;
    let mut pruned = Pruned::default();
    let done = prune(&store, found, &mut pruned).await;
    store.close().await;
    let report = pruned.report();
    done.map_err(|error| failure::of_store(error).context(format!("{report}; then it failed")))?;
    output::line(&report)?;
    if pruned.in_use > 0 {
        output::say(&format!(
            "{} in use and left for the next time",
            many(pruned.in_use, "job is", "jobs are")
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// In batches, so that no statement takes long; what gets old meanwhile is left.
async fn prune(store: &Store, found: Prunable, pruned: &mut Pruned) -> Result<(), StoreError> {
    let rows = usize::try_from(found.jobs.saturating_add(found.dead_letters)).unwrap_or_default();
    let bar = Bar::new(rows, "deleted");
    let done = delete(store, found, pruned, &bar).await;
    bar.end();
    done
}

async fn delete(
    store: &Store,
    Prunable { until, .. }: Prunable,
    pruned: &mut Pruned,
    bar: &Bar,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let batch = store.prune_jobs(until, after, JOBS).await?;
        pruned.jobs += batch.jobs;
        pruned.conversations += batch.conversations;
        pruned.in_use += batch.in_use;
        bar.step_by(batch.jobs);
        after = batch.last;
        if after.is_none() {
            break;
        }
    }
    loop {
        let batch = store.drop_dead_letters_until(until, DEAD_LETTERS).await?;
        pruned.dead_letters += batch;
        bar.step_by(batch);
        if batch == 0 {
            break;
        }
    }
    pruned.workers = store.prune_workers(until).await?;
    pruned.cancels = store.prune_cancels(until).await?;
    pruned.costs = store.prune_user_costs(until).await?;
    Ok(())
}

impl Pruned {
    fn report(&self) -> String {
        format!(
            "deleted {}, {}, {}, {}, {}, {}",
            many(self.jobs, "job", "jobs"),
            many(self.conversations, "conversation", "conversations"),
            many(self.dead_letters, "dead letter", "dead letters"),
            many(self.workers, "worker", "workers"),
            many(self.cancels, "kept cancel", "kept cancels"),
            many(self.costs, "day of a user's costs", "days of users' costs"),
        )
    }
}

fn many(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

use std::process::ExitCode;
use std::time::Duration;

use uuid::Uuid;

use super::super::progress::Bar;
use super::super::{age, checked, failure, init_quiet_logs, output};
use super::letters;
use crate::config::StoreSettings;
use crate::store::Store;

/// Dead letters that are deleted at once.
const BATCH: i64 = 1000;

/// The arguments of `dead drop`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct DropArgs {
    /// These
    #[arg(value_name = "ID", group = "which")]
    ids: Vec<Uuid>,
    /// All there are, those that were not replayed too
    #[arg(long, group = "which")]
    all: bool,
    /// All that are older: a number and one of s, m, h, d, w, such as 30d
    #[arg(long, value_name = "AGE", group = "which", value_parser = age::parse)]
    older_than: Option<Duration>,
    #[command(flatten)]
    store: StoreSettings,
}

/// Deletes dead letters.
pub(super) async fn run(args: &DropArgs) -> anyhow::Result<ExitCode> {
    let config = checked(|problems| args.store.parse(problems))?;
    init_quiet_logs()?;
    let store = Store::connect(&config).await?;
    let dropped = if args.ids.is_empty() {
        drop_older(&store, args.older_than.unwrap_or_default()).await
    } else {
        drop_these(&store, &args.ids).await
    };
    store.close().await;
    dropped
}

async fn drop_these(store: &Store, ids: &[Uuid]) -> anyhow::Result<ExitCode> {
    let dropped = store.drop_dead_letters(ids).await;
    let dropped = dropped.map_err(failure::of_store)?;
    let unknown: Vec<_> = ids.iter().filter(|id| !dropped.contains(id)).collect();
    for id in &unknown {
        output::complain(&format!("there is no dead letter {id} in this database"));
    }
    let many = u64::try_from(dropped.len()).unwrap_or(u64::MAX);
    output::line(&format!("{} dropped", letters(many)))?;
    Ok(ExitCode::from(u8::from(!unknown.is_empty())))
}

/// In batches, so that no statement takes long; those that come meanwhile are left.
async fn drop_older(store: &Store, age: Duration) -> anyhow::Result<ExitCode> {
    let count = store.count_dead_letters(age, true).await;
    let count = count.map_err(failure::of_store)?;
    let bar = Bar::new(usize::try_from(count.many).unwrap_or_default(), "dropped");
    let dropped = loop {
        match store.drop_dead_letters_until(count.until, BATCH).await {
            Ok(0) => break Ok(()),
            Ok(many) => bar.step_by(many),
            Err(error) => break Err(failure::of_store(error)),
        }
    };
    let many = letters(bar.end());
    dropped.map_err(|error| error.context(format!("{many} dropped, then it failed")))?;
    output::line(&format!("{many} dropped"))?;
    Ok(ExitCode::SUCCESS)
}

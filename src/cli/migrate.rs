use std::process::ExitCode;

use super::{checked, failure, init_quiet_logs, output};
use crate::config::{StoreConfig, StoreSettings};
use crate::store::Store;

/// The arguments of `migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    store: StoreSettings,
}

/// Brings the schema up to date.
pub(super) async fn run(args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    let config = checked(|problems| args.store.parse(problems))?;
    init_quiet_logs()?;
    // The lock that is held meanwhile belongs to a session, which a transaction pooler has not.
    let store = Store::connect(&StoreConfig {
        url: config.direct_url.clone(),
        ..config
    })
    .await?;
    let migrated = store.migrate().await;
    store.close().await;
    migrated.map_err(failure::of_store)?;
    output::line("the schema is up to date")?;
    Ok(ExitCode::SUCCESS)
}

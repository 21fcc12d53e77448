use std::process::ExitCode;

use uuid::Uuid;

use super::failure::{self, Usage};
use super::{checked, init_quiet_logs, output};
use crate::config::StoreSettings;
use crate::escape::armour_text;
use crate::ids::JobId;
use crate::store::{Cancelled, Store};

/// The longest reason that a control message may give, in bytes.
const MAX_REASON: usize = 1000;

/// The arguments of `cancel`.
#[derive(Debug, clap::Args)]
pub(super) struct CancelArgs {
    /// The job's id
    #[arg(value_name = "JOB_ID")]
    job: Uuid,
    /// Why; it is kept with the job
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    store: StoreSettings,
}

/// Calls a job off.
pub(super) async fn run(args: &CancelArgs) -> anyhow::Result<ExitCode> {
    let config = checked(|problems| args.store.parse(problems))?;
    let reason = args.reason.as_deref().map(armour_text);
    if let Some(size) = reason.as_ref().map(|reason| reason.len())
        && size > MAX_REASON
    {
        let text = format!("--reason: expected at most {MAX_REASON} bytes, got {size}");
        return Err(Usage(text).into());
    }
    init_quiet_logs()?;
    let store = Store::connect(&config).await?;
    let asked = store.request_cancel(JobId(args.job), reason.as_deref(), None);
    let asked = asked.await;
    store.close().await;
    let job = args.job;
    let text = match asked.map_err(failure::of_store)? {
        Cancelled::Requested => {
            format!("the job {job} is called off; a worker ends it within a second")
        }
        Cancelled::Finished => format!("the job {job} had ended already; nothing changed"),
        Cancelled::Kept => format!(
            "nobody knows the job {job} yet; the cancel is kept for 24 h and applied if the job comes"
        ),
        Cancelled::Forbidden => anyhow::bail!("the job {job} is another user's"),
    };
    output::line(&text)?;
    Ok(ExitCode::SUCCESS)
}

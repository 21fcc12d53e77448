use std::process::ExitCode;

use uuid::Uuid;

use super::failure::{self, Usage};
use super::{checked, init_quiet_logs, output};
use crate::config::StoreSettings;
use crate::escape::armour_text;
use crate::ids::JobId;
use crate::store::{Decided, Ruling, Store};

/// The longest text of a person's that a control message may hold, in bytes.
const MAX_TEXT: usize = 1000;

/// The arguments of `approve` and `deny`.
#[derive(Debug, clap::Args)]
pub(super) struct RuleArgs {
    /// The job's id
    #[arg(value_name = "JOB_ID")]
    job: Uuid,
    /// The id of the call: `chat-worker show JOB_ID` shows what waits
    #[arg(value_name = "CALL_ID")]
    call: String,
    /// Who decides; it is kept with the call
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Why; it is kept with the call, and the model reads why a call was denied
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    store: StoreSettings,
}

/// Lets a call that waits be made, or has it not be made.
pub(super) async fn run(args: &RuleArgs, approves: bool) -> anyhow::Result<ExitCode> {
    let config = checked(|problems| args.store.parse(problems))?;
    let call = armour_text(&args.call);
    let by = args.by.as_deref().map(armour_text);
    let reason = args.reason.as_deref().map(armour_text);
    for (flag, text) in [("--by", &by), ("--reason", &reason)] {
        if let Some(size) = text.as_ref().map(|text| text.len())
            && size > MAX_TEXT
        {
            let text = format!("{flag}: expected at most {MAX_TEXT} bytes, got {size}");
            return Err(Usage(text).into());
        }
    }
    init_quiet_logs()?;
    let store = Store::connect(&config).await?;
    let ruling = Ruling {
        job: JobId(args.job),
        call: &call,
        approves,
        by: by.as_deref(),
        reason: reason.as_deref(),
    };
    let decided = store.decide(ruling, false).await;
    store.close().await;
    let decided = decided.map_err(failure::of_store)?;
    let (call, job) = (&args.call, args.job);
    if let Some((_, what)) = decided.complaint() {
        anyhow::bail!("call {call} of job {job}: {what}");
    }
    let done = if approves { "approved" } else { "denied" };
    let text = if decided == Decided::Before {
        format!("the call {call} was {done} before; nothing changed")
    } else {
        format!("the call {call} is {done}; the job {job} goes on when all that wait are decided")
    };
    output::line(&text)?;
    Ok(ExitCode::SUCCESS)
}

use std::process::ExitCode;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::output::{self, Screen};
use super::{checked, failure, init_quiet_logs, timeline};
use crate::config::StoreSettings;
use crate::escape::disarm;
use crate::ids::JobId;
use crate::store::{ShownCall, ShownIteration, ShownJob, Store};

/// The arguments of `show`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// The job's id
    #[arg(value_name = "JOB_ID")]
    job: Uuid,
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreSettings,
}

/// Shows a job.
pub(super) async fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let config = checked(|problems| args.store.parse(problems))?;
    init_quiet_logs()?;
    let store = Store::connect(&config).await?;
    let found = store.find_shown(JobId(args.job)).await;
    store.close().await;
    let Some(job) = found.map_err(failure::of_store)? else {
        anyhow::bail!(
            "there is no job {} in this database; it may not have been taken in yet, or it was pruned",
            args.job
        );
    };
    if args.json {
        output::json(&disarm(&serde_json::to_string_pretty(&JsonJob::of(&job)?)?))?;
    } else {
        let text = timeline::render(&job, Screen::stdout());
        output::line(text.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A job in which the arguments of calls are JSON, and not JSON in a text.
#[derive(Serialize)]
struct JsonJob {
    #[serde(flatten)]
    fields: Map<String, Value>,
    iterations: Vec<JsonIteration>,
}

#[derive(Serialize)]
struct JsonIteration {
    #[serde(flatten)]
    fields: Map<String, Value>,
    tool_calls: Vec<JsonCall>,
}

#[derive(Serialize)]
struct JsonCall {
    #[serde(flatten)]
    fields: Map<String, Value>,
    arguments: Arguments,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Arguments {
    /// As the model wrote them, to the last digit.
    Json(Box<RawValue>),
    /// The model wrote no JSON.
    Text(String),
}

impl JsonJob {
    fn of(job: &ShownJob) -> serde_json::Result<Self> {
        let rounds = job.iterations.iter().map(JsonIteration::of);
        Ok(Self {
            fields: fields(job, "iterations")?,
            iterations: rounds.collect::<Result<_, _>>()?,
        })
    }
}

impl JsonIteration {
    fn of(round: &ShownIteration) -> serde_json::Result<Self> {
        let calls = round.tool_calls.iter().map(JsonCall::of);
        Ok(Self {
            fields: fields(round, "tool_calls")?,
            tool_calls: calls.collect::<Result<_, _>>()?,
        })
    }
}

impl JsonCall {
    fn of(call: &ShownCall) -> serde_json::Result<Self> {
        let arguments = RawValue::from_string(call.arguments.clone());
        Ok(Self {
            fields: fields(call, "arguments")?,
            arguments: arguments.map_or_else(
                |_no_json| Arguments::Text(call.arguments.clone()),
                Arguments::Json,
            ),
        })
    }
}

/// All fields but one.
fn fields(of: &impl Serialize, but: &str) -> serde_json::Result<Map<String, Value>> {
    let mut fields = match serde_json::to_value(of)? {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    fields.remove(but);
    Ok(fields)
}

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use console::{measure_text_width, truncate_str};

use super::super::output::{self, Screen};
use super::super::text::one_line;
use super::super::{checked, failure, init_quiet_logs};
use crate::config::StoreSettings;
use crate::escape::disarm;
use crate::store::{BuriedFilter, BuriedHead, Store};

/// Dead letters that are read at once.
const PAGE: i64 = 500;
/// The least columns of a message on a terminal: where they do not fit the line is broken.
const LEAST_MESSAGE: usize = 40;

/// The arguments of `dead list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only those with this error code
    #[arg(long)]
    code: Option<String>,
    /// Also those that were replayed
    #[arg(long)]
    all: bool,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreSettings,
}

/// Lists dead letters.
pub(super) async fn run(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let config = checked(|problems| args.store.parse(problems))?;
    init_quiet_logs()?;
    let store = Store::connect(&config).await?;
    let listed = list(args, &store).await;
    store.close().await;
    match listed? {
        Listed::All => {}
        Listed::None => output::say("there are no such dead letters"),
        Listed::Some => output::say(&format!(
            "there are more than these {}; see more with --limit",
            args.limit
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// How much of what there is was listed.
enum Listed {
    All,
    None,
    Some,
}

async fn list(args: &ListArgs, store: &Store) -> anyhow::Result<Listed> {
    let filter = BuriedFilter {
        code: args.code.as_deref(),
        replayed: args.all,
    };
    let screen = Screen::stdout();
    let (mut left, mut last) = (i64::from(args.limit), None);
    loop {
        // One more than is shown tells whether there are more.
        let asked = left.saturating_add(1).min(PAGE);
        let page = store.newest_dead_letters(filter, last, asked).await;
        let mut page = page.map_err(failure::of_store)?;
        let got = i64::try_from(page.len()).unwrap_or(i64::MAX);
        if got == 0 && last.is_none() {
            return Ok(Listed::None);
        }
        page.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        print(&page, args.json, screen)?;
        last = page.last().map(BuriedHead::place).or(last);
        if got > left {
            return Ok(Listed::Some);
        }
        left -= got;
        if got < asked {
            return Ok(Listed::All);
        }
    }
}

fn print(page: &[BuriedHead], json: bool, screen: Screen) -> anyhow::Result<()> {
    let codes = page.iter().map(|head| measure_text_width(&head.error_code));
    let codes = codes.max().unwrap_or(0);
    for head in page {
        if json {
            output::json(&disarm(&serde_json::to_string(head)?))?;
        } else {
            output::line(&row(head, codes, screen))?;
        }
    }
    Ok(())
}

fn row(head: &BuriedHead, codes: usize, screen: Screen) -> String {
    let id = screen.style().bold().apply_to(head.id);
    let code = format!("{:codes$}", one_line(&head.error_code));
    let code = screen.style().red().apply_to(code);
    let job = match head.job_id {
        Some(job) => job.to_string(),
        None => format!("{:36}", "-"),
    };
    let replayed = match head.replayed_at {
        Some(_) => format!("{}  ", screen.style().dim().apply_to("(replayed)")),
        None => String::new(),
    };
    let start = format!("{id}  {}  {code}  {job}  {replayed}", time(head.created_at));
    let message = one_line(&head.error_message);
    if !screen.terminal {
        return format!("{start}{message}");
    }
    let room = screen.width.saturating_sub(measure_text_width(&start));
    let message = truncate_str(&message, room.max(LEAST_MESSAGE), "…");
    format!("{start}{message}")
}

pub(super) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

use std::process::ExitCode;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::output::{self, Screen};
use super::super::text::one_line;
use super::super::{checked, failure, init_quiet_logs};
use super::body::{self, Kind};
use super::list::time;
use crate::config::StoreSettings;
use crate::escape::{armour_text, disarm, disarm_well_formed};
use crate::store::{BuriedHead, BuriedLetter, Store};

/// The arguments of `dead show`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// The dead letter's id
    id: Uuid,
    /// Print everything as one JSON object; the body is a text, or `body_hex` if it is not UTF-8
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreSettings,
}

/// Shows a dead letter.
pub(super) async fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let config = checked(|problems| args.store.parse(problems))?;
    init_quiet_logs()?;
    let store = Store::connect(&config).await?;
    let found = store.find_dead_letter(args.id).await;
    store.close().await;
    let Some(letter) = found.map_err(failure::of_store)? else {
        anyhow::bail!("there is no dead letter {} in this database", args.id);
    };
    if args.json {
        output::json(&as_json(&letter)?)?;
    } else {
        output::line(render(&letter, Screen::stdout()).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A dead letter as `--json` prints it.
#[derive(Serialize)]
struct JsonLetter<'a> {
    #[serde(flatten)]
    head: &'a BuriedHead,
    properties: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
}

fn as_json(letter: &BuriedLetter) -> serde_json::Result<String> {
    // All is disarmed together, and the body as it is stored is no armoured text.
    let body = std::str::from_utf8(&letter.body).ok().map(armour_text);
    let json = serde_json::to_string_pretty(&JsonLetter {
        head: &letter.head,
        properties: serde_json::from_str(&letter.properties)?,
        body: body.as_deref(),
        body_hex: body.is_none().then(|| hex(&letter.body)),
    })?;
    Ok(disarm(&json).into_owned())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

/// The whole text, with a new line at its end.
fn render(letter: &BuriedLetter, screen: Screen) -> String {
    let head = &letter.head;
    let title = screen.style().bold().apply_to("dead letter");
    let mut out = format!("{title} {}\n", head.id);
    let mut field = |name: &str, text: &str| {
        let name = screen.style().dim().apply_to(format!("{name:10}"));
        push(&mut out, &format!("  {name} {text}"));
    };
    let error = format!("{}: {}", head.error_code, head.error_message);
    let error = screen.style().red().apply_to(one_line(&error)).to_string();
    field("error", &error);
    let job = head.job_id.map_or("-".to_owned(), |job| job.to_string());
    field("job", &job);
    field("created", &time(head.created_at));
    field("replayed", &head.replayed_at.map_or("no".to_owned(), time));
    let properties = disarm_well_formed(&letter.properties);
    section(
        "properties",
        "",
        &body::readable(properties.as_bytes()),
        screen,
        &mut out,
    );
    let kind = Kind::of(&letter.body).name();
    let about = format!("  {} bytes, {kind}", letter.body.len());
    section(
        "body",
        &about,
        &body::readable(&letter.body),
        screen,
        &mut out,
    );
    out
}

fn section(name: &str, about: &str, text: &str, screen: Screen, out: &mut String) {
    let name = screen.style().bold().apply_to(name);
    push(out, &format!("\n{name}{about}"));
    for line in text.lines() {
        push(out, &format!("  {line}"));
    }
}

fn push(out: &mut String, line: &str) {
    out.push_str(line.trim_end_matches(' '));
    out.push('\n');
}

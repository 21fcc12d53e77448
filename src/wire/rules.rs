//! The rules of the job message that no type can hold.

use chrono::Datelike as _;
use globset::Glob;

use super::{Job, ReplyFormat, images};
use crate::chat::{Content, Message, ModelOptions};
use crate::fault::{ErrorCode, Failure};
use crate::ids::UserId;

/// The largest metadata, in bytes of JSON.
const MAX_METADATA_BYTES: usize = 16 * 1024;
/// The most globs of a list, and the longest of them: a tool's name has 64 characters at most.
const MAX_GLOBS: usize = 128;
const MAX_GLOB_BYTES: usize = 255;
/// The most messages of one job, parts of a message, and globs or server names of a selection.
const MAX_ITEMS: usize = 2_000;
/// What a user's id is expected to be.
pub(super) const USER_ID: &str = "expected 1 to 255 characters of A-Z a-z 0-9 . _ : @ + / = - |";

/// Checks `job` against the rules.
///
/// # Errors
/// The first rule that it breaks, with the place.
pub fn check(job: &Job) -> Result<(), Failure> {
    if let Some(version) = job.version.filter(|version| *version != 1) {
        return Err(unsupported(version));
    }
    if UserId::new(&job.user_id).is_none() {
        return refuse("/user_id", USER_ID);
    }
    check_messages(&job.messages)?;
    range("/max_iterations", job.max_iterations, 1, 100)?;
    if job
        .model
        .as_ref()
        .is_some_and(|model| model.trim().is_empty() || model.len() > 255)
    {
        return refuse("/model", "expected the name of a model, 1 to 255 bytes");
    }
    check_tools(job)?;
    if let Some(options) = &job.options {
        check_options(options)?;
    }
    range(
        "/budget/total_tokens",
        job.budget.and_then(|budget| budget.total_tokens),
        1,
        u64::MAX,
    )?;
    check_metadata(job)?;
    for (pointer, time) in [("/not_before", job.not_before), ("/deadline", job.deadline)] {
        if time.is_some_and(|time| !(1..=9999).contains(&time.year())) {
            return refuse(pointer, "expected a time of the years 1 to 9999");
        }
    }
    Ok(())
}

/// What a job of another version is refused with.
pub(super) fn unsupported(version: u64) -> Failure {
    let text = format!("/version: this worker knows version 1, got {version}");
    Failure::new(ErrorCode::UnsupportedVersion, text)
}

/// That `pointer` is wrong, and what was expected.
pub(super) fn refuse(pointer: &str, expected: &str) -> Result<(), Failure> {
    Err(Failure::new(
        ErrorCode::InvalidJob,
        format!("{pointer}: {expected}"),
    ))
}

fn range<N>(pointer: &str, number: Option<N>, least: N, most: N) -> Result<(), Failure>
where
    N: Copy + PartialOrd + std::fmt::Display,
{
    match number {
        Some(number) if number < least || number > most => refuse(
            pointer,
            &format!("expected a number from {least} to {most}, got {number}"),
        ),
        Some(_) | None => Ok(()),
    }
}

fn check_messages(messages: &[std::sync::Arc<Message>]) -> Result<(), Failure> {
    if messages.is_empty() || messages.len() > MAX_ITEMS {
        let found = messages.len();
        return refuse(
            "/messages",
            &format!("expected 1 to {MAX_ITEMS} messages, got {found}"),
        );
    }
    for (at, message) in messages.iter().enumerate() {
        let Content::Parts(parts) = &message.content else {
            continue;
        };
        if parts.is_empty() || parts.len() > MAX_ITEMS {
            let found = parts.len();
            return refuse(
                &format!("/messages/{at}/content"),
                &format!("expected a string or 1 to {MAX_ITEMS} parts, got {found}"),
            );
        }
        for (number, part) in parts.iter().enumerate() {
            images::check_part(message, part, &format!("/messages/{at}/content/{number}"))?;
        }
    }
    Ok(())
}

fn check_tools(job: &Job) -> Result<(), Failure> {
    let Some(tools) = &job.tools else {
        return Ok(());
    };
    for (field, globs) in [("allow", &tools.allow), ("deny", &tools.deny)] {
        if globs.len() > MAX_GLOBS {
            return refuse(
                &format!("/tools/{field}"),
                &format!("expected at most {MAX_GLOBS} globs"),
            );
        }
        for (at, glob) in globs.iter().enumerate() {
            if glob.len() > MAX_GLOB_BYTES {
                let expected = format!("expected a glob of at most {MAX_GLOB_BYTES} bytes");
                return refuse(&format!("/tools/{field}/{at}"), &expected);
            }
            if let Err(error) = Glob::new(glob) {
                return refuse(
                    &format!("/tools/{field}/{at}"),
                    &format!("expected a glob: {error}"),
                );
            }
        }
    }
    if tools
        .servers
        .as_ref()
        .is_some_and(|servers| servers.len() > MAX_ITEMS)
    {
        return refuse("/tools/servers", "has too many names");
    }
    Ok(())
}

fn check_options(options: &ModelOptions) -> Result<(), Failure> {
    range("/options/temperature", options.temperature, 0.0, 2.0)?;
    range("/options/top_p", options.top_p, 0.0, 1.0)?;
    range(
        "/options/max_output_tokens",
        options.max_output_tokens,
        1,
        u32::MAX,
    )?;
    if options
        .stop
        .as_ref()
        .is_some_and(|stop| !(1..=4).contains(&stop.len()) || stop.iter().any(String::is_empty))
    {
        return refuse("/options/stop", "expected 1 to 4 texts that are not empty");
    }
    ReplyFormat::of(options).map(|_format| ())
}

fn check_metadata(job: &Job) -> Result<(), Failure> {
    let Some(metadata) = &job.metadata else {
        return Ok(());
    };
    let size = serde_json::to_string(metadata).map_or(usize::MAX, |text| text.len());
    if size > MAX_METADATA_BYTES {
        return refuse(
            "/metadata",
            &format!("expected at most {MAX_METADATA_BYTES} bytes of JSON, got {size}"),
        );
    }
    Ok(())
}

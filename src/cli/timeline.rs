//! A job as people read it: a head, a line a model call and a tool call, the reply. Pure.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use console::{Style, measure_text_width, truncate_str};

use super::output::Screen;
use super::text::{duration, one_line, paragraph};
use crate::store::{ShownCall, ShownIteration, ShownJob};

/// The whole text, with a new line at its end.
pub(super) fn render(job: &ShownJob, screen: Screen) -> String {
    let mut out = String::new();
    head(job, screen, &mut out);
    let start = job.started_at.unwrap_or(job.received_at);
    if !job.iterations.is_empty() {
        out.push('\n');
    }
    for round in &job.iterations {
        out.push_str(&model_line(round, start, screen));
        for call in &round.tool_calls {
            out.push_str(&call_line(call, start, screen));
            out.push_str(&approval_line(job, call, screen));
        }
    }
    if let Some(reply) = &job.reply {
        let title = screen.style().bold().apply_to("reply");
        push(&mut out, &format!("\n{title}"));
        for line in paragraph(reply).lines() {
            push(&mut out, &format!("  {line}"));
        }
    }
    out
}

fn head(job: &ShownJob, screen: Screen, out: &mut String) {
    let bold = screen.style().bold();
    let status = status_style(&job.status, screen).apply_to(&job.status);
    let mut title = format!("{} {}  {status}", bold.apply_to("job"), job.job_id);
    for detail in [&job.finish_reason, &job.wait_reason].into_iter().flatten() {
        write!(title, " ({})", one_line(detail)).unwrap_or_default();
    }
    push(out, &title);
    let mut field = |name: &str, text: String| {
        let name = screen.style().dim().apply_to(format!("{name:13}"));
        push(out, &format!("  {name} {text}"));
    };
    field("user", one_line(&job.user_id));
    let turn = job
        .turn
        .map_or(String::new(), |turn| format!(", turn {turn}"));
    field("conversation", format!("{}{turn}", job.conversation_id));
    if let Some(model) = &job.model {
        field("model", one_line(model));
    }
    field("received", received(job));
    if let Some(started) = job.started_at {
        let waited = duration(started - job.received_at);
        field("started", format!("{}  after {waited}", time(started)));
    }
    if let Some(finished) = job.finished_at {
        let took = duration(finished - job.started_at.unwrap_or(job.received_at));
        field("finished", format!("{}  in {took}", time(finished)));
        field("result", published(job, finished));
    }
    field("attempt", job.attempt.to_string());
    field(
        "tokens",
        format!("{} in, {} out", job.input_tokens, job.output_tokens),
    );
    for warning in &job.warnings {
        field("warning", one_line(warning));
    }
    if let Some(code) = &job.error_code {
        let text = job.error_message.as_deref().unwrap_or_default();
        let text = format!("{}: {}", one_line(code), one_line(text));
        field("error", screen.style().red().apply_to(text).to_string());
    }
}

fn received(job: &ShownJob) -> String {
    match job.enqueued_at {
        Some(sent) => format!("{}  sent {}", time(job.received_at), time(sent)),
        None => time(job.received_at),
    }
}

fn published(job: &ShownJob, finished: DateTime<Utc>) -> String {
    match job.result_published_at {
        Some(at) => format!("{}  published after {}", time(at), duration(at - finished)),
        None => "not published yet".to_owned(),
    }
}

fn model_line(round: &ShownIteration, start: DateTime<Utc>, screen: Screen) -> String {
    let took = round.finished_at - round.started_at;
    let model = round.model.as_deref().unwrap_or("model");
    let mut text = format!(
        "{} {}  {} in, {} out",
        screen.style().cyan().apply_to("model"),
        screen.style().bold().apply_to(one_line(model)),
        round.input_tokens,
        round.output_tokens
    );
    if let Some(reason) = &round.finish_reason {
        write!(text, ", {}", one_line(reason)).unwrap_or_default();
    }
    if let Some(content) = round.content.as_deref().filter(|text| !text.is_empty()) {
        write!(text, "  {}", one_line(content)).unwrap_or_default();
    }
    line(Some(round.started_at - start), Some(took), &text, screen)
}

fn call_line(call: &ShownCall, start: DateTime<Utc>, screen: Screen) -> String {
    let server = call
        .server
        .as_ref()
        .map_or(String::new(), |server| format!("{}/", one_line(server)));
    let name = format!("{server}{}", one_line(&call.tool));
    let status = status_style(&call.status, screen).apply_to(&call.status);
    let head = format!(
        "{}  {}  {status}  ",
        screen.style().magenta().apply_to("tool"),
        screen.style().bold().apply_to(name)
    );
    let result = call.result.as_deref().map(one_line);
    // Half of what is left for the arguments, unless the result needs less.
    let left = screen
        .width
        .saturating_sub(PREFIX + measure_text_width(&head) + 4);
    let needed = result.as_deref().map_or(0, measure_text_width);
    let room = left.saturating_sub(needed).max(left / 2);
    let arguments = one_line(&call.arguments);
    let mut text = format!("{head}{}", truncate_str(&arguments, room, "…"));
    if let Some(result) = &result {
        write!(text, " → {result}").unwrap_or_default();
    }
    let took = call
        .started_at
        .zip(call.finished_at)
        .map(|(from, to)| to - from);
    line(call.started_at.map(|at| at - start), took, &text, screen)
}

/// What a person said of a call, or how to say it.
fn approval_line(job: &ShownJob, call: &ShownCall, screen: Screen) -> String {
    let Some(until) = call.approval_expires_at else {
        return String::new();
    };
    let text = match &call.approval {
        Some(approval) => {
            let mut text = one_line(approval);
            if let Some(by) = &call.approval_by {
                write!(text, " by {}", one_line(by)).unwrap_or_default();
            }
            if let Some(reason) = &call.approval_reason {
                write!(text, ": {}", one_line(reason)).unwrap_or_default();
            }
            text
        }
        None if job.finished_at.is_some() => "never approved".to_owned(),
        // Not cut: it is there to be copied.
        None => {
            let command = format!(
                "chat-worker approve {} {}",
                job.job_id,
                one_line(&call.call_id)
            );
            let waits = screen.style().yellow().apply_to("waits for approval");
            let line = format!("{:PREFIX$}{waits} until {}: {command}", "", time(until));
            return format!("{line}\n");
        }
    };
    let line = format!("{:PREFIX$}{text}", "");
    format!("{}\n", truncate_str(&line, screen.width, "…").trim_end())
}

/// Columns before the text of a line.
const PREFIX: usize = 2 + 1 + 11 + 2 + 11 + 2;

fn line(offset: Option<TimeDelta>, took: Option<TimeDelta>, text: &str, screen: Screen) -> String {
    let offset = offset.map_or(String::new(), |offset| format!("+{}", duration(offset)));
    let took = took.map_or("—".to_owned(), duration);
    let times = screen
        .style()
        .dim()
        .apply_to(format!("{offset:>12}  {took:>11}"));
    let line = format!("  {times}  {text}");
    format!("{}\n", truncate_str(&line, screen.width, "…").trim_end())
}

fn status_style(status: &str, screen: Screen) -> Style {
    match status {
        "completed" | "succeeded" => screen.style().green(),
        "failed" | "refused" | "interrupted" => screen.style().red(),
        _ => screen.style().yellow(),
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

fn push(out: &mut String, line: &str) {
    out.push_str(line.trim_end_matches(' '));
    out.push('\n');
}

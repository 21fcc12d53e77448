//! `up`, `down`, `status`, `env` and `ctl`: services that outlive a command.

use std::time::Instant;

use crate::args::{self, Options};
use crate::failure::Failure;
use crate::guard::Guard;
use crate::services::kept::{self, State};
use crate::services::{Purpose, Request, Starting, user};
use crate::{cargo, paths, process, report};

/// Starts them, or finds them started, and prints how to use them.
pub(crate) fn up(options: &Options) -> Result<(), Failure> {
    let source = args::source_or(options, std::env::var("SERVICES").ok().as_deref())?;
    let guard = Guard::start()?;
    let begin = Instant::now();
    let started = Starting::begin(
        Request {
            purpose: Purpose::Both,
            source,
            durable: options.durable,
            keep: true,
        },
        &guard,
    )
    .and_then(Starting::wait);
    guard.dismiss();
    let services = started?;
    print_exports(Some(&services.database_url), Some(&services.amqp_url));
    report::line(
        "OK",
        &format!(
            "up after {}.  To stop: cargo xtask down",
            report::seconds(begin.elapsed())
        ),
    );
    Ok(())
}

/// Stops them.
pub(crate) fn down() -> Result<(), Failure> {
    let user = user::for_postgres()?;
    let base = paths::services(user.as_ref())?;
    let _lock = kept::lock(&base)?;
    let was_up = State::read(&base).is_some();
    kept::remove(&base);
    report::line(
        "OK",
        if was_up {
            "stopped, nothing left running"
        } else {
            "nothing was up"
        },
    );
    Ok(())
}

/// Says what is up. Fails if nothing is, for use in scripts.
pub(crate) fn status() -> Result<(), Failure> {
    let state = up_now()?;
    for (label, url, name) in [
        ("postgres", &state.database_url, "postgres"),
        ("rabbitmq", &state.amqp_url, "rabbitmq"),
    ] {
        let pid = state
            .pid(name)
            .map(|pid| format!("   pid {pid}"))
            .unwrap_or_default();
        if let Some(url) = url {
            report::line(label, &format!("{url}{pid}"));
        }
    }
    report::line(
        "durable",
        if state.durable {
            "yes"
        } else {
            "no (fsync is off)"
        },
    );
    Ok(())
}

/// For `eval "$(cargo xtask env)"`.
pub(crate) fn env() -> Result<(), Failure> {
    let state = up_now()?;
    print_exports(state.database_url.as_deref(), state.amqp_url.as_deref());
    Ok(())
}

/// rabbitmqctl against the kept node, also one that answers nobody else: after `stop_app` comes `start_app`.
pub(crate) fn ctl(options: &Options) -> Result<(), Failure> {
    let mut command = kept_where(State::has_node)?.control()?;
    let guard = Guard::start()?;
    let ended = process::foreground(command.args(&options.rest), &guard, |_| {});
    guard.dismiss();
    let status = ended?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Child(cargo::code(status)))
    }
}

fn up_now() -> Result<State, Failure> {
    kept_where(State::answers)
}

fn kept_where(is_up: impl FnOnce(&State) -> bool) -> Result<State, Failure> {
    let user = user::for_postgres()?;
    let base = paths::services(user.as_ref())?;
    let state = State::read(&base).filter(is_up);
    state.ok_or_else(|| Failure::Failed("nothing is up; start it with: cargo xtask up".to_owned()))
}

fn print_exports(database_url: Option<&str>, amqp_url: Option<&str>) {
    for (name, url) in [("DATABASE_URL", database_url), ("AMQP_URL", amqp_url)] {
        if let Some(url) = url {
            report::raw(format!("export {name}='{}'\n", url.replace('\'', "'\\''")).as_bytes());
        }
    }
}

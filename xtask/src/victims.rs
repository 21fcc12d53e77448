//! Servers that tests stop, kill and restart: a second pair, so that nobody else's tests feel it.

use std::process::Command;

use crate::failure::Failure;
use crate::guard::Guard;
use crate::report;
use crate::services::choice::Source;
use crate::services::{Purpose, Request, Services, Starting};

/// The test program that needs them.
const TEST: &str = "outages";

/// Begins to start them.
pub(crate) fn begin(source: Option<Source>, guard: &Guard) -> Result<Starting, Failure> {
    let request = Request {
        purpose: Purpose::Victims,
        source,
        durable: false,
        keep: false,
    };
    Starting::begin(request, guard)
}

/// The same for a run of the suite with these arguments, if it needs them. Where there can be none the rest of the
/// suite runs all the same, and the tests that need them fail.
pub(crate) fn begin_for_tests(
    rest: &[String],
    source: Option<Source>,
    guard: &Guard,
) -> Result<Option<Starting>, Failure> {
    if !are_needed(rest) {
        return Ok(None);
    }
    match begin(source, guard) {
        Err(Failure::NoServices(reason)) => {
            report::line("victims", "none, so the tests of outages will fail");
            report::line("", &reason);
            Ok(None)
        }
        begun => begun.map(Some),
    }
}

/// Waits for the suite's own services and for the victims; of two failures the one that came first counts, since the
/// other is that the rest gave up.
pub(crate) fn wait_for_both(
    services: Starting,
    victims: Option<Starting>,
) -> Result<(Services, Option<Services>), Failure> {
    let services = services.wait();
    let victims = victims.map(Starting::wait).transpose();
    match (services, victims) {
        (Ok(services), Ok(victims)) => Ok((services, victims)),
        (Err(Failure::Interrupted) | Ok(_), Err(reason)) | (Err(reason), _) => Err(reason),
    }
}

/// Tells a program where they are and how they are stopped; or that there are none.
pub(crate) fn tell(command: &mut Command, victims: Option<&Services>) {
    for name in [
        "VICTIM_DATABASE_URL",
        "VICTIM_AMQP_URL",
        "VICTIM_PG_CTL",
        "VICTIM_RABBITMQCTL",
    ] {
        command.env_remove(name);
    }
    let Some(services) = victims else {
        return;
    };
    command
        .env("VICTIM_DATABASE_URL", &services.database_url)
        .env("VICTIM_AMQP_URL", &services.amqp_url);
    if let Some(controls) = &services.controls {
        command
            .env("VICTIM_PG_CTL", &controls.postgres)
            .env("VICTIM_RABBITMQCTL", &controls.rabbitmq);
    }
}

/// Whether `cargo test` with these arguments may run the test that needs them.
fn are_needed(rest: &[String]) -> bool {
    let own: Vec<&str> = rest
        .iter()
        .map(String::as_str)
        .take_while(|argument| *argument != "--")
        .collect();
    let packages = values(&own, &["-p", "--package"]);
    let is_ours =
        packages.is_empty() || packages.iter().any(|name| name.starts_with("chat-worker"));
    let tests = values(&own, &["--test"]);
    let is_named = tests.iter().any(|name| name.contains('*') || *name == TEST);
    let selects = |argument: &&str| {
        let kinds = [
            "--lib",
            "--bin",
            "--bins",
            "--example",
            "--examples",
            "--bench",
            "--benches",
            "--doc",
        ];
        kinds.contains(&argument.split('=').next().unwrap_or_default())
    };
    let all = own
        .iter()
        .any(|argument| matches!(*argument, "--tests" | "--all-targets"));
    let is_narrowed = !tests.is_empty() || own.iter().any(selects);
    is_ours && (is_named || all || !is_narrowed)
}

/// What stands behind these options: `--test it`, `--test=it`, `-pxtask`.
fn values<'a>(arguments: &[&'a str], options: &[&str]) -> Vec<&'a str> {
    let mut values = Vec::new();
    for (at, argument) in arguments.iter().enumerate() {
        for option in options {
            if argument == option {
                values.extend(arguments.get(at + 1).copied());
            } else if let Some(value) = argument.strip_prefix(option) {
                let is_short = !option.starts_with("--");
                let value = value.strip_prefix('=').or(is_short.then_some(value));
                values.extend(value);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::are_needed;

    fn needed(line: &str) -> bool {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        are_needed(&words)
    }

    #[test]
    fn a_run_that_may_reach_the_outages_needs_victims() {
        for line in [
            "",
            "-- --skip strangers",
            "broker",
            "--test outages",
            "--test=outages -- close",
            "--test it --test outages",
            "--test out*",
            "--lib --tests",
            "--all-targets",
            "-p chat-worker",
        ] {
            assert!(needed(line), "{line}");
        }
    }

    #[test]
    fn a_run_of_something_else_does_not() {
        for line in [
            "--test it",
            "--test=it outages",
            "--lib",
            "--bin=chat-worker",
            "--doc",
            "-p xtask",
            "-pxtask",
            "--package=xtask --tests",
            "--test it -- --test outages",
        ] {
            assert!(!needed(line), "{line}");
        }
    }
}

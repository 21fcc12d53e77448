//! `cargo xtask test`: the whole suite with real services.

use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use crate::args::{self, Options};
use crate::failure::Failure;
use crate::guard::Guard;
use crate::services::{Purpose, Request, Services, Starting};
use crate::test_lines::{Counter, Counts};
use crate::{cargo, process, report, strangers, sys, victims};

/// Runs it. The last line printed is `N passed, N failed, N skipped`.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let source = args::source_or(options, std::env::var("SERVICES").ok().as_deref())?;
    let guard = Guard::start()?;
    let request = Request {
        purpose: Purpose::Both,
        source,
        durable: options.durable,
        keep: options.keep,
    };
    let outcome = with_services(request, options, &guard);
    guard.dismiss();
    outcome
}

fn with_services(request: Request, options: &Options, guard: &Guard) -> Result<(), Failure> {
    let begin = Instant::now();
    let left_out = left_out(options);
    let rest = if left_out {
        strangers::without()
    } else {
        options.rest.clone()
    };
    let starting = Starting::begin(request, guard)?;
    let victims = victims::begin_for_tests(&rest, request.source, guard)?;
    let compiled = process::foreground(&mut tests(&rest, true), guard, |_| {})?;
    // Who gave up because a server did not start has not failed to compile.
    if !compiled.success() && !sys::stopping() {
        report::line("FAILED", "the tests do not compile");
        return Err(Failure::Child(cargo::code(compiled)));
    }
    let (services, victims) = victims::wait_for_both(starting, victims)?;
    report::line(
        "tests",
        &format!("{}  (DATABASE_URL, AMQP_URL set)", shown(&rest)),
    );
    let mut counter = Counter::new(left_out);
    let mut command = tests(&rest, false);
    command
        .env("DATABASE_URL", &services.database_url)
        .env("AMQP_URL", &services.amqp_url);
    victims::tell(&mut command, victims.as_ref());
    let ended = process::foreground(command.stdout(Stdio::piped()), guard, |piece| {
        report::raw(piece);
        counter.feed(piece);
    });
    let all = std::iter::once(services).chain(victims).collect();
    conclude(ended, counter.finish(), all, begin)
}

/// Whether the tests with programs of others are left out of a whole run, which is said then. Never
/// in CI: there they are to be installed.
fn left_out(options: &Options) -> bool {
    let missing = strangers::missing();
    if missing.is_empty() || !options.rest.is_empty() || std::env::var_os("CI").is_some() {
        return false;
    }
    let packages = missing.join(" ");
    report::line(
        "left out",
        &format!("the tests with programs of others; to run them too: apt-get install {packages}"),
    );
    true
}

fn conclude(
    ended: Result<ExitStatus, Failure>,
    counts: Counts,
    services: Vec<Services>,
    begin: Instant,
) -> Result<(), Failure> {
    // That of the suite's own; the victims are never anybody's.
    let epilogue = services.first().map_or("", |first| first.epilogue);
    let held = ended.as_ref().is_ok_and(ExitStatus::success) && counts.failed == 0;
    let ran = counts.passed + counts.failed > 0;
    for each in services {
        each.finish(!held);
    }
    let status = ended?;
    let label = if held && ran { "OK" } else { "FAILED" };
    let note = if ran { "" } else { " (no test ran)" };
    let seconds = begin.elapsed().as_secs();
    report::line(label, &format!("{counts}{note} in {seconds} s; {epilogue}"));
    report::raw(format!("{counts}\n").as_bytes());
    if held && ran {
        Ok(())
    } else {
        Err(Failure::Child(cargo::code(status)))
    }
}

/// `cargo test --workspace --features failpoints …`. Building takes only the arguments before `--`; running goes on
/// after a failure, so that the counts are those of the whole suite.
fn tests(rest: &[String], build_only: bool) -> Command {
    let mut command = cargo::command(&["test"]);
    command.args(scope(rest)).args(features(rest));
    if build_only {
        command
            .arg("--no-run")
            .args(rest.iter().take_while(|argument| *argument != "--"));
    } else {
        command.arg("--no-fail-fast").args(rest);
    }
    command
}

/// The whole workspace, unless packages are named.
fn scope(rest: &[String]) -> Option<&'static str> {
    let is_named = own(rest).any(|argument| argument == "-p" || argument.starts_with("--package"));
    (!is_named).then_some("--workspace")
}

/// With the boundaries at which tests kill the worker, so that one build serves all tests. Cargo refuses a feature
/// that no chosen package has: this crate has none.
fn features(rest: &[String]) -> &'static [&'static str] {
    let is_worker = |argument: &str| argument.ends_with("chat-worker");
    if scope(rest).is_some() || own(rest).any(is_worker) {
        &["--features", "failpoints"]
    } else {
        &[]
    }
}

/// The arguments that are cargo's and not the test programs'.
fn own(rest: &[String]) -> impl Iterator<Item = &str> {
    let own = rest.iter().map(String::as_str);
    own.take_while(|argument| *argument != "--")
}

fn shown(rest: &[String]) -> String {
    let mut words = vec!["cargo test"];
    words.extend(scope(rest));
    words.extend(features(rest));
    words.extend(rest.iter().map(String::as_str));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{shown, tests};

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn arguments(line: &str, build_only: bool) -> Vec<String> {
        tests(&words(line), build_only)
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn arguments_for_the_test_programs_are_not_given_to_the_build() {
        assert_eq!(
            arguments("--test it -- --nocapture", true),
            [
                "test",
                "--workspace",
                "--features",
                "failpoints",
                "--no-run",
                "--test",
                "it"
            ]
        );
        let run = [
            "test",
            "--workspace",
            "--features",
            "failpoints",
            "--no-fail-fast",
            "--test",
            "it",
            "--",
            "--nocapture",
        ];
        assert_eq!(arguments("--test it -- --nocapture", false), run);
    }

    #[test]
    fn a_named_package_narrows_the_suite() {
        assert_eq!(shown(&words("-p xtask")), "cargo test -p xtask");
        assert_eq!(
            shown(&words("-p chat-worker --lib")),
            "cargo test --features failpoints -p chat-worker --lib"
        );
        assert_eq!(
            shown(&words("-- -p")),
            "cargo test --workspace --features failpoints -- -p"
        );
    }
}

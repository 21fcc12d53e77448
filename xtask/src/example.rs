//! `cargo xtask demo`, `bench` and `chaos`: build the worker and the examples, run one of them with services.

use std::process::Command;
use std::time::Instant;

use crate::args::{self, Options};
use crate::failure::Failure;
use crate::guard::Guard;
use crate::services::{Purpose, Request, Services, Starting};
use crate::{cargo, paths, process, report, sys, victims};

/// What differs between them.
struct Plan {
    example: &'static str,
    purpose: Purpose,
    profile: &'static str,
    build: &'static [&'static str],
    advice: &'static str,
}

/// One job, end to end.
pub(crate) fn demo(options: &Options) -> Result<(), Failure> {
    let build = &["build", "--bin", "chat-worker", "--examples"];
    let advice = if options.keep {
        "cargo xtask status, cargo xtask down"
    } else {
        "cargo xtask demo --keep"
    };
    run(
        &Plan {
            example: "demo",
            purpose: Purpose::Both,
            profile: "debug",
            build,
            advice,
        },
        options,
    )
}

/// The benchmark, as fast as it goes, on services that write to disk.
pub(crate) fn bench(options: &Options) -> Result<(), Failure> {
    let build = &["build", "--release", "--bin", "chat-worker", "--examples"];
    run(
        &Plan {
            example: "bench",
            purpose: Purpose::Both,
            profile: "release",
            build,
            advice: "cargo xtask bench --help",
        },
        options,
    )
}

/// Jobs while everything breaks, on servers that may be broken.
pub(crate) fn chaos(options: &Options) -> Result<(), Failure> {
    let build = &["build", "--bin", "chat-worker", "--examples"];
    run(
        &Plan {
            example: "chaos",
            purpose: Purpose::Victims,
            profile: "debug",
            build,
            advice: "cargo xtask chaos --minutes 10 --seed 7",
        },
        options,
    )
}

fn run(plan: &Plan, options: &Options) -> Result<(), Failure> {
    let source = args::source_or(options, std::env::var("SERVICES").ok().as_deref())?;
    let guard = Guard::start()?;
    let request = Request {
        purpose: plan.purpose,
        source,
        durable: options.durable,
        keep: options.keep,
    };
    let outcome = with_services(request, plan, &options.rest, &guard);
    guard.dismiss();
    outcome
}

fn with_services(
    request: Request,
    plan: &Plan,
    rest: &[String],
    guard: &Guard,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let starting = Starting::begin(request, guard)?;
    let built = process::foreground(&mut cargo::command(plan.build), guard, |_| {})?;
    // Who gave up because a server did not start has not failed to compile.
    if !built.success() && !sys::stopping() {
        report::line("FAILED", "the worker and its examples do not compile");
        return Err(Failure::Child(cargo::code(built)));
    }
    let services = starting.wait()?;
    let mut command = example(plan, &services);
    if request.keep && plan.example == "demo" {
        command.arg("--keep");
    }
    let ended = process::foreground(command.args(rest), guard, |_| {});
    let epilogue = services.epilogue;
    let held = ended.as_ref().is_ok_and(std::process::ExitStatus::success);
    services.finish(!held);
    let status = ended?;
    let time = report::seconds(begin.elapsed());
    if held {
        report::line(
            "OK",
            &format!(
                "{} in {time}; {epilogue}.  Try: {}",
                plan.example, plan.advice
            ),
        );
        return Ok(());
    }
    report::line(
        "FAILED",
        &format!(
            "{} ended with {status} after {time}; {epilogue}",
            plan.example
        ),
    );
    Err(Failure::Child(cargo::code(status)))
}

/// The example and what it is told by its environment; everything else, such as `OPENAI_API_KEY`, it inherits.
fn example(plan: &Plan, services: &Services) -> Command {
    let built = paths::built(plan.profile);
    let examples = built.join("examples");
    let mut command = Command::new(examples.join(plan.example));
    command.current_dir(paths::workspace());
    if plan.purpose == Purpose::Victims {
        victims::tell(&mut command, Some(services));
    } else {
        command
            .env("DATABASE_URL", &services.database_url)
            .env("AMQP_URL", &services.amqp_url);
    }
    command
        .env("CHAT_WORKER_BIN", built.join("chat-worker"))
        .env("CHAT_EXAMPLES_DIR", &examples);
    for (name, pid) in [
        ("BENCH_POSTGRES_PID", services.postgres_pid),
        ("BENCH_RABBITMQ_PID", services.rabbitmq_pid),
    ] {
        match pid {
            Some(pid) => command.env(name, pid.to_string()),
            None => command.env_remove(name),
        };
    }
    command
}

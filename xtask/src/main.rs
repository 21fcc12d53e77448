//! The project's own commands: `cargo xtask demo`, `test`, `bench`, `chaos`, `up`, `down`, `status`, `env`, `ctl`, `sqlx`.
//!
//! Only cargo is assumed. Each command that needs RabbitMQ and PostgreSQL takes them from [`services`], which
//! finds or starts them privately; the other modules are a command each, or one thing they share. std and libc
//! only, so that the first `cargo xtask` builds in seconds.
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool: standard output is its product"
)]

mod amqp;
mod args;
mod cargo;
mod example;
mod failure;
mod guard;
mod keeping;
mod paths;
mod pg;
mod ports;
mod process;
mod report;
mod services;
mod sqlx;
mod strangers;
mod sys;
mod test;
mod test_lines;
mod url;
mod victims;

use std::process::ExitCode;

use args::{Command, Options};
use failure::Failure;

fn main() -> ExitCode {
    sys::catch_signals();
    let outcome = args::parse(std::env::args().skip(1)).and_then(|options| run(&options));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                report::error(&text);
            }
            ExitCode::from(failure.status())
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    match options.command {
        Command::Help => {
            println!("{}", args::USAGE);
            Ok(())
        }
        Command::Up => keeping::up(options),
        Command::Down => keeping::down(),
        Command::Status => keeping::status(),
        Command::Env => keeping::env(),
        Command::Ctl => keeping::ctl(options),
        Command::Test => test::run(options),
        Command::Demo => example::demo(options),
        Command::Bench => example::bench(options),
        Command::Chaos => example::chaos(options),
        Command::Sqlx => sqlx::run(options),
    }
}

//! The command line.

use crate::failure::Failure;
use crate::services::choice::Source;

/// Printed for `cargo xtask help`.
pub(crate) const USAGE: &str = "\
cargo xtask <command>

  demo [--keep]      one job through the real worker, with private services; no key needed
  test [ARGS…]       the whole suite against real RabbitMQ and PostgreSQL; ARGS go to cargo test
  bench [ARGS…]      the benchmark, release build, durable services; ARGS go to the benchmark
  chaos [ARGS…]      kills, outages and freezes while jobs run, on servers of its own; ARGS: --minutes N --seed S …
  up [--durable]     start private services and keep them; down, status, env belong to it
  down               stop what `up` or `--keep` started
  status             what is up
  env                the `export` lines for them: eval \"$(cargo xtask env)\"
  ctl -- ARGS        rabbitmqctl ARGS against them
  sqlx [--check]     renew, or prove, the committed .sqlx directory

Where services come from: --services env|native|docker|fetch (or SERVICES=…); else DATABASE_URL and AMQP_URL if
set; else what `up` keeps; else installed servers, Docker, or the distribution's packages, in this order.";

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print the usage.
    Help,
    /// Start services and keep them.
    Up,
    /// Stop the kept services.
    Down,
    /// Show the kept services.
    Status,
    /// Print `export` lines.
    Env,
    /// Run rabbitmqctl.
    Ctl,
    /// Run the suite.
    Test,
    /// Run the demo.
    Demo,
    /// Run the benchmark.
    Bench,
    /// Run jobs while everything breaks.
    Chaos,
    /// Renew or prove `.sqlx`.
    Sqlx,
}

/// The whole command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// What to do.
    pub(crate) command: Command,
    /// `--services`, else the variable `SERVICES`.
    pub(crate) source: Option<Source>,
    /// `--keep`
    pub(crate) keep: bool,
    /// `--durable`
    pub(crate) durable: bool,
    /// `--check`
    pub(crate) check: bool,
    /// What is passed on.
    pub(crate) rest: Vec<String>,
}

/// Reads the arguments after `cargo xtask`.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut arguments = arguments.peekable();
    let name = arguments.next().unwrap_or_else(|| "help".to_owned());
    let command = command(&name)?;
    let mut options = Options {
        command,
        source: None,
        keep: false,
        durable: command == Command::Bench,
        check: false,
        rest: vec![],
    };
    if command == Command::Ctl {
        options.rest = arguments.skip_while(|argument| argument == "--").collect();
        return Ok(options);
    }
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), command) {
            ("--services", _) => {
                let value = arguments
                    .next()
                    .ok_or_else(|| usage("--services needs a value"))?;
                options.source = Some(source(&value)?);
            }
            (text, _) if text.starts_with("--services=") => {
                options.source = Some(source(text.trim_start_matches("--services="))?);
            }
            ("--keep", Command::Demo | Command::Bench | Command::Test) => options.keep = true,
            ("--durable", Command::Up) => options.durable = true,
            ("--check", Command::Sqlx) => options.check = true,
            ("--help" | "-h", _) => options.command = Command::Help,
            (_, Command::Test | Command::Bench | Command::Demo | Command::Chaos) => {
                let is_separator = argument == "--";
                options.rest.push(argument);
                if is_separator {
                    options.rest.extend(arguments.by_ref());
                }
            }
            _ => return Err(usage(&format!("`{name}` does not take `{argument}`"))),
        }
    }
    Ok(options)
}

/// `SERVICES=` counts only where no `--services` was given; an unknown value is an error, not ignored.
pub(crate) fn source_or(
    options: &Options,
    variable: Option<&str>,
) -> Result<Option<Source>, Failure> {
    match (options.source, variable) {
        (Some(chosen), _) => Ok(Some(chosen)),
        (None, None | Some("")) => Ok(None),
        (None, Some(value)) => source(value).map(Some),
    }
}

fn command(name: &str) -> Result<Command, Failure> {
    Ok(match name {
        "help" | "--help" | "-h" => Command::Help,
        "up" => Command::Up,
        "down" => Command::Down,
        "status" => Command::Status,
        "env" => Command::Env,
        "ctl" => Command::Ctl,
        "test" => Command::Test,
        "demo" => Command::Demo,
        "bench" => Command::Bench,
        "chaos" => Command::Chaos,
        "sqlx" => Command::Sqlx,
        other => return Err(usage(&format!("there is no command `{other}`"))),
    })
}

fn source(value: &str) -> Result<Source, Failure> {
    Ok(match value {
        "env" => Source::Env,
        "native" => Source::Native,
        "docker" => Source::Docker,
        "fetch" => Source::Fetch,
        other => {
            return Err(usage(&format!(
                "services are env, native, docker or fetch, not `{other}`"
            )));
        }
    })
}

fn usage(problem: &str) -> Failure {
    Failure::Usage(format!("{problem}\n\n{USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Options {
        parse(line.split_whitespace().map(str::to_owned)).expect("a good line")
    }

    #[test]
    fn arguments_of_the_suite_are_passed_on_untouched() {
        let options = parsed("test --test it --services native -- --nocapture --keep");
        assert_eq!(options.source, Some(Source::Native));
        assert_eq!(
            options.rest,
            ["--test", "it", "--", "--nocapture", "--keep"]
        );
        assert!(!options.keep, "what stands behind -- is not ours");
    }

    #[test]
    fn the_benchmark_is_always_durable_and_the_demo_is_not() {
        assert!(parsed("bench 500").durable);
        assert!(!parsed("demo --keep").durable);
        assert!(parsed("demo --keep").keep);
    }

    #[test]
    fn chaos_is_told_what_it_was_given_and_nothing_of_it_is_kept() {
        let options = parsed("chaos --minutes 2 --seed=1 --services fetch --keep");
        assert_eq!(options.command, Command::Chaos);
        assert_eq!(options.source, Some(Source::Fetch));
        assert_eq!(options.rest, ["--minutes", "2", "--seed=1", "--keep"]);
        assert!(!options.keep && !options.durable);
    }

    #[test]
    fn ctl_takes_everything_behind_the_dashes() {
        assert_eq!(
            parsed("ctl -- list_queues --services x").rest,
            ["list_queues", "--services", "x"]
        );
    }

    #[test]
    fn wrong_lines_are_refused_with_status_two() {
        for line in [
            "deploy",
            "up --keep",
            "demo --services cloud",
            "demo --services",
            "down now",
            "sqlx --chek",
        ] {
            let failure = parse(line.split_whitespace().map(str::to_owned)).expect_err(line);
            assert_eq!(failure.status(), 2, "{line}");
        }
    }

    #[test]
    fn the_flag_wins_over_the_variable_and_a_wrong_variable_is_an_error() {
        let flag = parsed("demo --services=docker");
        assert_eq!(
            source_or(&flag, Some("native")).expect("good"),
            Some(Source::Docker)
        );
        assert_eq!(
            source_or(&parsed("demo"), Some("native")).expect("good"),
            Some(Source::Native)
        );
        assert_eq!(source_or(&parsed("demo"), Some("")).expect("good"), None);
        assert!(source_or(&parsed("demo"), Some("nativ")).is_err());
    }
}

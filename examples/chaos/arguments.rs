use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::victims::Victims;

/// Jobs through the worker's real binary while replicas are killed and services go away.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
pub(crate) struct Arguments {
    /// How long things go wrong; what has begun by then is waited for
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = positive)]
    pub(crate) minutes: f64,
    /// What goes wrong, which jobs there are and how the model fails: the same for the same seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    replicas: u8,
    /// Jobs published a second
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = positive)]
    pub(crate) rate: f64,
    #[command(flatten)]
    pub(crate) victims: Victims,
    /// The worker [default: the one built beside this program]
    #[arg(long, env = "CHAT_WORKER_BIN", value_name = "FILE")]
    worker_bin: Option<PathBuf>,
    /// Where the tool server is [default: beside this program]
    #[arg(long, env = "CHAT_EXAMPLES_DIR", value_name = "DIR")]
    examples_dir: Option<PathBuf>,
}

impl Arguments {
    /// How long things go wrong.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    /// Worker processes.
    pub(crate) fn replicas(&self) -> usize {
        usize::from(self.replicas)
    }

    /// The worker's program.
    pub(crate) fn worker(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.worker_bin {
            Some(path) => path.clone(),
            None => self
                .examples()?
                .parent()
                .context("no directory above the examples")?
                .join("chat-worker"),
        };
        built(path, "cargo build")
    }

    /// The tool server's program.
    pub(crate) fn tool_server(&self) -> anyhow::Result<PathBuf> {
        built(
            self.examples()?.join("calc_server"),
            "cargo build --examples",
        )
    }

    fn examples(&self) -> anyhow::Result<PathBuf> {
        if let Some(directory) = &self.examples_dir {
            return Ok(directory.clone());
        }
        let own = std::env::current_exe().context("where is this program?")?;
        let directory = own.parent().context("no directory around this program")?;
        Ok(directory.to_path_buf())
    }
}

fn built(path: PathBuf, command: &str) -> anyhow::Result<PathBuf> {
    if !path.exists() {
        bail!("there is no {}: build it with `{command}`", path.display());
    }
    Ok(path)
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .parse()
        .map_err(|_no_number| "expected a number".to_owned())?;
    if number > 0.0 && number <= 100_000.0 {
        Ok(number)
    } else {
        Err("expected a number above 0".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("chaos").chain(line.split_whitespace()))
    }

    #[test]
    fn two_minutes_with_the_first_seed_are_what_is_run_without_arguments() {
        let arguments = parsed("").unwrap();
        assert_eq!(arguments.time(), Duration::from_mins(2));
        assert_eq!((arguments.seed, arguments.replicas()), (1, 3));
    }

    #[test]
    fn minutes_may_be_broken_and_every_setting_is_taken() {
        let arguments = parsed("--minutes 0.5 --seed=42 --replicas 2 --rate 0.1").unwrap();
        assert_eq!(arguments.time(), Duration::from_secs(30));
        assert_eq!((arguments.seed, arguments.replicas()), (42, 2));
        assert!(arguments.rate < 0.2);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--minutes 0",
            "--minutes -1",
            "--minutes NaN",
            "--minutes soon",
            "--seed -1",
            "--seed x",
            "--replicas 1",
            "--rate 0",
            "--keep",
            "2",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn without_victims_it_does_not_start() {
        let error = Victims::default().check().unwrap_err().to_string();
        assert!(error.contains("cargo xtask chaos"), "{error}");
    }
}

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::Place;
use super::program::Program;

const PATIENCE: Duration = Duration::from_secs(10);

/// The scripted model, in a process of its own that ends with this value.
pub(crate) struct Model {
    program: Program,
    base_url: String,
}

impl Model {
    /// Starts it on a free port; each answer takes `latency`.
    pub(crate) async fn start(
        place: &Place,
        latency: Duration,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(place.example("stub_model")?);
        command
            .args(["--latency-ms", &latency.as_millis().to_string()])
            // It ends when its input does: even if this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut program = Program::start("stub_model", &mut command, directory)?;
        let stdout = program
            .child
            .stdout
            .take()
            .context("the model has no output")?;
        let mut line = String::new();
        timeout(PATIENCE, BufReader::new(stdout).read_line(&mut line))
            .await
            .context("the scripted model does not say where it listens")??;
        let Some(base_url) = line.trim().strip_prefix("listening on ") else {
            bail!("the scripted model did not start{}", program.last_words());
        };
        Ok(Self {
            base_url: base_url.to_owned(),
            program,
        })
    }

    /// What `OPENAI_BASE_URL` is to be.
    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }
}

use std::net::SocketAddr;
use std::time::Duration;

use super::Problems;

/// The process itself, as text.
#[expect(
    clippy::struct_field_names,
    reason = "flags are named after the fields, and all settings of this concern begin alike"
)]
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Worker")]
pub struct WorkerSettings {
    /// Jobs in hand at once
    #[arg(long, env = "CHAT_CONCURRENCY", value_name = "N", default_value = "64")]
    chat_concurrency: String,
    /// Seconds that running jobs get to end when the worker is told to stop
    #[arg(
        long,
        env = "CHAT_DRAIN_SECS",
        value_name = "SECONDS",
        default_value = "25"
    )]
    chat_drain_secs: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are served
    #[arg(
        long,
        env = "CHAT_HTTP_ADDR",
        value_name = "ADDR",
        default_value = "127.0.0.1:9464"
    )]
    chat_http_addr: String,
}

/// The process itself.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Jobs in hand at once.
    pub concurrency: u32,
    /// How long running jobs may go on when the worker is told to stop.
    pub drain: Duration,
    /// Where health and figures are served.
    pub http_addr: SocketAddr,
}

impl WorkerSettings {
    /// The settings checked; problems are noted.
    pub fn parse(&self, problems: &mut Problems) -> Option<WorkerConfig> {
        let concurrency = problems.number("CHAT_CONCURRENCY", &self.chat_concurrency, 1, 2000);
        let drain = problems.number("CHAT_DRAIN_SECS", &self.chat_drain_secs, 0, 86_400);
        let addr = self.chat_http_addr.trim().parse::<SocketAddr>();
        if let Err(error) = &addr {
            let given = &self.chat_http_addr;
            problems.note(
                "CHAT_HTTP_ADDR",
                format!("expected an address like 127.0.0.1:9464, got {given:?}: {error}"),
            );
        }
        Some(WorkerConfig {
            concurrency: concurrency?,
            drain: Duration::from_secs(drain?),
            http_addr: addr.ok()?,
        })
    }
}

use super::Problems;

/// Logs, as text.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logs")]
pub struct TelemetrySettings {
    /// How log lines look: `text` or `json`
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_name = "text|json",
        default_value = "text"
    )]
    log_format: String,
    /// Which log lines are written, in the syntax of tracing's `EnvFilter`
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    rust_log: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: a JSON object a line.
    Json,
}

/// Logs.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines are written.
    pub filter: String,
}

impl TelemetrySettings {
    /// The settings checked; problems are noted.
    pub fn parse(&self, problems: &mut Problems) -> Option<TelemetryConfig> {
        let format = problems.choice(
            "LOG_FORMAT",
            &self.log_format,
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        );
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.rust_log) {
            problems.note("RUST_LOG", error);
        }
        Some(TelemetryConfig {
            format: format?,
            filter: self.rust_log.clone(),
        })
    }
}

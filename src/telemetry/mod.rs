//! Logs and figures. Logs are lines on standard error, as text or as JSON, so that standard output
//! stays free for what a command prints; figures are kept here and shown in Prometheus' text format.
//! Decides which lines are written and how figures look, not what is in them: the rooms never log
//! content, and `meter` says what is counted. May import `config` and `meter` only.

mod figures;
mod guard;

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

use crate::config::{LogFormat, TelemetryConfig};
use guard::Guard;

pub use figures::Figures;

/// Why there are no logs or no figures.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("RUST_LOG: {0}")]
    Filter(String),
    /// Something else in this process does it already.
    #[error("logs or figures are kept already: {0}")]
    Taken(String),
}

/// Has everything from now on logged as `config` says.
///
/// # Errors
/// The filter cannot be read, or logs are written already.
pub fn init(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| TelemetryError::Filter(error.to_string()))?;
    let guard = Guard::new(&config.filter);
    let guard = filter_fn(move |metadata| guard.lets(metadata.target(), *metadata.level()));
    let lines = fmt::layer().with_writer(stderr);
    let lines = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        // On a terminal the library decides about colours: it knows NO_COLOR.
        LogFormat::Text if stderr().is_terminal() => lines.boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    registry()
        .with(filter)
        .with(lines.with_filter(guard))
        .try_init()
        .map_err(|error| TelemetryError::Taken(error.to_string()))
}

//! Composition: builds the rooms from the configuration and runs them. May import every room.

use crate::config::Config;

/// Runs a worker until it is told to stop, and drains it then.
///
/// # Errors
/// What kept it from starting, for people.
pub async fn run(config: Config, migrate: bool) -> anyhow::Result<()> {
    drop((config, migrate));
    Ok(())
}

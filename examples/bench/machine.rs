//! What the benchmark runs on.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use sqlx::Connection as _;

use crate::stage::Ground;

/// The machine and the services.
#[derive(Serialize)]
pub(crate) struct Machine {
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Memory of the machine.
    pub(crate) memory_gib: f64,
    /// The distribution's name for itself.
    pub(crate) system: String,
    /// The server's version.
    pub(crate) postgres: String,
    /// Whether commits wait for the disk: `fsync` and `synchronous_commit`.
    pub(crate) durable: bool,
}

impl Machine {
    /// Looks around.
    pub(crate) async fn describe(ground: &Ground) -> anyhow::Result<Self> {
        let mut connection = ground.connect_admin().await?;
        let (postgres, durable) = sqlx::query_as(
            "SELECT split_part(current_setting('server_version'), ' ', 1), \
                    current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off'",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = system
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: memory_gib(),
            system: name.unwrap_or("unknown").trim_matches('"').to_owned(),
            postgres,
            durable,
        })
    }
}

/// Lets this process and what it starts open as many files as it may: a thousand model calls at
/// once are a thousand connections.
pub(crate) fn raise_open_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

fn memory_gib() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0 / 1024.0
}

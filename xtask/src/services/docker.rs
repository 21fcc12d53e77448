//! Services in containers: the two of docker-compose.yml, in a compose project of their own, on ephemeral ports.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Started;
use crate::failure::Failure;
use crate::guard::Guard;
use crate::{paths, ports, process};

/// A compose project; taken down with its volumes when dropped, unless kept.
pub(crate) struct Project {
    name: String,
    guard: Guard,
    kept: bool,
}

impl Project {
    /// A new one; nothing runs yet.
    pub(crate) fn new(guard: &Guard) -> Self {
        let name = format!("chat-worker-{:08x}", ports::random() & 0xffff_ffff);
        guard.watch_project(&name, &file());
        Self {
            name,
            guard: guard.clone(),
            kept: false,
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// From now on it outlives this process.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
        self.guard.watch_project("", &file());
    }

    /// Starts these services and waits until they are healthy.
    pub(crate) fn up(&self, services: &[&str]) -> Result<(), Failure> {
        let mut command = compose(&self.name);
        command
            .args(["up", "-d", "--wait", "--wait-timeout", "180"])
            .args(services);
        // Passwords are of no use on a loopback port that lives for minutes, and the scripts of `xtask sqlx` have none.
        command
            .env("POSTGRES_AUTH", "trust")
            .env("POSTGRES_USER", "postgres");
        command
            .env("PG_PORT", "")
            .env("AMQP_PORT", "")
            .env("RABBITMQ_UI_PORT", "");
        process::capture(&mut command).map(drop)
    }

    /// PostgreSQL, once it is up.
    pub(crate) fn postgres(&self, since: Instant) -> Result<Started, Failure> {
        let address = self.address("postgres", "5432")?;
        Ok(started(
            "docker",
            &address,
            format!("postgres://postgres@{address}/chat"),
            since,
        ))
    }

    /// RabbitMQ, once it is up.
    pub(crate) fn rabbitmq(&self, since: Instant) -> Result<Started, Failure> {
        let address = self.address("rabbitmq", "5672")?;
        Ok(started(
            "docker",
            &address,
            format!("amqp://chat:chat@{address}/%2f"),
            since,
        ))
    }

    fn address(&self, service: &str, port: &str) -> Result<String, Failure> {
        let printed = process::capture(compose(&self.name).args(["port", service, port]))?;
        Ok(printed.trim().to_owned())
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if !self.kept {
            down(&self.name);
            self.guard.watch_project("", &file());
        }
    }
}

/// An engine answers, and the compose plugin is there. The client alone proves nothing.
pub(crate) fn answers() -> bool {
    let limit = Duration::from_secs(5);
    process::succeeds("docker", &["info"], limit)
        && process::succeeds("docker", &["compose", "version"], limit)
}

/// Removes a project's containers, network and volumes.
pub(crate) fn down(project: &str) {
    drop(process::capture(compose(project).args([
        "down",
        "-v",
        "-t",
        "0",
        "--remove-orphans",
    ])));
}

fn compose(project: &str) -> Command {
    let mut command = Command::new("docker");
    command.args(["compose", "-p", project, "-f"]).arg(file());
    command
}

fn file() -> PathBuf {
    paths::workspace().join("docker-compose.yml")
}

fn started(version: &str, address: &str, url: String, since: Instant) -> Started {
    Started {
        version: version.to_owned(),
        address: address.to_owned(),
        url,
        pid: None,
        control: None,
        took: since.elapsed(),
        daemons: Vec::new(),
    }
}

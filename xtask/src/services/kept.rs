//! Services that outlive the command which started them: `up`, and `--keep`. What is known of them is in the file
//! `kept/state`, a `key value` line each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::place::Place;
use super::provision::Provisioned;
use super::{Started, docker, external, installed, rabbitmq};
use crate::failure::Failure;
use crate::process::until;
use crate::{paths, sys};

const PATIENCE: Duration = Duration::from_secs(30);

/// A program that runs, with the kernel's time of its start, because a number alone may be another's by now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    name: String,
    pid: u32,
    started: String,
}

/// What was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Of our PostgreSQL.
    pub(crate) database_url: Option<String>,
    /// Of our RabbitMQ.
    pub(crate) amqp_url: Option<String>,
    /// Whether it writes to disk as a real installation does.
    pub(crate) durable: bool,
    project: Option<String>,
    root: Option<PathBuf>,
    processes: Vec<Process>,
}

/// Held while kept services are started or stopped.
pub(crate) fn lock(base: &Path) -> Result<File, Failure> {
    let path = base.join("kept.lock");
    let file = File::create(&path).map_err(Failure::io(path.display().to_string()))?;
    let locked = until(Duration::from_mins(5), || {
        if sys::stopping() {
            return Some(Err(Failure::Interrupted));
        }
        file.try_lock().is_ok().then_some(Ok(()))
    });
    locked.unwrap_or_else(|| {
        Err(Failure::Failed(format!(
            "{} is held by another command",
            path.display()
        )))
    })?;
    Ok(file)
}

/// Stops what the state names and removes the directory.
pub(crate) fn remove(base: &Path) {
    if let Some(state) = State::read(base) {
        state.stop();
    }
    drop(fs::remove_dir_all(base.join("kept")));
}

impl State {
    /// Of services that were just started.
    pub(crate) fn of(ready: &Provisioned, durable: bool) -> Self {
        let mut processes = Vec::new();
        let mut add = |names: &[&str], started: Option<&Started>| {
            let daemons = started
                .map(|started| started.daemons.iter())
                .into_iter()
                .flatten();
            for (name, daemon) in names.iter().zip(daemons) {
                let started = start_time(daemon.pid()).unwrap_or_default();
                processes.push(Process {
                    name: (*name).to_owned(),
                    pid: daemon.pid(),
                    started,
                });
            }
        };
        add(&["postgres"], ready.postgres.as_ref());
        add(&["rabbitmq", "epmd"], ready.rabbitmq.as_ref());
        Self {
            database_url: ready.postgres.as_ref().map(|started| started.url.clone()),
            amqp_url: ready.rabbitmq.as_ref().map(|started| started.url.clone()),
            durable,
            project: ready
                .project
                .as_ref()
                .map(|project| project.name().to_owned()),
            root: ready.root.clone(),
            processes,
        }
    }

    /// As last written, whether or not anything of it still runs.
    pub(crate) fn read(base: &Path) -> Option<Self> {
        fs::read_to_string(base.join("kept/state"))
            .ok()
            .map(|text| Self::parse(&text))
    }

    /// Writes it where [`State::read`] looks.
    pub(crate) fn write(&self, place: &Place) -> Result<(), Failure> {
        fs::write(place.directory.join("state"), self.format())
            .map_err(Failure::io("the state of kept services"))
    }

    /// Whether all of it answers.
    pub(crate) fn answers(&self) -> bool {
        let postgres = self
            .database_url
            .as_deref()
            .is_none_or(|url| external::postgres(url).is_ok());
        postgres
            && self
                .amqp_url
                .as_deref()
                .is_none_or(|url| external::rabbitmq(url).is_ok())
    }

    /// Whether there is a RabbitMQ node, be it one whose broker is stopped.
    pub(crate) fn has_node(&self) -> bool {
        let is_ours = self.project.is_some() || self.pid("rabbitmq").is_some();
        self.amqp_url.is_some() && is_ours
    }

    /// The number of a program of that name, if it still runs.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.processes
            .iter()
            .find(|process| process.name == name && process.is_alive())
            .map(|process| process.pid)
    }

    /// rabbitmqctl for the kept node.
    pub(crate) fn control(&self) -> Result<Command, Failure> {
        if let Some(project) = &self.project {
            let mut command = Command::new("docker");
            command
                .args(["compose", "-p", project, "-f"])
                .arg(paths::workspace().join("docker-compose.yml"));
            command.args(["exec", "-T", "rabbitmq", "rabbitmqctl"]);
            return Ok(command);
        }
        let user = super::user::for_postgres()?;
        let home = paths::services(user.as_ref())?.join("kept/rabbitmq");
        let programs = self
            .root
            .as_deref()
            .map_or_else(installed::rabbitmq, installed::unpacked_rabbitmq);
        let programs =
            programs.ok_or_else(|| Failure::Failed("RabbitMQ's programs are gone".to_owned()))?;
        rabbitmq::control(&programs, &home)
    }

    /// Stops everything, cleanly if it can be done in half a minute each.
    fn stop(&self) {
        for process in &self.processes {
            let polite = if process.name == "postgres" {
                sys::INTERRUPT
            } else {
                sys::TERMINATE
            };
            if !process.is_alive() {
                continue;
            }
            sys::signal_process(process.pid, polite);
            if until(PATIENCE, || (!process.is_alive()).then_some(())).is_none() {
                sys::signal_group(process.pid, sys::KILL);
            }
        }
        if let Some(project) = &self.project {
            docker::down(project);
        }
    }

    fn format(&self) -> String {
        let mut lines = vec![format!("durable {}", self.durable)];
        let root = self
            .root
            .as_ref()
            .map(|root| root.to_string_lossy().into_owned());
        let optional = [
            ("database_url", self.database_url.as_ref()),
            ("amqp_url", self.amqp_url.as_ref()),
            ("project", self.project.as_ref()),
            ("root", root.as_ref()),
        ];
        lines.extend(
            optional
                .into_iter()
                .filter_map(|(key, value)| Some(format!("{key} {}", value?))),
        );
        let process = |it: &Process| format!("process {} {} {}", it.name, it.pid, it.started);
        lines.extend(self.processes.iter().map(process));
        lines.join("\n") + "\n"
    }

    fn parse(text: &str) -> Self {
        let mut state = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            match key {
                "durable" => state.durable = value == "true",
                "database_url" => state.database_url = Some(value.to_owned()),
                "amqp_url" => state.amqp_url = Some(value.to_owned()),
                "project" => state.project = Some(value.to_owned()),
                "root" => state.root = Some(PathBuf::from(value)),
                "process" => state.processes.extend(Process::parse(value)),
                _ => {}
            }
        }
        state
    }
}

impl Process {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (name, pid) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        Some(Self {
            name,
            pid,
            started: words.next().unwrap_or_default().to_owned(),
        })
    }

    /// A zombie counts as dead: in a container nobody may ever reap it.
    fn is_alive(&self) -> bool {
        if !Path::new("/proc/self/stat").exists() {
            return sys::signal_process(self.pid, 0);
        }
        start_time(self.pid).is_some_and(|started| started == self.started)
    }
}

/// When a living process started, in the kernel's ticks; `None` for a zombie, too.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    of_stat(&stat)
}

/// The name, in brackets, may contain anything: the fields are counted from its end.
fn of_stat(stat: &str) -> Option<String> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let state = State {
            database_url: Some("postgres://postgres@127.0.0.1:20001/chat".to_owned()),
            amqp_url: None,
            durable: true,
            project: None,
            root: Some(PathBuf::from("/home/a b/.cache")),
            processes: vec![Process {
                name: "epmd".to_owned(),
                pid: 7,
                started: "99".to_owned(),
            }],
        };
        assert_eq!(State::parse(&state.format()), state);
    }

    #[test]
    fn a_node_whose_broker_is_stopped_is_still_one_until_its_process_is_gone() {
        let own = std::process::id();
        let of = |started: String| State {
            amqp_url: Some("amqp://127.0.0.1:1".to_owned()),
            processes: vec![Process {
                name: "rabbitmq".to_owned(),
                pid: own,
                started,
            }],
            ..State::default()
        };
        let state = of(start_time(own).expect("we live"));
        assert!(state.has_node() && !state.answers());
        assert!(!of("1".to_owned()).has_node());
        assert!(!State::default().has_node());
    }

    #[test]
    fn a_zombie_and_a_reused_number_are_dead() {
        let fields = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(
            of_stat(&format!("12 (a ) b) S {fields}")).as_deref(),
            Some("4711")
        );
        assert_eq!(of_stat(&format!("12 (postgres) Z {fields}")), None);
        let own = std::process::id();
        let started = start_time(own).expect("we live");
        let process = |started: &str| Process {
            name: String::new(),
            pid: own,
            started: started.to_owned(),
        };
        assert!(process(&started).is_alive());
        assert!(!process("1").is_alive());
    }
}

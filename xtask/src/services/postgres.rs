//! A private PostgreSQL: a fresh data directory, loopback only, everybody trusted.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::installed::Postgres;
use super::{Place, Started, script};
use crate::failure::Failure;
use crate::pg::{self, Connection, Greeting};
use crate::process::{Daemon, Stop, until};
use crate::{ports, sys};

/// The only database that is made.
pub(crate) const DATABASE: &str = "chat";

const LIMIT: Duration = Duration::from_mins(1);

/// Starts it; a port that somebody else takes in between is replaced by another.
pub(crate) fn start(programs: &Postgres, place: &Place) -> Result<Started, Failure> {
    let begin = Instant::now();
    let data = place.directory.join("postgres");
    prepare(programs, place, &data)?;
    for attempt in 1_u8.. {
        let port = ports::free()?;
        let log = place.log("postgres");
        let mut daemon = launch(programs, place, &data, port)?;
        match ready(&mut daemon, port) {
            Ok(version) => {
                create_database(port)?;
                let control = control(programs, place, &data, port)?;
                return Ok(Started {
                    version,
                    control,
                    address: ports::loopback(port).to_string(),
                    url: format!("postgres://postgres@127.0.0.1:{port}/{DATABASE}"),
                    pid: Some(daemon.pid()),
                    took: begin.elapsed(),
                    daemons: vec![daemon],
                });
            }
            Err(failure) => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                if attempt >= 5 || sys::stopping() || !said.contains("Address already in use") {
                    return Err(with_log(failure, &said, &log));
                }
                drop(fs::remove_file(&log));
            }
        }
    }
    Err(Failure::Failed("PostgreSQL found no port".to_owned()))
}

/// A trusted connection to a private server.
pub(crate) fn connect(port: u16, database: &str) -> Result<Connection<TcpStream>, Failure> {
    let address = ports::loopback(port);
    let stream =
        TcpStream::connect(address).map_err(Failure::io(format!("PostgreSQL at {address}")))?;
    match pg::greet(stream, "postgres", database)
        .map_err(Failure::io(format!("PostgreSQL at {address}")))?
    {
        Greeting::Trusted(connection) => Ok(connection),
        Greeting::Guarded => Err(Failure::Failed(format!(
            "PostgreSQL at {address} wants a password"
        ))),
        Greeting::Refused(text) => Err(Failure::Failed(format!("PostgreSQL at {address}: {text}"))),
    }
}

fn prepare(programs: &Postgres, place: &Place, data: &Path) -> Result<(), Failure> {
    let cannot = || Failure::io(data.display().to_string());
    fs::create_dir_all(data).map_err(cannot())?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).map_err(cannot())?;
    if let Some(user) = &place.postgres_user {
        chown(data, Some(user.uid), Some(user.gid)).map_err(cannot())?;
    }
    let mut initdb = as_user(programs, "initdb", place);
    initdb
        .args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
        ])
        .arg(data);
    let log = place.log("initdb");
    let mut initdb = Daemon::spawn(initdb, Stop::Terminate, &log, &place.guard)?;
    let ended = until(LIMIT, || {
        (sys::stopping() || initdb.has_ended()).then_some(())
    });
    if sys::stopping() {
        return Err(Failure::Interrupted);
    }
    if ended.is_none() || !initdb.has_succeeded() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        return Err(Failure::Failed(format!("initdb failed: {}", said.trim())));
    }
    Ok(())
}

fn launch(programs: &Postgres, place: &Place, data: &Path, port: u16) -> Result<Daemon, Failure> {
    let mut command = as_user(programs, "postgres", place);
    command.arg("-D").arg(data).args(["-p", &port.to_string()]);
    for setting in settings(place) {
        command.args(["-c", setting]);
    }
    Daemon::spawn(command, Stop::Quit, &place.log("postgres"), &place.guard)
}

fn settings(place: &Place) -> Vec<&'static str> {
    // No Unix socket: the distribution's directory for it is not ours, and a long path is refused.
    let mut settings = vec![
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=300",
    ];
    if !place.durable {
        settings.extend(["fsync=off", "full_page_writes=off"]);
    }
    // Only the machine's own crash takes what is written but not synced; killing the server takes what it has not
    // written either.
    if !place.durable && !place.victims {
        settings.push("synchronous_commit=off");
    }
    settings
}

/// For a server that others may stop: the program with which they do it, and start it again as it was.
fn control(
    programs: &Postgres,
    place: &Place,
    data: &Path,
    port: u16,
) -> Result<Option<PathBuf>, Failure> {
    if !place.victims {
        return Ok(None);
    }
    let log = place.log("postgres-again");
    let made = fs::write(&log, "").and_then(|()| match &place.postgres_user {
        Some(user) => chown(&log, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    });
    made.map_err(Failure::io(log.display().to_string()))?;
    let options: Vec<_> = settings(place)
        .iter()
        .map(|setting| format!(" -c {setting}"))
        .collect();
    let mut command = as_user(programs, "pg_ctl", place);
    command.arg("-D").arg(data).arg("-l").arg(&log);
    command.args(["-w", "-o", &format!("-p {port}{}", options.concat())]);
    let path = place.directory.join("pg_ctl");
    script::write(&path, &command, place.postgres_user.as_ref())?;
    place.guard.watch_control(&path);
    Ok(Some(path))
}

fn ready(daemon: &mut Daemon, port: u16) -> Result<String, Failure> {
    let answer = until(LIMIT, || {
        if sys::stopping() {
            return Some(Err(Failure::Interrupted));
        }
        if daemon.has_ended() {
            return Some(Err(Failure::Failed(
                "PostgreSQL ended while starting".to_owned(),
            )));
        }
        connect(port, "postgres")
            .ok()
            .map(|connection| Ok(connection.version))
    });
    let version = answer.unwrap_or_else(|| {
        Err(Failure::Failed(
            "PostgreSQL was not ready in 60 s".to_owned(),
        ))
    })?;
    Ok(version
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn create_database(port: u16) -> Result<(), Failure> {
    connect(port, "postgres")?
        .run(&format!("CREATE DATABASE {DATABASE}"))
        .map_err(Failure::Failed)
}

fn as_user(programs: &Postgres, program: &str, place: &Place) -> Command {
    let mut command = Command::new(programs.programs.join(program));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/");
    if let Some(libraries) = &programs.libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    if let Some(user) = &place.postgres_user {
        command.gid(user.gid).uid(user.uid);
    }
    command
}

fn with_log(failure: Failure, said: &str, log: &Path) -> Failure {
    match failure {
        Failure::Failed(text) => {
            let reason = said
                .lines()
                .rfind(|line| line.contains("FATAL") || line.contains("ERROR"))
                .unwrap_or_default();
            Failure::Failed(format!("{text}. {reason} (log: {})", log.display()))
        }
        Failure::Usage(_) | Failure::NoServices(_) | Failure::Interrupted | Failure::Child(_) => {
            failure
        }
    }
}

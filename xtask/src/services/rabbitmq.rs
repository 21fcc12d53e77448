//! A private RabbitMQ node: its own name, cookie, epmd, ports and directories, nothing shared with an installed one.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::installed::RabbitMq;
use super::{Place, Started, script};
use crate::failure::Failure;
use crate::process::{Daemon, Stop, until};
use crate::{amqp, ports, sys};

/// It is bound by CPU: 5 s on an idle machine, 20 s on a busy one.
const LIMIT: Duration = Duration::from_mins(2);

/// The ports of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    /// Clients.
    pub(crate) amqp: u16,
    /// Erlang's distribution, which rabbitmqctl uses.
    pub(crate) distribution: u16,
    /// The name server.
    pub(crate) epmd: u16,
}

/// Starts it; taken ports are replaced by others.
pub(crate) fn start(programs: &RabbitMq, place: &Place) -> Result<Started, Failure> {
    let begin = Instant::now();
    for attempt in 1_u8.. {
        let ports = Ports {
            amqp: ports::free()?,
            distribution: ports::free()?,
            epmd: ports::free()?,
        };
        let home = place.directory.join("rabbitmq");
        prepare(&home, ports).map_err(Failure::io(home.display().to_string()))?;
        let mut epmd = Command::new(&programs.epmd);
        epmd.args(["-address", "127.0.0.1", "-port", &ports.epmd.to_string()])
            .env_clear();
        epmd.envs(environment(programs, &home, ports));
        let mut epmd = Daemon::spawn(epmd, Stop::KillGroup, &place.log("epmd"), &place.guard)?;
        let mut server = Command::new(programs.scripts.join("rabbitmq-server"));
        server.env_clear().envs(environment(programs, &home, ports));
        let log = place.log("rabbitmq");
        let mut server = Daemon::spawn(server, Stop::KillGroup, &log, &place.guard)?;
        match ready(&mut server, &mut epmd, ports.amqp) {
            Ok(version) => {
                return Ok(Started {
                    version,
                    control: control_script(programs, place, &home)?,
                    address: ports::loopback(ports.amqp).to_string(),
                    url: format!("amqp://guest:guest@127.0.0.1:{}/%2f", ports.amqp),
                    pid: Some(server.pid()),
                    took: begin.elapsed(),
                    daemons: vec![server, epmd],
                });
            }
            Err(failure) => {
                let said = fs::read_to_string(&log).unwrap_or_default() + &node_log(&home);
                let taken = epmd.has_ended()
                    || said.contains("eaddrinuse")
                    || said.contains("seems in use");
                if attempt >= 4 || sys::stopping() || !taken {
                    return Err(with_log(failure, &said, &log));
                }
                drop((server, epmd));
                drop(fs::remove_dir_all(&home).and_then(|()| fs::remove_file(&log)));
            }
        }
    }
    Err(Failure::Failed("RabbitMQ found no port".to_owned()))
}

/// `rabbitmqctl` for the node that lives in `home`.
pub(crate) fn control(programs: &RabbitMq, home: &Path) -> Result<Command, Failure> {
    let text =
        fs::read_to_string(home.join("ports")).map_err(Failure::io("the ports of the node"))?;
    let mut numbers = text
        .split_whitespace()
        .filter_map(|number| number.parse().ok());
    let (Some(amqp), Some(distribution), Some(epmd)) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return Err(Failure::Failed(
            "the node's file `ports` is damaged".to_owned(),
        ));
    };
    let mut command = Command::new(programs.scripts.join("rabbitmqctl"));
    command.env_clear().envs(environment(
        programs,
        home,
        Ports {
            amqp,
            distribution,
            epmd,
        },
    ));
    Ok(command)
}

/// For a node that others may stop: the program with which they do it.
fn control_script(
    programs: &RabbitMq,
    place: &Place,
    home: &Path,
) -> Result<Option<PathBuf>, Failure> {
    if !place.victims {
        return Ok(None);
    }
    let path = place.directory.join("rabbitmqctl");
    script::write(&path, &control(programs, home)?, None)?;
    Ok(Some(path))
}

fn prepare(home: &Path, ports: Ports) -> std::io::Result<()> {
    fs::create_dir_all(home.join("log"))?;
    let settings = format!(
        "listeners.tcp.default = 127.0.0.1:{}\n\
         log.console = false\n\
         disk_free_limit.absolute = 50MB\n\
         vm_memory_high_watermark.absolute = 1GB\n",
        ports.amqp
    );
    fs::write(home.join("rabbitmq.conf"), settings)?;
    fs::write(home.join("advanced.config"), "[].\n")?;
    fs::write(home.join("enabled_plugins"), "[].\n")?;
    fs::write(home.join("env.conf"), "")?;
    fs::write(
        home.join("ports"),
        format!("{} {} {}\n", ports.amqp, ports.distribution, ports.epmd),
    )
}

/// Everything a node would otherwise take from the machine. The node is named by address, since a host name may not
/// resolve; the empty env.conf keeps the machine's own from being read.
fn environment(programs: &RabbitMq, home: &Path, ports: Ports) -> Vec<(&'static str, String)> {
    let inside = |name: &str| home.join(name).to_string_lossy().into_owned();
    let mut variables = vec![
        ("PATH", programs.path.clone()),
        ("LANG", "C.UTF-8".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("HOME", home.to_string_lossy().into_owned()),
        ("RABBITMQ_USE_LONGNAME", "true".to_owned()),
        ("RABBITMQ_NODENAME", "chat@127.0.0.1".to_owned()),
        ("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", inside("advanced.config")),
        ("RABBITMQ_CONF_ENV_FILE", inside("env.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", inside("mnesia")),
        ("RABBITMQ_LOG_BASE", inside("log")),
        ("RABBITMQ_PID_FILE", inside("pid")),
        ("RABBITMQ_DIST_PORT", ports.distribution.to_string()),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
        ),
        // The script then becomes the server instead of waiting for it: one process to stop, and SIGKILL is enough.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        ("ERL_EPMD_PORT", ports.epmd.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_CRASH_DUMP", inside("erl_crash.dump")),
    ];
    variables.extend(
        programs
            .libraries
            .clone()
            .map(|libraries| ("LD_LIBRARY_PATH", libraries)),
    );
    variables
}

fn ready(server: &mut Daemon, epmd: &mut Daemon, port: u16) -> Result<String, Failure> {
    let answer = until(LIMIT, || {
        if sys::stopping() {
            return Some(Err(Failure::Interrupted));
        }
        if server.has_ended() || epmd.has_ended() {
            return Some(Err(Failure::Failed(
                "RabbitMQ ended while starting".to_owned(),
            )));
        }
        greet(port).ok().map(Ok)
    });
    answer.unwrap_or_else(|| {
        Err(Failure::Failed(
            "RabbitMQ was not ready in 120 s".to_owned(),
        ))
    })
}

fn greet(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(ports::loopback(port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    amqp::greet(&mut stream)
}

fn node_log(home: &Path) -> String {
    fs::read_to_string(home.join("log/chat@127.0.0.1.log")).unwrap_or_default()
}

fn with_log(failure: Failure, said: &str, log: &Path) -> Failure {
    match failure {
        Failure::Failed(text) => {
            let reason = said
                .lines()
                .find(|line| line.contains("ERROR") || line.contains("[error]"));
            Failure::Failed(format!(
                "{text}. {} (log: {})",
                reason.unwrap_or_default().trim(),
                log.display()
            ))
        }
        Failure::Usage(_) | Failure::NoServices(_) | Failure::Interrupted | Failure::Child(_) => {
            failure
        }
    }
}

//! The distribution's own packages of the two servers, downloaded and unpacked into a cache: no root, nothing is
//! installed, and removing the cache undoes it. Debian and Ubuntu.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::process::{capture, until};
use crate::{paths, report, sys};

/// Packages that the servers depend on, but do not need to run for us.
const UNNEEDED: &[&str] = &[
    "adduser",
    "cron",
    "dbus",
    "debconf",
    "init-system-helpers",
    "libc-bin",
    "libc6",
    "libllvm",
    "libperl",
    "libpython",
    "libsystemd-shared",
    "locales",
    "logrotate",
    "lsb-",
    "passwd",
    "perl",
    "postgresql-common",
    "python3",
    "ssl-cert",
    "sysstat",
    "systemd",
    "ucf",
];

/// What is fetched even if it is installed, so that the cache does not depend on what is.
const SERVERS: &[&str] = &["erlang-", "postgresql", "rabbitmq-server"];

/// The directory with the unpacked packages; the first call on a machine fills it.
pub(crate) fn unpacked() -> Result<PathBuf, Failure> {
    let cache = cache();
    let root = cache.join("root");
    paths::make_passable(&cache).map_err(Failure::io(cache.display().to_string()))?;
    fs::create_dir_all(&root).map_err(Failure::io(root.display().to_string()))?;
    let _lock = lock(&cache)?;
    let complete = cache.join("complete");
    if complete.exists() {
        return Ok(root);
    }
    let begin = Instant::now();
    let packages = wanted(&cache)?;
    let note = format!(
        "{} packages from the distribution into {}",
        packages.len(),
        cache.display()
    );
    report::line(
        "fetch",
        &format!("{note}; nothing is installed on your system"),
    );
    download(&cache, &packages)?;
    unpack(&cache, &root)?;
    relocate_erlang(&root)?;
    fs::write(&complete, packages.join("\n"))
        .map_err(Failure::io(complete.display().to_string()))?;
    report::line(
        "fetch",
        &format!("done in {}", report::seconds(begin.elapsed())),
    );
    Ok(root)
}

/// Shared by all checkouts of a user. RabbitMQ's scripts do not bear a space in their own path.
fn cache() -> PathBuf {
    let own = if sys::effective_uid() == 0 {
        Some(PathBuf::from("/var/cache"))
    } else {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or(home)
    };
    let usable = own.filter(|path| !path.to_string_lossy().contains(char::is_whitespace));
    let user = sys::effective_uid();
    usable.map_or_else(
        || std::env::temp_dir().join(format!("chat-worker-services-{user}")),
        |path| path.join("chat-worker/services"),
    )
}

fn lock(cache: &Path) -> Result<File, Failure> {
    let path = cache.join("lock");
    let file = File::create(&path).map_err(Failure::io(path.display().to_string()))?;
    let locked = until(Duration::from_mins(10), || {
        if sys::stopping() {
            Some(false)
        } else {
            file.try_lock().is_ok().then_some(true)
        }
    });
    if locked == Some(true) {
        Ok(file)
    } else {
        Err(Failure::Interrupted)
    }
}

/// Asks apt, with lists and a status of our own, what an installation would bring.
fn wanted(cache: &Path) -> Result<Vec<String>, Failure> {
    for directory in ["state/lists/partial", "cache/archives/partial", "debs"] {
        let path = cache.join(directory);
        fs::create_dir_all(&path).map_err(Failure::io(path.display().to_string()))?;
    }
    let status = fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default();
    fs::write(cache.join("status"), without_servers(&status)).map_err(Failure::io("the cache"))?;
    capture(apt(cache).arg("update"))?;
    let simulated = [
        "install",
        "-s",
        "--no-install-recommends",
        "rabbitmq-server",
        "postgresql",
    ];
    let packages = to_install(&capture(apt(cache).args(simulated))?);
    if packages.is_empty() {
        return Err(Failure::Failed(
            "apt-get names no packages for rabbitmq-server and postgresql".to_owned(),
        ));
    }
    Ok(packages)
}

fn download(cache: &Path, packages: &[String]) -> Result<(), Failure> {
    capture(
        apt(cache)
            .arg("download")
            .args(packages)
            .current_dir(cache.join("debs")),
    )
    .map(drop)
}

fn unpack(cache: &Path, root: &Path) -> Result<(), Failure> {
    let debs = cache.join("debs");
    for entry in fs::read_dir(&debs)
        .map_err(Failure::io("the cache"))?
        .flatten()
    {
        if sys::stopping() {
            return Err(Failure::Interrupted);
        }
        capture(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(entry.path())
                .arg(root),
        )?;
    }
    for name in ["debs", "state", "cache"] {
        drop(fs::remove_dir_all(cache.join(name)));
    }
    Ok(())
}

/// Debian writes the place of Erlang into its scripts; all of them, or distribution does not start.
fn relocate_erlang(root: &Path) -> Result<(), Failure> {
    let erlang = root.join("usr/lib/erlang");
    let mut directories = vec![erlang.join("bin")];
    for entry in fs::read_dir(&erlang)
        .map_err(Failure::io("the unpacked Erlang"))?
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with("erts-") {
            directories.push(entry.path().join("bin"));
        }
    }
    let place = format!("ROOTDIR={}", erlang.display());
    for path in directories
        .iter()
        .flat_map(|directory| ["erl", "start"].map(|name| directory.join(name)))
    {
        if let Ok(text) = fs::read_to_string(&path) {
            let moved = text.replace("ROOTDIR=/usr/lib/erlang", &place);
            fs::write(&path, moved).map_err(Failure::io(path.display().to_string()))?;
        }
    }
    Ok(())
}

fn apt(cache: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let place = |key: &str, path: &str| format!("{key}={}", cache.join(path).display());
    for option in [
        place("Dir::State", "state"),
        place("Dir::State::lists", "state/lists"),
        place("Dir::State::status", "status"),
        place("Dir::Cache", "cache"),
        "Debug::NoLocking=1".to_owned(),
        format!(
            "APT::Sandbox::User={}",
            if sys::effective_uid() == 0 {
                "root"
            } else {
                ""
            }
        ),
    ] {
        command.args(["-o", &option]);
    }
    command
        .arg("-qq")
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// The packages of `Inst name …` lines, less the unneeded.
fn to_install(simulation: &str) -> Vec<String> {
    let names = simulation
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
    names
        .filter(|name| !UNNEEDED.iter().any(|prefix| name.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

/// A list of installed packages from which the servers are struck.
fn without_servers(status: &str) -> String {
    let is_server = |paragraph: &&str| {
        let name = paragraph
            .lines()
            .find_map(|line| line.strip_prefix("Package: "))
            .unwrap_or_default();
        SERVERS.iter().any(|prefix| name.starts_with(prefix))
    };
    let kept: Vec<&str> = status
        .trim()
        .split("\n\n")
        .filter(|paragraph| !is_server(paragraph))
        .collect();
    kept.join("\n\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_of_a_simulation_are_its_inst_lines_less_the_unneeded() {
        let simulation = "Reading package lists...\n\
            Inst libpq5 (15.18-0+deb12u1 Debian-Security:12/stable-security [amd64])\n\
            Inst libllvm14 (1:14.0.6-12 Debian:12/stable [amd64])\n\
            Inst postgresql-common (248 Debian:12/stable [all])\n\
            Inst postgresql-15 [15.17] (15.18 Debian:12 [amd64]) []\n\
            Conf libpq5 (15.18-0+deb12u1 Debian-Security:12/stable-security [amd64])\n";
        assert_eq!(to_install(simulation), ["libpq5", "postgresql-15"]);
    }

    #[test]
    fn installed_servers_are_struck_from_the_list() {
        let status = "Package: libssl3\nStatus: install ok installed\n\nPackage: rabbitmq-server\nDepends: erlang-base\n\n\
            Package: erlang-base\nStatus: x\n\nPackage: zlib1g\nStatus: y\n\n";
        let left = without_servers(status);
        assert_eq!(
            left,
            "Package: libssl3\nStatus: install ok installed\n\nPackage: zlib1g\nStatus: y\n"
        );
        assert!(!without_servers(&left).contains("erlang"));
    }
}

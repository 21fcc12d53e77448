//! Finding the servers' programs: installed on this machine, or unpacked into a directory.

use std::fs;
use std::path::{Path, PathBuf};

/// PostgreSQL's server programs.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    /// The directory with `initdb` and `postgres`.
    pub(crate) programs: PathBuf,
    /// `LD_LIBRARY_PATH`, for unpacked packages.
    pub(crate) libraries: Option<String>,
}

/// RabbitMQ's.
#[derive(Clone, Debug)]
pub(crate) struct RabbitMq {
    /// The directory with `rabbitmq-server` and `rabbitmqctl`: the real scripts, not a distribution's wrappers, which
    /// change user and home.
    pub(crate) scripts: PathBuf,
    /// Erlang's name server.
    pub(crate) epmd: PathBuf,
    /// `PATH`, so that the scripts find `erl`.
    pub(crate) path: String,
    /// `LD_LIBRARY_PATH`, for unpacked packages.
    pub(crate) libraries: Option<String>,
}

/// PostgreSQL as installed here, the newest.
pub(crate) fn postgres() -> Option<Postgres> {
    let mut places = below("/usr/lib/postgresql", "", "/bin");
    places.extend(below("/usr", "pgsql-", "/bin"));
    places.extend(below("/opt/homebrew/opt", "postgresql@", "/bin"));
    places.extend(below("/usr/local/opt", "postgresql@", "/bin"));
    places.extend(search_path());
    let programs = places
        .into_iter()
        .find(|place| place.join("initdb").exists() && place.join("postgres").exists())?;
    Some(Postgres {
        programs,
        libraries: None,
    })
}

/// RabbitMQ as installed here.
pub(crate) fn rabbitmq() -> Option<RabbitMq> {
    let mut places = below("/usr/lib/rabbitmq/lib", "rabbitmq_server-", "/sbin");
    for place in [
        "/opt/homebrew/opt/rabbitmq/sbin",
        "/usr/local/opt/rabbitmq/sbin",
        "/opt/rabbitmq/sbin",
    ] {
        places.push(PathBuf::from(place));
    }
    let scripts = places
        .into_iter()
        .find(|place| place.join("rabbitmq-server").exists())?;
    let mut erlang = search_path();
    erlang.extend(below("/usr/lib/erlang", "erts-", "/bin"));
    let epmd = erlang
        .into_iter()
        .map(|place| place.join("epmd"))
        .find(|epmd| epmd.exists())?;
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    Some(RabbitMq {
        scripts,
        epmd,
        path: format!("{path}:/usr/bin:/bin"),
        libraries: None,
    })
}

/// PostgreSQL in unpacked packages.
pub(crate) fn unpacked_postgres(root: &Path) -> Option<Postgres> {
    let places = below(
        &root.join("usr/lib/postgresql").to_string_lossy(),
        "",
        "/bin",
    );
    let programs = places
        .into_iter()
        .find(|place| place.join("initdb").exists())?;
    Some(Postgres {
        programs,
        libraries: Some(libraries(root)),
    })
}

/// RabbitMQ in unpacked packages.
pub(crate) fn unpacked_rabbitmq(root: &Path) -> Option<RabbitMq> {
    let scripts = below(
        &root.join("usr/lib/rabbitmq/lib").to_string_lossy(),
        "rabbitmq_server-",
        "/sbin",
    )
    .pop()?;
    let erlang = root.join("usr/lib/erlang");
    let epmd = below(&erlang.to_string_lossy(), "erts-", "/bin")
        .pop()?
        .join("epmd");
    let path = format!("{}:/usr/bin:/bin", erlang.join("bin").display());
    Some(RabbitMq {
        scripts,
        epmd,
        path,
        libraries: Some(libraries(root)),
    })
}

fn libraries(root: &Path) -> String {
    let mut places = Vec::new();
    for parent in ["usr/lib", "lib"] {
        for entry in below(&root.join(parent).to_string_lossy(), "", "") {
            if entry.to_string_lossy().contains("-linux-gnu") {
                places.push(entry.to_string_lossy().into_owned());
            }
        }
    }
    places.join(":")
}

/// The directories `parent/prefix*` + `suffix`, the highest version first.
fn below(parent: &str, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.retain(|name| name.starts_with(prefix));
    names.sort_by_key(|name| std::cmp::Reverse(version(name)));
    names
        .into_iter()
        .map(|name| PathBuf::from(format!("{parent}/{name}{suffix}")))
        .collect()
}

/// The numbers in a name, to compare `9.6` and `15` as people do.
fn version(name: &str) -> Vec<u32> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("15") > version("9.6"));
        assert!(version("rabbitmq_server-3.13.10") > version("rabbitmq_server-3.13.9"));
    }
}

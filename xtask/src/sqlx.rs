//! `cargo xtask sqlx`: the committed `.sqlx`, which lets the SQL of the macros be checked without a database, is renewed,
//! or with `--check` proved to be what the migrations and the queries give.
//!
//! sqlx's macros, when they expand against a live database, write `query-<hash>.json` into `SQLX_OFFLINE_DIR`. So no
//! program of sqlx is needed: a private PostgreSQL, the migrations, and one `cargo check`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::args::{self, Options};
use crate::failure::Failure;
use crate::guard::Guard;
use crate::services::{Purpose, Request, Services, Starting, postgres};
use crate::url::{self, Address};
use crate::{cargo, paths, ports, process, report};

type Files = BTreeMap<String, Vec<u8>>;

/// Renews or proves.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let source = args::source_or(options, std::env::var("SERVICES").ok().as_deref())?;
    let guard = Guard::start()?;
    let request = Request {
        purpose: Purpose::PrivatePostgres,
        source,
        durable: false,
        keep: false,
    };
    let starting = Starting::begin(request, &guard);
    let outcome = starting.and_then(Starting::wait).and_then(|services| {
        let outcome = with_services(&services, options.check, &guard);
        services.finish(false);
        outcome
    });
    guard.dismiss();
    outcome
}

fn with_services(services: &Services, check: bool, guard: &Guard) -> Result<(), Failure> {
    let database = format!("sqlx_{:08x}", ports::random() & 0xffff_ffff);
    let Some(Address::Tcp(_, port)) =
        url::address(&services.database_url, &["postgres", "postgresql"], 5432)
    else {
        return Err(Failure::Failed(
            "a private PostgreSQL is needed here: unset DATABASE_URL".to_owned(),
        ));
    };
    postgres::connect(port, postgres::DATABASE)?
        .run(&format!("CREATE DATABASE {database}"))
        .map_err(Failure::Failed)?;
    let migrations = migrate(port, &database)?;
    report::line("migrations", &format!("{migrations} applied"));
    let fresh = Scratch::new()?;
    let outcome = expand(
        &fresh.0,
        &format!("postgres://postgres@127.0.0.1:{port}/{database}"),
        guard,
    )
    .and_then(|()| compare(&fresh.0, check));
    drop(
        postgres::connect(port, postgres::DATABASE)?
            .run(&format!("DROP DATABASE {database} WITH (FORCE)")),
    );
    outcome
}

/// Applies migrations/*.sql in the order of their names, each in one transaction; reversing ones are left out.
fn migrate(port: u16, database: &str) -> Result<usize, Failure> {
    let directory = paths::workspace().join("migrations");
    let mut scripts: Vec<PathBuf> = fs::read_dir(&directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    scripts.retain(|path| {
        let name = path.to_string_lossy();
        name.ends_with(".sql") && !name.ends_with(".down.sql")
    });
    scripts.sort();
    let mut connection = postgres::connect(port, database)?;
    for script in &scripts {
        let name = script.display().to_string();
        let text = fs::read_to_string(script).map_err(Failure::io(name.clone()))?;
        connection
            .run(&text)
            .map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
    }
    Ok(scripts.len())
}

/// Lets every macro expand: the crate's root is touched, so that cargo expands it and all that depends on it anew.
fn expand(into: &Path, database_url: &str, guard: &Guard) -> Result<(), Failure> {
    let root = paths::workspace().join("src/lib.rs");
    let touched = File::options()
        .append(true)
        .open(&root)
        .and_then(|file| file.set_modified(SystemTime::now()));
    touched.map_err(Failure::io(root.display().to_string()))?;
    let mut check = cargo::command(&["check", "--workspace", "--all-targets"]);
    check
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", into)
        .env("DATABASE_URL", database_url);
    let status = process::foreground(&mut check, guard, |_| {})?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Child(cargo::code(status)))
    }
}

fn compare(fresh: &Path, check: bool) -> Result<(), Failure> {
    let directory = paths::workspace().join(".sqlx");
    let (committed, fresh) = (read(&directory)?, read(fresh)?);
    let differences = differences(&committed, &fresh);
    if differences.is_empty() {
        report::line(
            "OK",
            &format!(".sqlx holds {} queries and is up to date", fresh.len()),
        );
        return Ok(());
    }
    for line in &differences {
        report::line("sqlx", line);
    }
    if check {
        let text = format!(
            "{} files of .sqlx are not up to date; renew them with: cargo xtask sqlx",
            differences.len()
        );
        return Err(Failure::Failed(text));
    }
    fs::create_dir_all(&directory).map_err(Failure::io(".sqlx"))?;
    for name in committed.keys().filter(|name| !fresh.contains_key(*name)) {
        fs::remove_file(directory.join(name)).map_err(Failure::io(name.as_str()))?;
    }
    for (name, content) in &fresh {
        fs::write(directory.join(name), content).map_err(Failure::io(name.as_str()))?;
    }
    report::line("OK", &format!(".sqlx renewed: {} queries", fresh.len()));
    Ok(())
}

fn differences(committed: &Files, fresh: &Files) -> Vec<String> {
    let added = fresh
        .keys()
        .filter(|name| !committed.contains_key(*name))
        .map(|name| format!("missing   {name}"));
    let gone = committed
        .keys()
        .filter(|name| !fresh.contains_key(*name))
        .map(|name| format!("unused    {name}"));
    let changed = fresh
        .iter()
        .filter(|(name, content)| committed.get(*name).is_some_and(|old| old != *content));
    added
        .chain(gone)
        .chain(changed.map(|(name, _)| format!("different {name}")))
        .collect()
}

/// The query files of a directory, which may be missing.
fn read(directory: &Path) -> Result<Files, Failure> {
    let mut files = Files::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name
            .strip_suffix(".json")
            .is_some_and(|stem| stem.starts_with("query-"))
        {
            let content = fs::read(entry.path()).map_err(Failure::io(name.clone()))?;
            files.insert(name, content);
        }
    }
    Ok(files)
}

/// An empty directory that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("chat-worker-sqlx-{:016x}", ports::random()));
        fs::create_dir(&path).map_err(Failure::io(path.display().to_string()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_named() {
        let files = |pairs: &[(&str, &str)]| -> Files {
            pairs
                .iter()
                .map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec()))
                .collect()
        };
        let committed = files(&[("same", "1"), ("changed", "1"), ("old", "1")]);
        let fresh = files(&[("same", "1"), ("changed", "2"), ("new", "1")]);
        assert_eq!(
            differences(&committed, &fresh),
            ["missing   new", "unused    old", "different changed"]
        );
        assert!(differences(&fresh, &fresh).is_empty());
    }
}

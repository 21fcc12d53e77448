//! The tests with programs of others: tool servers from npm, clients in Python and Node, psql.
//!
//! They stand in modules called `strangers`. A machine with Rust alone has none of these programs;
//! there the rest of the suite runs, and what was left out is said and counted.

use std::path::Path;
use std::process::{Command, Stdio};

/// Part of the name of each such test.
pub(crate) const MODULE: &str = "strangers";

/// What these tests need and this machine lacks, by the names of Debian's packages.
pub(crate) fn missing() -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |program: &str| std::env::split_paths(&path).any(|folder| is_there(&folder, program));
    lacking(has, can_make_environments())
}

fn is_there(folder: &Path, program: &str) -> bool {
    folder.join(program).is_file()
}

/// Debian's python3 comes without what `python3 -m venv` needs.
fn can_make_environments() -> bool {
    Command::new("python3")
        .args(["-c", "import ensurepip, venv"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn lacking(has: impl Fn(&str) -> bool, venv: bool) -> Vec<&'static str> {
    let programs = [
        ("node", "nodejs"),
        ("npm", "npm"),
        ("psql", "postgresql-client"),
    ];
    let mut packages: Vec<_> = programs
        .into_iter()
        .filter(|(program, _)| !has(program))
        .map(|(_, package)| package)
        .collect();
    if !venv {
        packages.push("python3-venv");
    }
    packages
}

/// The arguments of a whole run of the suite that leaves these tests out.
pub(crate) fn without() -> Vec<String> {
    ["--", "--skip", MODULE].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::lacking;

    #[test]
    fn what_is_lacking_is_named_by_its_package() {
        assert!(lacking(|_| true, true).is_empty());
        assert_eq!(
            lacking(|program| program != "psql", true),
            ["postgresql-client"]
        );
        assert_eq!(
            lacking(|_| false, false),
            ["nodejs", "npm", "postgresql-client", "python3-venv"]
        );
    }
}

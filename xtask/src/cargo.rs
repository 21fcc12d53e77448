//! Running cargo inside `cargo xtask`.

use std::ffi::OsString;
use std::process::{Command, ExitStatus};

use crate::paths;

/// A cargo command in the workspace, without the variables that belong to this crate's own build.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(paths::workspace());
    for name in own_variables() {
        command.env_remove(name);
    }
    command
}

/// The status that a command's end gives to us: its own code, or 128 and the signal.
pub(crate) fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn own_variables() -> impl Iterator<Item = OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_str().is_some_and(is_own))
}

fn is_own(name: &str) -> bool {
    let prefixes = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || name == "LD_LIBRARY_PATH"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_variables_of_our_own_build_are_dropped() {
        assert!(is_own("CARGO_MANIFEST_DIR"));
        assert!(is_own("CARGO_PKG_NAME"));
        for kept in [
            "CARGO_TARGET_DIR",
            "CARGO_TERM_COLOR",
            "CARGO_HOME",
            "SQLX_OFFLINE",
            "PATH",
        ] {
            assert!(!is_own(kept), "{kept}");
        }
    }
}

//! Programs as others publish them, installed once by pip below the target directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program `name` of the package that `requirement` names with its version.
///
/// An environment cannot be moved once it is made, so it is made in its place, by one process at a time.
pub(crate) fn program(requirement: &str, name: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let home = tools.join(requirement.replace("==", "-"));
    let lock = File::create(home.with_extension("lock")).expect("a file to lock");
    lock.lock().expect("the lock");
    let (program, done) = (home.join("bin").join(name), home.join("done"));
    if !done.exists() {
        let made = run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&home));
        assert!(
            made,
            "this test needs python3 with venv (Debian: apt-get install python3 python3-venv)"
        );
        let pip = ["-m", "pip", "install", "--quiet", requirement];
        assert!(
            run(Command::new(home.join("bin/python")).args(pip)),
            "pip could not install {requirement}; is the registry reachable?"
        );
        File::create(done).expect("a mark");
    }
    program
}

fn run(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

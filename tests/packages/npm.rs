//! Tool servers as others publish them, installed once by npm below the target directory.

use std::path::{Path, PathBuf};

/// The main file of a published server, installed once below the target directory.
pub(crate) async fn installed(package: &str) -> PathBuf {
    const VERSION: &str = "2026.8.31";
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{package}-{VERSION}"));
    let main = format!("node_modules/@modelcontextprotocol/{package}/dist/index.js");
    if !home.join(&main).exists() {
        // Beside it first, so that tests in several processes do not see half of it.
        let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let installed = tokio::process::Command::new("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
                "--prefix",
            ])
            .arg(fresh.path())
            .arg(format!("@modelcontextprotocol/{package}@{VERSION}"))
            .output()
            .await
            .expect("this test needs node and npm (https://nodejs.org) on the PATH");
        let said = String::from_utf8_lossy(&installed.stderr);
        assert!(
            installed.status.success(),
            "npm could not install {package}@{VERSION}; is the registry reachable? {said}"
        );
        // Whoever comes second finds it done.
        std::fs::rename(fresh.keep(), &home).ok();
    }
    home.join(main)
}

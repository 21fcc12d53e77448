//! Programs as others publish them, installed once by npm below the target directory.

use std::path::{Path, PathBuf};

/// The main file of a published tool server.
pub(crate) async fn installed(package: &str) -> PathBuf {
    const VERSION: &str = "2026.8.31";
    file_of(
        &format!("@modelcontextprotocol/{package}"),
        VERSION,
        "dist/index.js",
    )
    .await
}

/// A file of a published package.
pub(crate) async fn file_of(package: &str, version: &str, file: &str) -> PathBuf {
    let place = package.replace(['@', '/'], "-");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("npm{place}-{version}"));
    let main = format!("node_modules/{package}/{file}");
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
            .arg(format!("{package}@{version}"))
            .output()
            .await
            .expect("this test needs node and npm (https://nodejs.org) on the PATH");
        let said = String::from_utf8_lossy(&installed.stderr);
        assert!(
            installed.status.success(),
            "npm could not install {package}@{version}; is the registry reachable? {said}"
        );
        // Whoever comes second finds it done.
        std::fs::rename(fresh.keep(), &home).ok();
    }
    home.join(main)
}

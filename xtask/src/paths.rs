//! Where things lie: the workspace, cargo's output, and the directory for the services' data.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::services::user::User;
use crate::sys;

/// The root of the workspace, where `Cargo.lock` is.
pub(crate) fn workspace() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.parent().map(Path::to_path_buf).unwrap_or(own)
}

/// Where cargo puts what it builds: `debug` or `release`, beside the directory this very program was built into.
pub(crate) fn built(profile: &str) -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(|exe| exe.parent()?.parent());
    beside.map_or_else(|| target().join(profile), |outer| outer.join(profile))
}

/// The directory for data, logs and state of private services: in `target/`, or under the temporary directory when
/// the user who runs PostgreSQL cannot reach that. It exists afterwards.
pub(crate) fn services(user: Option<&User>) -> Result<PathBuf, Failure> {
    let inside = target().join("services");
    if make_passable(&inside).is_ok() && user.is_none_or(|user| can_enter(&inside, user)) {
        return Ok(inside);
    }
    let mut hasher = DefaultHasher::new();
    workspace().hash(&mut hasher);
    let name = format!(
        "chat-worker-{}-{:016x}",
        sys::effective_uid(),
        hasher.finish()
    );
    let outside = std::env::temp_dir().join(name);
    make_passable(&outside).map_err(Failure::io(outside.display().to_string()))?;
    // The name can be guessed, and everybody may write to the temporary directory.
    let found =
        fs::symlink_metadata(&outside).map_err(Failure::io(outside.display().to_string()))?;
    if !found.is_dir() || found.uid() != sys::effective_uid() {
        return Err(Failure::Failed(format!(
            "{} belongs to somebody else",
            outside.display()
        )));
    }
    if user.is_none_or(|user| can_enter(&outside, user)) {
        return Ok(outside);
    }
    let text = format!(
        "{} and {} cannot be reached by the user who runs PostgreSQL",
        inside.display(),
        outside.display()
    );
    Err(Failure::Failed(text))
}

/// A directory that others may pass through but not list.
pub(crate) fn make_passable(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o711))
}

fn target() -> PathBuf {
    if let Some(chosen) = std::env::var_os("CARGO_TARGET_DIR") {
        return workspace().join(chosen);
    }
    let own = std::env::current_exe().ok();
    let marked = own.as_deref().and_then(|exe| {
        exe.ancestors()
            .find(|path| path.join("CACHEDIR.TAG").exists())
    });
    marked.map_or_else(|| workspace().join("target"), Path::to_path_buf)
}

/// Asked as that user, so that access lists and mounts count, too.
fn can_enter(path: &Path, user: &User) -> bool {
    let mut command = Command::new("test");
    command
        .arg("-x")
        .arg(path)
        .uid(user.uid)
        .gid(user.gid)
        .current_dir("/");
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

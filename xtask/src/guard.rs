//! What cleans up if this process is killed outright (`kill -9`), so that no run leaves a server behind.
//!
//! A small shell, in a process group of its own, holds the other end of a pipe. It is told what has been started;
//! when the pipe ends without a `done`, it stops all of it. The kernel's parent-death signal would do for a single
//! child, but not for groups, for programs that change their user, for directories, nor outside Linux.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::Failure;
use crate::process::Stop;

/// `kill -s` and the quotes are for dash, which takes `-KILL -- -5` for a wrong number. A killed process may stay a
/// zombie, so the wait before the directory goes is short.
const SCRIPT: &str = r#"
trap '' HUP INT TERM QUIT
stops= project= file= control=
without() { for stop in $stops; do [ "${stop#*:}" = "$1" ] || printf '%s ' "$stop"; done; }
while IFS= read -r line; do
  value=${line#* }
  case $line in
    'stop '*) stops="$stops $value" ;;
    'gone '*) stops=$(without "$value") ;;
    'dir '*) set -- "$@" "$value" ;;
    'kept '*) for dir do shift; [ "$dir" = "$value" ] || set -- "$@" "$dir"; done ;;
    'control '*) control=$value ;;
    'project '*) project=$value ;;
    'file '*) file=$value ;;
    done) exit 0 ;;
  esac
done
for stop in $stops; do kill -s "${stop%%:*}" -- "${stop#*:}"; done
[ -z "$project" ] || docker compose -p "$project" -f "$file" down -v -t 0
[ -z "$control" ] || "$control" stop -m immediate
n=0
for stop in $stops; do
  while kill -s 0 -- "${stop#*:}" && [ $n -lt 30 ]; do sleep 0.1; n=$((n + 1)); done
done
for dir do rm -rf -- "$dir"; done
"#;

/// The shell that watches this process. Clones talk to the same one.
#[derive(Clone)]
pub(crate) struct Guard(Arc<Mutex<Watcher>>);

struct Watcher {
    child: Child,
    pipe: ChildStdin,
}

impl Guard {
    /// Starts it.
    pub(crate) fn start() -> Result<Self, Failure> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT])
            .current_dir("/")
            .process_group(0);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command
            .spawn()
            .map_err(Failure::io("cannot start /bin/sh"))?;
        let pipe = child
            .stdin
            .take()
            .ok_or_else(|| Failure::Failed("the guard has no input".to_owned()))?;
        Ok(Self(Arc::new(Mutex::new(Watcher { child, pipe }))))
    }

    /// This process, or group, is to be stopped.
    pub(crate) fn watch(&self, pid: u32, stop: Stop) {
        self.tell(&match stop {
            Stop::Quit => format!("stop QUIT:{pid}"),
            Stop::Terminate => format!("stop TERM:{pid}"),
            Stop::KillGroup => format!("stop KILL:-{pid}"),
        });
    }

    /// It has ended, or is to be left alone.
    pub(crate) fn forget(&self, pid: u32, stop: Stop) {
        self.tell(&match stop {
            Stop::Quit | Stop::Terminate => format!("gone {pid}"),
            Stop::KillGroup => format!("gone -{pid}"),
        });
    }

    /// This directory is to be removed in the end.
    pub(crate) fn watch_directory(&self, path: &Path) {
        self.tell(&format!("dir {}", path.display()));
    }

    /// This directory is to stay.
    pub(crate) fn keep_directory(&self, path: &Path) {
        self.tell(&format!("kept {}", path.display()));
    }

    /// A PostgreSQL that others restart, so that no number stands for it: this `pg_ctl` is to stop it. There is one
    /// at most.
    pub(crate) fn watch_control(&self, pg_ctl: &Path) {
        self.tell(&format!("control {}", pg_ctl.display()));
    }

    /// This compose project is to be taken down.
    pub(crate) fn watch_project(&self, project: &str, file: &Path) {
        self.tell(&format!("project {project}"));
        self.tell(&format!("file {}", file.display()));
    }

    /// Everything is stopped, or is meant to stay: the guard ends without doing anything.
    pub(crate) fn dismiss(&self) {
        self.tell("done");
        let mut watcher = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(watcher.child.wait());
    }

    /// A guard that is gone cannot be told anything; that is no reason to fail.
    fn tell(&self, line: &str) {
        let mut watcher = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(writeln!(watcher.pipe, "{line}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::process::until;
    use crate::{ports, sys};

    /// A program in a group of its own, and a directory.
    fn something_started() -> (Child, PathBuf) {
        let child = Command::new("sleep")
            .arg("60")
            .process_group(0)
            .spawn()
            .unwrap();
        let directory = std::env::temp_dir().join(format!("xtask guard {:x}", ports::random()));
        std::fs::create_dir(&directory).unwrap();
        (child, directory)
    }

    #[test]
    fn a_pipe_that_ends_stops_what_was_told_and_no_more() {
        let (mut told, directory) = something_started();
        let (mut released, kept) = something_started();
        let guard = Guard::start().unwrap();
        guard.watch(told.id(), Stop::KillGroup);
        guard.watch(released.id(), Stop::KillGroup);
        guard.forget(released.id(), Stop::KillGroup);
        let (mut other, second) = something_started();
        for path in [&directory, &kept, &second] {
            guard.watch_directory(path);
        }
        guard.keep_directory(&kept);
        let (control, said) = a_control();
        guard.watch_control(&control);
        drop(guard);
        let mut has_ended = || !matches!(told.try_wait(), Ok(None));
        let gone = || (has_ended() && !directory.exists() && !second.exists()).then_some(());
        assert!(until(Duration::from_secs(10), gone).is_some());
        assert_eq!(
            std::fs::read_to_string(&said).unwrap(),
            "stop -m immediate\n"
        );
        for child in [&mut released, &mut other] {
            assert!(matches!(child.try_wait(), Ok(None)));
            sys::signal_group(child.id(), sys::KILL);
            child.wait().unwrap();
        }
        std::fs::remove_dir(kept).unwrap();
        std::fs::remove_dir_all(control.parent().unwrap()).unwrap();
    }

    /// A program that writes its arguments to a file, and the file.
    fn a_control() -> (PathBuf, PathBuf) {
        let directory = std::env::temp_dir().join(format!("xtask control {:x}", ports::random()));
        std::fs::create_dir(&directory).unwrap();
        let (control, said) = (directory.join("pg_ctl"), directory.join("said"));
        let text = format!("#!/bin/sh\necho \"$@\" > '{}'\n", said.display());
        std::fs::write(&control, text).unwrap();
        std::fs::set_permissions(&control, std::fs::Permissions::from_mode(0o755)).unwrap();
        (control, said)
    }

    #[test]
    fn a_dismissed_guard_does_nothing() {
        let (mut child, directory) = something_started();
        let guard = Guard::start().unwrap();
        guard.watch(child.id(), Stop::KillGroup);
        guard.watch_directory(&directory);
        guard.dismiss();
        assert!(matches!(child.try_wait(), Ok(None)));
        sys::signal_group(child.id(), sys::KILL);
        child.wait().unwrap();
        std::fs::remove_dir(directory).unwrap();
    }
}

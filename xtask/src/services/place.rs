//! Where private services live: a fresh directory for a throw-away pair, one fixed directory for a kept pair.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::user::User;
use crate::failure::Failure;
use crate::guard::Guard;
use crate::{paths, ports};

/// What the servers need to know to start.
#[derive(Clone)]
pub(crate) struct Place {
    /// Their directory.
    pub(crate) directory: PathBuf,
    /// Whether writes must survive a power cut.
    pub(crate) durable: bool,
    /// Whether others may stop and start them, for which they are given programs.
    pub(crate) victims: bool,
    /// The user for PostgreSQL, if it must not be us.
    pub(crate) postgres_user: Option<User>,
    /// Who cleans up if we cannot.
    pub(crate) guard: Guard,
}

/// The directory of a throw-away pair, removed when dropped. Its lock tells others that it is in use.
pub(crate) struct RunDirectory {
    path: PathBuf,
    lock: PathBuf,
    victims: bool,
    _locked: File,
}

impl Place {
    /// A fresh one. What runs that were killed have left behind goes first.
    pub(crate) fn throw_away(
        base: &Path,
        durable: bool,
        postgres_user: Option<User>,
        guard: &Guard,
    ) -> Result<(Self, RunDirectory), Failure> {
        sweep(base);
        let path = base.join(format!(
            "run-{}-{:06x}",
            std::process::id(),
            ports::random() & 0xff_ffff
        ));
        let lock = path.with_extension("lock");
        let locked = File::create(&lock).map_err(Failure::io(lock.display().to_string()))?;
        locked
            .try_lock()
            .map_err(|error| Failure::Failed(format!("{}: {error}", lock.display())))?;
        guard.watch_directory(&path);
        let run = RunDirectory {
            path: path.clone(),
            lock,
            victims: false,
            _locked: locked,
        };
        make(&path)?;
        Ok((
            Self {
                directory: path,
                durable,
                victims: false,
                postgres_user,
                guard: guard.clone(),
            },
            run,
        ))
    }

    /// A fresh one for servers that may be stopped, and that need not write to disk.
    pub(crate) fn of_victims(
        base: &Path,
        postgres_user: Option<User>,
        guard: &Guard,
    ) -> Result<(Self, RunDirectory), Failure> {
        let (mut place, mut run) = Self::throw_away(base, false, postgres_user, guard)?;
        (place.victims, run.victims) = (true, true);
        Ok((place, run))
    }

    /// The one for kept services, emptied. The caller holds the lock of kept services and has stopped old ones.
    pub(crate) fn kept(
        base: &Path,
        durable: bool,
        postgres_user: Option<User>,
        guard: &Guard,
    ) -> Result<Self, Failure> {
        let path = base.join("kept");
        super::kept::remove(base);
        guard.watch_directory(&path);
        make(&path)?;
        Ok(Self {
            directory: path,
            durable,
            victims: false,
            postgres_user,
            guard: guard.clone(),
        })
    }

    /// The file for what a program prints.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.directory.join("log").join(format!("{name}.log"))
    }
}

impl RunDirectory {
    /// Moves the logs to where they outlive the directory.
    pub(crate) fn save_logs(&self) -> Option<PathBuf> {
        let name = if self.victims {
            "log-of-last-victims"
        } else {
            "log-of-last-failure"
        };
        let saved = self.path.parent()?.join(name);
        drop(fs::remove_dir_all(&saved));
        fs::rename(self.path.join("log"), &saved).ok()?;
        drop(fs::rename(
            self.path.join("rabbitmq/log"),
            saved.join("rabbitmq"),
        ));
        Some(saved)
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
        drop(fs::remove_file(&self.lock));
    }
}

fn make(path: &Path) -> Result<(), Failure> {
    let made = paths::make_passable(path).and_then(|()| paths::make_passable(&path.join("log")));
    made.map_err(Failure::io(path.display().to_string()))
}

/// Removes directories whose owner is dead: nobody holds their lock.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let lock = entry.path();
        let is_lock =
            entry.file_name().to_string_lossy().starts_with("run-") && lock.extension().is_some();
        if is_lock && File::open(&lock).is_ok_and(|file| file.try_lock().is_ok()) {
            let directory = lock.with_extension("");
            if !directory.exists() || fs::remove_dir_all(&directory).is_ok() {
                drop(fs::remove_file(&lock));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_dead_owners_are_swept() {
        let base = std::env::temp_dir().join(format!("xtask-sweep-{:x}", ports::random()));
        for name in ["run-1-dead", "run-2-alive", "kept"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        File::create(base.join("run-1-dead.lock")).unwrap();
        let alive = File::create(base.join("run-2-alive.lock")).unwrap();
        alive.lock().unwrap();
        sweep(&base);
        let mut left: Vec<_> = fs::read_dir(&base)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["kept", "run-2-alive", "run-2-alive.lock"]);
        fs::remove_dir_all(&base).unwrap();
    }
}

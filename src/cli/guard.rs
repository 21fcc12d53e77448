use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::ToolsConfig;
use crate::tools::{GUARD_COMMAND, stand_guard};

/// This program, also when its file has been replaced or removed since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Stands guard over the tool servers of the worker that started this process, if it was started
/// for that: no command for people, and no need of a runtime.
#[must_use]
pub fn guard() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != GUARD_COMMAND {
        return None;
    }
    stand_guard(&args.next()?);
    Some(ExitCode::SUCCESS)
}

/// Has the tool servers of `config` guarded by this program.
pub(super) fn guarded(mut config: ToolsConfig) -> ToolsConfig {
    config.host.guard = Some(PathBuf::from(THIS_PROGRAM));
    config
}

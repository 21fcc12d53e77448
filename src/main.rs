//! The program: reads `.env`, starts the runtime, and leaves the rest to [`chat_worker::cli`].

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Wrong usage or configuration.
const USAGE: u8 = 2;
/// How long a thread that reads a file or standard input may hold up the end.
const LAST_THREADS: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    if let Some(code) = chat_worker::cli::guard() {
        return code;
    }
    // Tool servers run as the same user, and the environment here holds what theirs must not: nobody but root
    // may look into this process. (What it starts may be looked into again.)
    let hidden =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    if let Err(error) = hidden {
        return complain(
            &format!("the process cannot be hidden from its tools: {error}"),
            1,
        );
    }
    // While there is one thread only, and before clap looks at the environment.
    if let Err(problem) = read_dot_env() {
        return complain(&problem, USAGE);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    match builder.enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(chat_worker::cli::main());
            runtime.shutdown_timeout(LAST_THREADS);
            code
        }
        Err(error) => complain(&format!("the runtime does not start: {error}"), 1),
    }
}

/// Takes the variables of `.env`, here or in a directory above, that are not set already.
fn read_dot_env() -> Result<(), String> {
    let error = match dotenvy::dotenv() {
        Ok(_path) => return Ok(()),
        Err(error) if error.not_found() => return Ok(()),
        Err(error) => error,
    };
    // The library's own text quotes the line, which may hold a password.
    if let dotenvy::Error::LineParse(line, _) = &error {
        let name = line.split('=').next().unwrap_or_default().trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let known = line.contains('=') && !name.is_empty() && name.bytes().all(plain);
        let place = if known { name } else { "a line" };
        return Err(format!(
            ".env: {place} is not readable; expected NAME=value, with quotes around a value that has spaces, # or $"
        ));
    }
    Err(format!(".env: {error}"))
}

fn complain(problem: &str, code: u8) -> ExitCode {
    writeln!(std::io::stderr(), "error: {problem}").unwrap_or_default();
    ExitCode::from(code)
}

//! How a command that did not work ends.

use std::io;
use std::process::ExitCode;

use super::output;
use crate::config::Problems;
use crate::store::StoreError;

/// Wrong usage or configuration.
pub(super) const USAGE: u8 = 2;

/// The command was used wrongly; nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Says on standard error what went wrong; the exit code for it.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever read our output has seen enough: nothing went wrong.
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    output::complain(&in_full(error));
    if error.is::<Problems>() || error.is::<Usage>() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::FAILURE
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The error and what it comes from; many errors quote that already.
fn in_full(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Whether the schema, or a part of it, is not there yet.
///
/// SQLSTATE `undefined_table`, `invalid_schema_name`, `undefined_column`, `undefined_object` and
/// `undefined_function` (`PostgreSQL` manual, appendix A).
pub(super) fn lacks_schema(error: &StoreError) -> bool {
    let StoreError::Database(error) = error else {
        return false;
    };
    error.as_database_error().is_some_and(|error| {
        let code = error.code().unwrap_or_default();
        ["42P01", "3F000", "42703", "42704", "42883"].contains(&code.as_ref())
    })
}

/// A failure of the database, with what to do about it.
pub(super) fn of_store(error: StoreError) -> anyhow::Error {
    if lacks_schema(&error) {
        anyhow::anyhow!("the database has no schema, or an old one; run `chat-worker migrate`")
    } else {
        error.into()
    }
}

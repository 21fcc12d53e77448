//! Programs for others to run: a command of ours with its user and environment, as an executable shell script.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::user::User;
use crate::failure::Failure;

/// Writes a script that runs `command` as `user`, with the command's own variables and no others. The script's
/// arguments come behind those of the command.
pub(super) fn write(path: &Path, command: &Command, user: Option<&User>) -> Result<(), Failure> {
    let written = fs::write(path, text(command, user))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    written.map_err(Failure::io(path.display().to_string()))
}

/// setpriv belongs to Debian's essential packages, and only root needs it.
fn text(command: &Command, user: Option<&User>) -> String {
    let mut words = vec!["exec env -i".to_owned()];
    for (name, value) in command.get_envs() {
        let value = quoted(value.unwrap_or_default());
        words.push(format!("{}={value}", name.to_string_lossy()));
    }
    if let Some(User { uid, gid }) = user {
        words.push(format!(
            "setpriv --reuid={uid} --regid={gid} --clear-groups --"
        ));
    }
    words.push(quoted(command.get_program()));
    words.extend(command.get_args().map(quoted));
    format!("#!/bin/sh\ncd /\n{} \"$@\"\n", words.join(" "))
}

fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ports, process};

    #[test]
    fn a_script_passes_every_word_and_variable_on_as_it_is() {
        let path = std::env::temp_dir().join(format!("xtask script {:x}", ports::random()));
        let mut command = Command::new("/bin/sh");
        command
            .env("PATH", "/usr/bin:/bin")
            .env("WORD", "it's $HOME \"here\"")
            .args(["-c", r#"echo "$WORD|$1|$2|$HOME""#, "sh", "two  words"]);
        write(&path, &command, None).unwrap();
        let said = process::capture(Command::new(&path).arg("a 'b'"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(said.unwrap(), "it's $HOME \"here\"|two  words|a 'b'|\n");
    }

    #[test]
    fn root_becomes_the_user_of_the_server() {
        let user = User { uid: 104, gid: 111 };
        let text = text(&Command::new("/opt/pg ctl"), Some(&user));
        assert!(
            text.contains(
                "exec env -i setpriv --reuid=104 --regid=111 --clear-groups -- '/opt/pg ctl' \"$@\""
            ),
            "{text}"
        );
    }
}

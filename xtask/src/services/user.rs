//! The user who runs PostgreSQL, which refuses root.

use std::fs;

use crate::failure::Failure;
use crate::sys;

/// An entry of the list of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The user's number.
    pub(crate) uid: u32,
    /// The group's number.
    pub(crate) gid: u32,
}

/// For root: `postgres`, else `nobody`. For anybody else: no change.
pub(crate) fn for_postgres() -> Result<Option<User>, Failure> {
    if sys::effective_uid() != 0 {
        return Ok(None);
    }
    let list = fs::read_to_string("/etc/passwd").map_err(Failure::io("/etc/passwd"))?;
    let found = find(&list, "postgres").or_else(|| find(&list, "nobody"));
    let text =
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as";
    found
        .map(Some)
        .ok_or_else(|| Failure::NoServices(text.to_owned()))
}

fn find(list: &str, name: &str) -> Option<User> {
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let list = "root:x:0:0::/root:/bin/sh\npostgres2:x:9:9::/:/bin/sh\npostgres:x:104:111:PostgreSQL,,,:/var/lib:/bin/sh\n";
        assert_eq!(find(list, "postgres"), Some(User { uid: 104, gid: 111 }));
        assert_eq!(find(list, "nobody"), None);
    }
}

//! The user to whom unpacked files belong.

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::Path;

use super::super::GuestError;
use crate::system::Owner;

/// The table of users, on every system that has a guest program.
const USERS: &str = "/etc/passwd";

/// Finds a user in the machine's table. The table is read here because a static program cannot rely on
/// the system's name service.
pub(super) fn of_user(name: &str) -> Result<Owner, GuestError> {
    let table = fs::read(USERS).map_err(GuestError::io("read", USERS))?;
    find(&String::from_utf8_lossy(&table), name)
        .ok_or_else(|| GuestError::Usage(format!("there is no user {name:?} in {USERS}")))
}

/// Makes the user the owner of a file, or of a link itself.
pub(super) fn give(owner: Owner, path: &Path) -> io::Result<()> {
    lchown(path, Some(owner.uid), Some(owner.gid))
}

/// The line `name:password:user:group:...` of a user.
fn find(table: &str, name: &str) -> Option<Owner> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let (user, group) = (fields.nth(1)?, fields.next()?);
        Some(Owner { uid: user.parse().ok()?, gid: group.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let table = "root:x:0:0::/root:/bin/sh\nbuilder:x:1000:100::/home/b:/bin/sh\nbad:x:u:g\n";
        assert_eq!(find(table, "builder"), Some(Owner { uid: 1000, gid: 100 }));
        assert_eq!(find(table, "build"), None);
        assert_eq!(find(table, "bad"), None);
    }
}

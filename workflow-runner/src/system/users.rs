//! Users of this machine, read from `/etc/passwd` and `/etc/group`.
//!
//! Not through the C library: a static program would need the machine's own name service modules
//! at run time. Every supported system keeps both files.

use std::fs::File;
use std::io::{self, Read};

use nix::unistd::{getegid, geteuid};

use super::{Identity, Owner, SystemError};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The most that is read of either file, in bytes.
const LIMIT: u64 = 4 * 1024 * 1024;

/// A user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Login name.
    pub(super) name: String,
    /// Home directory.
    pub(super) home: String,
    /// User and primary group.
    pub(super) owner: Owner,
    /// Set when this process is someone else.
    pub(super) identity: Option<Identity>,
}

/// The user of this name, or the user of this process.
pub(super) fn account(name: Option<&str>) -> Result<Account, SystemError> {
    let own = Owner { uid: geteuid().as_raw(), gid: getegid().as_raw() };
    let passwd = text(PASSWD)?;
    let Some(name) = name else {
        let entry = entries(&passwd).find(|entry| entry.owner.uid == own.uid);
        let (name, home) = match entry {
            Some(entry) => (entry.name.to_owned(), entry.home.to_owned()),
            // A process may run under a number without a name, in a container for one.
            None => (own.uid.to_string(), "/".to_owned()),
        };
        return Ok(Account { name, home, owner: own, identity: None });
    };
    let Some(entry) = entries(&passwd).find(|entry| entry.name == name) else {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is no such user");
        return Err(SystemError::new("run steps as", name, source));
    };
    let identity = if entry.owner.uid == own.uid {
        None
    } else if own.uid == 0 {
        let groups = groups(&text(GROUP)?, name, entry.owner.gid);
        Some(Identity { owner: entry.owner, groups })
    } else {
        let source = io::Error::new(
            io::ErrorKind::PermissionDenied,
            "only root can become another user; start the guest program as root",
        );
        return Err(SystemError::new("run steps as", name, source));
    };
    Ok(Account {
        name: entry.name.to_owned(),
        home: entry.home.to_owned(),
        owner: entry.owner,
        identity,
    })
}

fn text(path: &str) -> Result<String, SystemError> {
    let failed = |source| SystemError::new("read", path, source);
    let mut bytes = Vec::new();
    // Unlike a job's files, these may be links: the machine's owner made them.
    File::open(path).map_err(failed)?.take(LIMIT).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Entry<'a> {
    name: &'a str,
    home: &'a str,
    owner: Owner,
}

/// The well-formed lines of a passwd file; others are skipped.
fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?;
        let home = if home.is_empty() { "/" } else { home };
        Some(Entry { name, home, owner: Owner { uid, gid } })
    })
}

/// The numbers of all groups of a user, the primary one first.
fn groups(group: &str, user: &str, primary: u32) -> Vec<u32> {
    let mut numbers = vec![primary];
    for line in group.lines() {
        let mut fields = line.split(':').skip(2);
        let (Some(number), Some(members)) = (fields.next(), fields.next()) else { continue };
        let Ok(number) = number.parse() else { continue };
        if members.split(',').any(|member| member.trim() == user) && !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_bad_lines_skipped() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n+::::::\nci:*:1000:100::/home/ci:\n";
        let names: Vec<_> = entries(passwd).map(|e| (e.name, e.owner.uid, e.home)).collect();
        assert_eq!(names, [("root", 0, "/root"), ("ci", 1000, "/home/ci")]);
    }

    #[test]
    fn groups_are_those_that_name_the_user() {
        let group = "root:x:0:\nwheel:*:10:ci,other\nx:y\nci:x:100:ci\nsudo:x:27:other,ci\n";
        assert_eq!(groups(group, "ci", 100), [100, 10, 27]);
    }
}

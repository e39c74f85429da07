//! Whom a server runs as.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};

use crate::ServerError;

/// The user of a server: the one of its package when the test runs as root, since the servers
/// refuse root or ought to; else whoever runs the test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Whether that is somebody else.
    pub(crate) other: bool,
}

impl Account {
    pub(crate) fn choose(user: &'static str) -> Result<Self, ServerError> {
        let (uid, gid) = (Uid::effective(), Gid::effective());
        if !uid.is_root() {
            return Ok(Self { uid, gid, other: false });
        }
        let found = User::from_name(user).map_err(|errno| ServerError::System {
            what: format!("look up the user {user:?}"),
            source: errno.into(),
        })?;
        let found = found.ok_or(ServerError::NoUser { user })?;
        Ok(Self { uid: found.uid, gid: found.gid, other: true })
    }

    /// The directory for temporary files, or `/tmp` where this account cannot get into it.
    pub(crate) fn temporary(&self) -> PathBuf {
        let chosen = std::env::temp_dir();
        if self.reaches(&chosen) { chosen } else { PathBuf::from("/tmp") }
    }

    fn reaches(&self, path: &Path) -> bool {
        path.is_absolute()
            && path.ancestors().all(|ancestor| {
                ancestor.metadata().is_ok_and(|metadata| {
                    !self.other
                        || metadata.uid() == self.uid.as_raw()
                        || metadata.permissions().mode() & 0o001 != 0
                })
            })
    }
}

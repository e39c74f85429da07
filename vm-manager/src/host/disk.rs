//! Room on the host's disk.

use std::path::{Path, PathBuf};

use common::size::ByteSize;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use super::HostError;

/// The disk has less room than the reserve that every start must leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only {free} are free in `{}`, and {reserve} are kept in reserve", path.display())]
pub struct DiskShort {
    /// The directory that was looked at.
    pub path: PathBuf,
    /// What is free for us.
    pub free: ByteSize,
    /// What a start must leave.
    pub reserve: ByteSize,
}

/// The free bytes that an unprivileged process may use where `path` lies.
///
/// # Errors
///
/// When the path, or the file system below it, cannot be looked at.
pub fn free_space(path: &Path) -> Result<ByteSize, HostError> {
    let found = statvfs(path)
        .map_err(|errno| HostError::io("look for free space in", path)(errno.into()))?;
    #[expect(clippy::useless_conversion, reason = "the field's type differs between platforms")]
    let blocks = u64::from(found.blocks_available());
    Ok(ByteSize(blocks.saturating_mul(found.fragment_size())))
}

/// Whether `path` lies on a tmpfs, so that what is written there reaches no disk but the swap.
///
/// # Errors
///
/// When the path, or the file system below it, cannot be looked at.
pub fn is_on_tmpfs(path: &Path) -> Result<bool, HostError> {
    let found = statfs(path)
        .map_err(|errno| HostError::io("look at the file system of", path)(errno.into()))?;
    Ok(found.filesystem_type() == TMPFS_MAGIC)
}

/// Checks the reserve where `path` lies.
///
/// # Errors
///
/// The outer error when the file system cannot be looked at, the inner when it has too little room.
pub fn check_reserve(path: &Path, reserve: ByteSize) -> Result<Result<(), DiskShort>, HostError> {
    let free = free_space(path)?;
    if free >= reserve {
        return Ok(Ok(()));
    }
    Ok(Err(DiskShort { path: path.to_owned(), free, reserve }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(check_reserve(directory.path(), ByteSize(1)).unwrap(), Ok(()));
        let short = check_reserve(directory.path(), ByteSize(u64::MAX)).unwrap().unwrap_err();
        assert!(short.free.0 > 0 && short.to_string().contains("reserve"), "{short}");
        assert!(free_space(&directory.path().join("missing")).is_err());
    }
}

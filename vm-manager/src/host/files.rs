//! Directories and files that nobody else may read.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::HostError;

/// Creates a directory of mode 0700; it must not exist, its parents may.
pub(crate) fn create_private_directory(path: &Path) -> Result<(), HostError> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(HostError::io("create", parent))?;
    }
    DirBuilder::new().mode(0o700).create(path).map_err(HostError::io("create", path))
}

/// Writes a file of mode 0600 as a whole: readers see the old content or the new, never a part.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), HostError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".new");
    let partial = Path::new(&partial);
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(partial)?;
        file.write_all(content)?;
        fs::rename(partial, path)
    };
    write().map_err(|source| {
        // The first error is the one to report; a partial file that stays goes with its directory.
        drop(fs::remove_file(partial));
        HostError::Io { action: "write", path: path.to_owned(), source }
    })
}

/// Reads a small file that we wrote, `None` if it is not there.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, HostError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HostError::io("open", path)(error)),
    };
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(HostError::io("read", path))?;
    if content.len() as u64 > limit {
        let reason = format!("it has more than {limit} bytes");
        return Err(HostError::Record { path: path.to_owned(), reason });
    }
    Ok(Some(content))
}

/// Removes a directory with everything in it; one that is not there is removed already.
pub(crate) fn remove_directory(path: &Path) -> Result<(), HostError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HostError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory if it is empty, and says whether it is gone.
pub(crate) fn remove_empty_directory(path: &Path) -> Result<bool, HostError> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(true),
            io::ErrorKind::DirectoryNotEmpty => Ok(false),
            _ => Err(HostError::io("remove", path)(error)),
        },
    }
}

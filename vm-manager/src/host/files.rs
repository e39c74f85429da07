//! Directories and files that nobody else may read.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use common::ids::VmId;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::HostError;

/// The permission bits by which anybody but the owner may add and remove files.
const OTHERS_WRITE: u32 = 0o022;

/// The bit by which nobody may remove the files of others.
const STICKY: u32 = 0o1000;

/// Who may write to a directory that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// We alone.
    Ours,
    /// We alone, or everybody for themselves, as in `/tmp`.
    OursOrSticky,
}

/// Creates a directory of mode 0700; it must not exist, its parents may.
pub(crate) fn create_private_directory(path: &Path) -> Result<(), HostError> {
    if let Some(parent) = path.parent() {
        make_directory(parent, Trust::OursOrSticky)?;
    }
    DirBuilder::new().mode(0o700).create(path).map_err(HostError::io("create", path))
}

/// Creates a directory of mode 0700 and its parents if they are not there, and checks one that is.
pub(crate) fn make_directory(path: &Path, trust: Trust) -> Result<(), HostError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    // A link that leads nowhere is there and no directory; the check says so better.
    if !is_present(path) {
        made.map_err(HostError::io("create", path))?;
    }
    check_directory(path, trust)
}

fn is_present(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Refuses a directory in which somebody else could put, remove or exchange our files. One that is
/// not there is nobody's.
pub(crate) fn check_directory(path: &Path, trust: Trust) -> Result<(), HostError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HostError::io("look at", path)(error)),
    };
    let (owner, us) = (found.uid(), geteuid().as_raw());
    let sticky = trust == Trust::OursOrSticky && found.mode() & STICKY != 0;
    let reason = if found.is_symlink() {
        "it is a symbolic link; name the directory itself".to_owned()
    } else if !found.is_dir() {
        "it is no directory; remove it".to_owned()
    } else if owner != us && !(sticky && owner == 0) {
        format!(
            "it belongs to the user with the id {owner} and this program runs as {us}; use a \
             directory of your own"
        )
    } else if found.mode() & OTHERS_WRITE != 0 && !sticky {
        format!(
            "others may write to it (mode {:04o}); take that away with `chmod go-w`",
            found.mode() & 0o7777
        )
    } else {
        return Ok(());
    };
    Err(HostError::Untrusted { path: path.to_owned(), reason })
}

/// Writes a file of mode 0600 as a whole: readers see the old content or the new, never a part. A link
/// of this name is replaced, not followed.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), HostError> {
    let mut partial = path.as_os_str().to_owned();
    // A name that nobody else writes to and nobody could prepare.
    partial.push(format!(".{}.new", VmId::new().short()));
    let partial = Path::new(&partial);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(partial)?;
        file.write_all(content)?;
        fs::rename(partial, path)
    };
    write().map_err(|source| {
        // The first error is the one to report; a partial file that stays goes with its directory.
        drop(fs::remove_file(partial));
        HostError::Io { action: "write", path: path.to_owned(), source }
    })
}

/// Reads a small file that we wrote, `None` if it is not there. Links are not followed, and a pipe is
/// not waited for: the directory may be that of the user whom QEMU runs as.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, HostError> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            let reason = "it is a symbolic link".to_owned();
            return Err(HostError::Record { path: path.to_owned(), reason });
        }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn refusal(path: &Path, trust: Trust) -> String {
        check_directory(path, trust).unwrap_err().to_string()
    }

    #[test]
    fn directories_that_others_can_change_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        check_directory(&path, Trust::Ours).unwrap();
        make_directory(&path, Trust::Ours).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        for (mode, ours, sticky) in [
            (0o755, true, true),
            (0o770, false, false),
            (0o707, false, false),
            (0o1777, false, true),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_directory(&path, Trust::Ours).is_ok(), ours, "{mode:o}");
            assert_eq!(check_directory(&path, Trust::OursOrSticky).is_ok(), sticky, "{mode:o}");
        }
        assert!(refusal(&path, Trust::Ours).contains("mode 1777"));
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            assert!(refusal(&path, Trust::OursOrSticky).contains("the id 65534"));
        }
    }

    #[test]
    fn links_are_refused_replaced_or_not_read() {
        let parent = tempfile::tempdir().unwrap();
        let (link, target) = (parent.path().join("link"), parent.path().join("target"));
        symlink(&target, &link).unwrap();
        let error = make_directory(&link, Trust::OursOrSticky).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert!(!target.exists());
        fs::write(&target, "theirs").unwrap();
        assert!(read_bounded(&link, 10).unwrap_err().to_string().contains("symbolic link"));
        write_private(&link, b"ours").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        assert_eq!(read_bounded(&link, 10).unwrap().unwrap(), b"ours");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
    }
}

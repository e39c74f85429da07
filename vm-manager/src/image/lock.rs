//! Locks between processes, and working directories that never outlive their owner for long.
//!
//! All locks are those of `flock`: the kernel lets go of them when the owner dies, however it
//! dies, so that nothing here ever has to guess whether a process still lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::error::ImageError;
use super::progress::Progress;

/// The longest wait for another owner of a lock. A download and a build each end sooner.
const LOCK_DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);
/// How often a lock that another holds is tried again. Waiting in the kernel instead would hold a
/// thread that no cancellation ends.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// The right to fetch or build one image. It ends when the value is dropped.
pub(crate) struct ImageLock {
    _file: File,
}

impl ImageLock {
    /// Waits for the lock, and says so if it has to.
    pub(crate) async fn acquire(
        path: &Path,
        label: &str,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Self, ImageError> {
        let file = open_lock_file(path).map_err(ImageError::store("open the lock", path))?;
        let mut told = false;
        let wait = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => {
                        return Err(ImageError::store("lock", path)(error));
                    }
                }
                if !std::mem::replace(&mut told, true) {
                    progress(Progress::Waiting);
                }
                tokio::time::sleep(LOCK_INTERVAL).await;
            }
        };
        tokio::time::timeout(LOCK_DEADLINE, wait).await.map_err(|_| ImageError::Deadline {
            label: label.to_owned(),
            what: "waiting for another owner",
            limit: LOCK_DEADLINE,
        })??;
        Ok(Self { _file: file })
    }

    /// The lock, if nobody has it.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<Self>, ImageError> {
        let file = open_lock_file(path).map_err(ImageError::store("open the lock", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(ImageError::store("lock", path)(error)),
        }
    }
}

/// A directory for files in the making. It is removed when the value is dropped, and by
/// [`remove_stale`] if the process dies before that.
pub(crate) struct WorkDirectory {
    path: PathBuf,
    lock: PathBuf,
    _file: File,
}

impl WorkDirectory {
    /// Makes a directory below `parent`.
    pub(crate) fn create(parent: &Path) -> Result<Self, ImageError> {
        loop {
            let path = parent.join(Uuid::now_v7().to_string());
            let lock = path.with_extension("lock");
            let file = open_lock_file(&lock).map_err(ImageError::store("create", &lock))?;
            // Another process that tidies may be faster: it then holds the lock, or has already
            // removed the file that is open here.
            if file.try_lock().is_err() || !is_same_file(&file, &lock) {
                continue;
            }
            fs::create_dir(&path).map_err(ImageError::store("create", &path))?;
            // Recipes run parts of themselves as other users.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(ImageError::store("set the mode of", &path))?;
            return Ok(Self { path, lock, _file: file });
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        remove_directory(&self.path, &self.lock);
    }
}

/// Removes the working directories below `parent` whose owners are dead.
pub(crate) fn remove_stale(parent: &Path) -> Result<(), ImageError> {
    for found in fs::read_dir(parent).map_err(ImageError::store("read", parent))? {
        let path = found.map_err(ImageError::store("read", parent))?.path();
        // A directory always has its lock beside it; a lock may be there before its directory.
        let lock = path.with_extension("lock");
        let Ok(file) = open_lock_file(&lock) else { continue };
        if file.try_lock().is_ok() && is_same_file(&file, &lock) {
            let directory = lock.with_extension("");
            tracing::info!(path = %directory.display(), "removing what a dead process left");
            remove_directory(&directory, &lock);
        }
    }
    Ok(())
}

/// The lock goes last: without it the directory has no owner to be asked about.
fn remove_directory(path: &Path, lock: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "failed to remove a working directory");
        }
        _ => {
            if let Err(error) = fs::remove_file(lock) {
                tracing::warn!(path = %lock.display(), %error, "failed to remove a lock");
            }
        }
    }
}

fn open_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o644).open(path)
}

fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_working_directory_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let work = WorkDirectory::create(parent.path()).unwrap();
        fs::create_dir(work.path().join("out")).unwrap();
        fs::write(work.path().join("out/disk"), "half").unwrap();
        assert_eq!(names(parent.path()).len(), 2);
        drop(work);
        assert_eq!(names(parent.path()), Vec::<String>::new());
    }

    #[test]
    fn only_what_the_dead_left_is_stale() {
        let parent = tempfile::tempdir().unwrap();
        let work = WorkDirectory::create(parent.path()).unwrap();
        fs::create_dir(parent.path().join("dead")).unwrap();
        fs::write(parent.path().join("dead/disk"), "half").unwrap();
        fs::write(parent.path().join("dead.lock"), "").unwrap();
        fs::create_dir(parent.path().join("no-lock")).unwrap();
        fs::write(parent.path().join("no-directory.lock"), "").unwrap();
        remove_stale(parent.path()).unwrap();
        assert_eq!(names(parent.path()).len(), 2, "{:?}", names(parent.path()));
        assert!(work.path().exists());
    }
}

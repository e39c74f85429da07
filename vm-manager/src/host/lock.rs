//! A file whose lock says that its owner lives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use super::HostError;

/// Others look at a lock by taking it for a moment; so often it is tried before it counts as held.
const TRIES: u32 = 4;

/// Between two tries.
const TRY_INTERVAL: Duration = Duration::from_millis(5);

/// A lock that is held. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Creates the file with its lock held: under its name it is never seen free.
    pub(crate) fn create(path: &Path) -> Result<Self, HostError> {
        let unlocked = path.with_extension("new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unlocked)
            .map_err(HostError::io("create", &unlocked))?;
        file.lock().map_err(HostError::io("lock", &unlocked))?;
        std::fs::rename(&unlocked, path).map_err(HostError::io("create", path))?;
        Ok(Self { _file: file })
    }

    /// Like [`Lock::create`], where an earlier attempt may have been cut off. The caller sees to it
    /// that nobody else is at it.
    pub(crate) fn create_again(path: &Path) -> Result<Self, HostError> {
        let unlocked = path.with_extension("new");
        match std::fs::remove_file(&unlocked) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(HostError::io("remove", &unlocked)(error))
            }
            _ => Self::create(path),
        }
    }

    /// Waits for the lock of a file that must exist; `None` if it is gone, or goes while waiting.
    pub(crate) fn wait(path: &Path) -> Result<Option<Self>, HostError> {
        let Some(file) = open(path)? else { return Ok(None) };
        file.lock().map_err(HostError::io("lock", path))?;
        Self::if_present(file, path)
    }

    /// Takes the lock if nobody holds it.
    pub(crate) fn take_free(path: &Path) -> Result<Option<Self>, HostError> {
        let Some(file) = open(path)? else { return Ok(None) };
        for _ in 1..TRIES {
            if try_lock(&file, path)? {
                return Self::if_present(file, path);
            }
            std::thread::sleep(TRY_INTERVAL);
        }
        if try_lock(&file, path)? { Self::if_present(file, path) } else { Ok(None) }
    }

    /// Whether somebody holds the lock. A missing file is held by nobody.
    pub(crate) fn is_held(path: &Path) -> Result<bool, HostError> {
        match open(path)? {
            Some(file) => Ok(!try_lock(&file, path)?),
            None => Ok(false),
        }
    }

    /// The owner removes the file before it releases the lock: who gets it then holds nothing.
    fn if_present(file: File, path: &Path) -> Result<Option<Self>, HostError> {
        let metadata = file.metadata().map_err(HostError::io("look at", path))?;
        Ok((metadata.nlink() > 0).then_some(Self { _file: file }))
    }
}

fn open(path: &Path) -> Result<Option<File>, HostError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HostError::io("open", path)(error)),
    }
}

fn try_lock(file: &File, path: &Path) -> Result<bool, HostError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(HostError::io("lock", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_freed_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert!(Lock::take_free(&path).unwrap().is_none(), "no file");
        assert!(!Lock::is_held(&path).unwrap());
        let lock = Lock::create(&path).unwrap();
        assert!(Lock::is_held(&path).unwrap());
        assert!(Lock::take_free(&path).unwrap().is_none());
        drop(lock);
        // A test beside this one may be between fork and exec, where its child still has the file.
        assert!(Lock::wait(&path).unwrap().is_some());
        eventually(|| !Lock::is_held(&path).unwrap());
        eventually(|| Lock::take_free(&path).unwrap().is_some());
    }

    fn eventually(holds: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !holds() {
            assert!(std::time::Instant::now() < deadline, "not in 20 s");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_lock_whose_file_was_removed_meanwhile_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::create(&path).unwrap();
        let waiter = {
            let path = path.clone();
            std::thread::spawn(move || Lock::wait(&path).map(|lock| lock.is_some()))
        };
        std::fs::remove_file(&path).unwrap();
        drop(lock);
        assert!(!waiter.join().unwrap().unwrap());
    }
}

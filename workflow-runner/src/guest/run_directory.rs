//! The directory of one job in a machine: who owns it, and what lies in it.
//!
//! A daemon owns the directory as long as it holds the lock in it, so that two that start at the
//! same time cannot both run the job. A directory with a socket but without a holder of the lock
//! belongs to a daemon that died.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use common::JobId;
use nix::fcntl::OFlag;

use super::GuestError;

/// How often a claim begins anew because the directory was removed under it.
const ATTEMPTS: usize = 20;

/// The outcome of a claim.
#[derive(Debug)]
pub(super) enum Claim {
    /// Nobody ran the job here before.
    Ours(RunDirectory),
    /// Another daemon holds the directory.
    Running,
}

/// A claimed directory. It is not removed on drop, because what lies in it tells of a daemon that
/// died.
#[derive(Debug)]
pub(super) struct RunDirectory {
    path: PathBuf,
    /// Held, never read: the lock goes with it.
    _lock: File,
}

impl RunDirectory {
    /// The directory of a job.
    pub(super) fn path_of(base: &Path, job: JobId) -> PathBuf {
        base.join(job.to_string())
    }

    /// The socket in the directory of a job.
    pub(super) fn socket_of(base: &Path, job: JobId) -> PathBuf {
        Self::path_of(base, job).join("socket")
    }

    /// The file in which a daemon that panics leaves its last words.
    pub(super) fn last_words_of(base: &Path, job: JobId) -> PathBuf {
        Self::path_of(base, job).join("last-words")
    }

    /// Makes the job's directory, mode 0700, and takes its lock.
    ///
    /// Others may write to the directory above `base`, so nothing that is a symbolic link, belongs
    /// to somebody else or can be written by others is used.
    pub(super) fn claim(base: &Path, job: JobId) -> Result<Claim, GuestError> {
        if let Some(parent) = base.parent() {
            fs::create_dir_all(parent).map_err(GuestError::io("create", parent))?;
        }
        let path = Self::path_of(base, job);
        let lock_path = path.join("lock");
        for _ in 0..ATTEMPTS {
            ensure_own_directory(base, 0o755)?;
            ensure_own_directory(&path, 0o700)?;
            let opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&lock_path);
            let lock = match opened {
                Ok(lock) => lock,
                // The daemon that ends just now removed the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(GuestError::io("open", &lock_path)(error)),
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Claim::Running),
                Err(TryLockError::Error(error)) => {
                    return Err(GuestError::io("lock", &lock_path)(error));
                }
            }
            if !is_same_file(&lock, &lock_path) {
                continue;
            }
            return match fs::symlink_metadata(Self::socket_of(base, job)) {
                Ok(_) => Err(GuestError::Died(job)),
                Err(_) => Ok(Claim::Ours(Self { path, _lock: lock })),
            };
        }
        Err(GuestError::UnsafeDirectory { path, why: "something removes it again and again" })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory with everything in it, then lets go of the lock.
    pub(super) fn remove(self) -> Result<(), GuestError> {
        fs::remove_dir_all(&self.path).map_err(GuestError::io("remove", &self.path))
    }
}

/// Creates a directory or makes sure that the one that is there is ours alone.
fn ensure_own_directory(path: &Path, mode: u32) -> Result<(), GuestError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(GuestError::io("create", path)(error)),
    }
    let facts = fs::symlink_metadata(path).map_err(GuestError::io("look at", path))?;
    let unsafe_directory = |why| Err(GuestError::UnsafeDirectory { path: path.to_owned(), why });
    if !facts.is_dir() {
        return unsafe_directory("it is no directory");
    }
    if facts.uid() != nix::unistd::geteuid().as_raw() {
        return unsafe_directory("it belongs to another user");
    }
    if facts.mode() & 0o022 != 0 {
        return unsafe_directory("others may write to it");
    }
    Ok(())
}

/// Whether the open file still lies at the path.
fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn claimed(base: &Path, job: JobId) -> RunDirectory {
        match RunDirectory::claim(base, job).unwrap() {
            Claim::Ours(directory) => directory,
            Claim::Running => panic!("the directory is held"),
        }
    }

    #[test]
    fn a_second_claim_finds_the_first_until_it_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().join("deep/solstice");
        let job = JobId::new();
        let first = claimed(&base, job);
        let mode = fs::metadata(first.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(matches!(RunDirectory::claim(&base, job).unwrap(), Claim::Running));
        first.remove().unwrap();
        assert!(!RunDirectory::path_of(&base, job).exists());
        claimed(&base, job).remove().unwrap();
    }

    #[test]
    fn a_job_whose_daemon_died_is_not_started_again() {
        let place = tempfile::tempdir().unwrap();
        let job = JobId::new();
        drop(claimed(place.path(), job));
        fs::write(RunDirectory::socket_of(place.path(), job), "").unwrap();
        assert!(matches!(RunDirectory::claim(place.path(), job), Err(GuestError::Died(_))));
    }

    #[test]
    fn what_others_planted_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let job = JobId::new();
        let refused = |base: &Path| {
            let error = RunDirectory::claim(base, job).unwrap_err();
            assert!(matches!(error, GuestError::UnsafeDirectory { .. }), "{error}");
        };

        let link = place.path().join("link");
        symlink(elsewhere.path(), &link).unwrap();
        refused(&link);
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);

        let base = place.path().join("base");
        fs::create_dir(&base).unwrap();
        symlink(elsewhere.path(), RunDirectory::path_of(&base, job)).unwrap();
        refused(&base);

        let open = place.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        refused(&open);
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_planted_lock_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let job = JobId::new();
        let path = RunDirectory::path_of(place.path(), job);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        let target = place.path().join("target");
        symlink(&target, path.join("lock")).unwrap();
        assert!(matches!(RunDirectory::claim(place.path(), job), Err(GuestError::Io { .. })));
        assert!(!target.exists());
    }
}

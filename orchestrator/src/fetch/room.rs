//! Keeping what was fetched within its quota.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::FetchSettings;
use super::store::LOCK;

/// The directory of the files of actions, below that of the settings.
pub(super) const ACTIONS: &str = "actions";
/// The directory of mirrors.
pub(super) const MIRRORS: &str = "mirrors";
/// The repository of a mirror, below its directory.
pub(super) const MIRROR: &str = "git";

/// The beginning of the names of directories in which something is made.
const WORK: &str = "new-";

/// Nobody works in such a directory for so long: it is of a process that was killed.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A directory to make something in, for who holds the lock of the repository. What dead makers have
/// left there goes.
pub(super) fn work(directory: &Path) -> io::Result<TempDir> {
    for path in entries(directory).filter(|path| is_work(path)) {
        let age = path.metadata().and_then(|facts| facts.modified()).map(|at| at.elapsed());
        if age.is_ok_and(|age| age.is_ok_and(|age| age > STALE)) {
            // What cannot be removed now goes another time.
            drop(fs::remove_dir_all(&path));
        }
    }
    tempfile::Builder::new().prefix(WORK).tempdir_in(directory)
}

fn is_work(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(WORK))
}

/// Something that can go.
struct Kept {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
    /// Who changes or reads it holds this; absent for what may go while it is read.
    lock: Option<PathBuf>,
}

/// Removes what was not used for longest until the rest is within the quota; `keep` stays.
pub(super) async fn make(settings: &FetchSettings, keep: &Path) {
    let (settings, keep) = (settings.clone(), keep.to_owned());
    // What cannot be removed now goes another time.
    drop(spawn_blocking(move || evict(&settings, &keep)).await);
}

fn evict(settings: &FetchSettings, keep: &Path) {
    let mut all = Vec::new();
    for repository in entries(&settings.directory.join(ACTIONS)) {
        for path in entries(&repository).filter(|path| is_archive(path)) {
            if let Ok(facts) = path.metadata() {
                let used = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                all.push(Kept { used, bytes: facts.len(), path, lock: None });
            }
        }
    }
    for repository in entries(&settings.directory.join(MIRRORS)) {
        let lock = repository.join(LOCK);
        let used = lock.metadata().and_then(|facts| facts.modified());
        let path = repository.join(MIRROR);
        let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
        all.push(Kept { used, bytes: size(&path), path, lock: Some(lock) });
    }
    let mut total: u64 = all.iter().map(|kept| kept.bytes).sum();
    all.sort_by_key(|kept| kept.used);
    for kept in all {
        if total <= settings.quota.0 {
            return;
        }
        if kept.path != keep && remove(&kept) {
            total -= kept.bytes;
        }
    }
}

fn remove(kept: &Kept) -> bool {
    let Some(lock) = &kept.lock else { return fs::remove_file(&kept.path).is_ok() };
    let Ok(file) = File::open(lock) else { return false };
    file.try_lock().is_ok() && fs::remove_dir_all(&kept.path).is_ok()
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The bytes of all files below a directory.
pub(super) fn size(directory: &Path) -> u64 {
    let mut bytes = 0;
    for path in entries(directory) {
        match path.symlink_metadata() {
            Ok(facts) if facts.is_dir() => bytes += size(&path),
            Ok(facts) => bytes += facts.len(),
            Err(_) => {}
        }
    }
    bytes
}

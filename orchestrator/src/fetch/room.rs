//! Keeping what was fetched within its quota, and the directories in which something is made.
//!
//! ```text
//!  REPOSITORY/new-RANDOM/lock     whoever works there holds it
//!  REPOSITORY/new-RANDOM/work     what is made
//! ```
//!
//! Several processes may use one directory. Such a directory is made and removed by who holds the lock of
//! its repository, alone or with others; one whose own lock nobody holds is of a process that was killed.

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

/// The lock of such a directory before it is held.
const UNNAMED: &str = "new-lock";

/// Where something is made in such a directory.
const INSIDE: &str = "work";

/// Nobody works for so long in one that has no lock, as older versions made them.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A directory in which something is made. It goes with this.
#[derive(Debug)]
pub(super) struct Work {
    path: PathBuf,
    // It goes before its lock does.
    _directory: TempDir,
    _lock: File,
}

impl Work {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A directory to make something in, for who holds the lock of the repository. What dead makers have
/// left there goes.
pub(super) fn work(repository: &Path) -> io::Result<Work> {
    for path in works(repository).filter(|path| is_dead(path)) {
        // What cannot be removed now goes another time.
        drop(fs::remove_dir_all(&path));
    }
    let directory = tempfile::Builder::new().prefix(WORK).tempdir_in(repository)?;
    // Held before it has its name, for others may look meanwhile.
    let unnamed = directory.path().join(UNNAMED);
    let lock = File::create(&unnamed)?;
    lock.lock()?;
    fs::rename(&unnamed, directory.path().join(LOCK))?;
    let path = directory.path().join(INSIDE);
    fs::create_dir(&path)?;
    Ok(Work { path, _directory: directory, _lock: lock })
}

/// The directories of a repository in which something is made.
fn works(repository: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    entries(repository).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(WORK))
    })
}

/// Whether nobody works in such a directory any more.
fn is_dead(work: &Path) -> bool {
    match File::options().write(true).open(work.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(_) => {
            let made = work.metadata().and_then(|facts| facts.modified());
            // A clock that went backwards makes nothing old.
            made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > STALE))
        }
    }
}

/// Removes what dead makers have left in all repositories.
pub(crate) async fn sweep(settings: &FetchSettings) {
    let settings = settings.clone();
    // What cannot be removed now goes another time.
    drop(spawn_blocking(move || remove_dead(&settings)).await);
}

/// Does so; gives the bytes of what somebody works with.
fn remove_dead(settings: &FetchSettings) -> u64 {
    let mut bytes = 0;
    for kind in [ACTIONS, MIRRORS] {
        for repository in entries(&settings.directory.join(kind)) {
            let mut works = works(&repository).peekable();
            if works.peek().is_none() {
                continue;
            }
            // Who holds it may be about to lock what it has just made.
            let lock = File::open(repository.join(LOCK)).ok();
            let lock = lock.filter(|lock| lock.try_lock().is_ok());
            for work in works {
                let is_gone = lock.is_some() && is_dead(&work) && fs::remove_dir_all(&work).is_ok();
                if !is_gone {
                    bytes += size(&work);
                }
            }
        }
    }
    bytes
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
    let mut total = all.iter().map(|kept| kept.bytes).sum::<u64>() + remove_dead(settings);
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
    file.try_lock().is_ok() && discard(&kept.path).is_ok()
}

/// Removes a mirror, of which nothing is left under its name from the first moment on. Whoever calls this
/// holds its lock alone.
pub(super) fn discard(mirror: &Path) -> io::Result<()> {
    let repository = mirror.parent().unwrap_or(mirror);
    let going = tempfile::Builder::new().prefix(WORK).tempdir_in(repository)?;
    fs::rename(mirror, going.path().join(INSIDE))?;
    going.close()
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

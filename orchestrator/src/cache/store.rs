//! Complete caches on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use common::ids::JobId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{CacheSettings, Scope, evict, upload};
use crate::blob::BlobError;

/// An entry is no larger than this, or than half of the quota: 10 GiB, as GitHub's repositories have.
const ENTRY_BYTES: u64 = 10 * 1024 * 1024 * 1024;

/// Complete caches on disk.
#[derive(Debug)]
pub(crate) struct CacheStore {
    pub(super) settings: CacheSettings,
}

/// What is known of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of which files and how packed, as the job says.
    pub(super) version: String,
    /// Who may read it: see [`Scope`].
    pub(super) scope: String,
    pub(super) size: u64,
    /// The file with its content, without the end.
    pub(super) data: String,
    /// When it was made, in milliseconds since 1970.
    pub(super) made: u64,
    /// Which job saved it: one that did not hear so asks again. Absent in what older versions made.
    #[serde(default)]
    pub(super) job: Option<JobId>,
}

/// The end of the name of a file of an entry.
pub(super) const ENTRY: &str = "entry";
/// That of what is in it.
pub(super) const DATA: &str = "data";

/// Why a cache cannot be saved.
#[derive(Debug, thiserror::Error)]
pub(super) enum SaveError {
    /// There is one with this key, or is about to be.
    #[error("{0}")]
    Taken(String),
    /// What the job says or sends makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is no such upload.
    #[error("this job has begun no such cache")]
    Unknown,
    /// It is too much.
    #[error("{0}")]
    TooLarge(String),
    /// The host cannot.
    #[error("the host cannot keep the cache: {0}")]
    Io(#[from] io::Error),
}

impl From<BlobError> for SaveError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Invalid(text) => Self::Invalid(text),
            BlobError::TooLarge(text) => Self::TooLarge(text),
            BlobError::Io(error) => Self::Io(error),
        }
    }
}

impl CacheStore {
    pub(crate) fn new(settings: CacheSettings) -> Arc<Self> {
        Arc::new(Self { settings })
    }

    /// The most bytes of an entry.
    pub(super) fn entry_bytes(&self) -> u64 {
        ENTRY_BYTES.min(self.settings.quota.0 / 2)
    }

    /// The directory of a repository.
    pub(super) fn place(&self, scope: &Scope) -> PathBuf {
        self.settings.directory.join(&scope.directory)
    }

    /// The same, made if it is not there.
    pub(super) fn make_place(&self, scope: &Scope) -> io::Result<PathBuf> {
        let place = self.place(scope);
        if !place.is_dir() {
            fs::create_dir_all(&place)?;
            fs::write(place.join("about"), format!("{}\n", scope.about))?;
        }
        Ok(place)
    }

    /// The cache that a job restores: in each of the scopes that it may read, by each key first the one
    /// with that key, then the newest one whose key begins so.
    pub(super) fn find(&self, scope: &Scope, keys: &[String], version: &str) -> Option<Entry> {
        let place = self.place(scope);
        let entries: Vec<Entry> = entries(&place)
            .filter_map(|path| read(&path))
            .filter(|entry| entry.version == version && is_whole(&place, entry))
            .collect();
        let found = scope.read.iter().find_map(|readable| {
            let of_scope = || entries.iter().filter(|entry| entry.scope == *readable);
            keys.iter().find_map(|key| {
                of_scope().find(|entry| entry.key == *key).or_else(|| {
                    of_scope()
                        .filter(|entry| entry.key.starts_with(key.as_str()))
                        .max_by_key(|entry| entry.made)
                })
            })
        })?;
        touch(&place.join(file_of(&found.scope, &found.key, version)));
        Some(found.clone())
    }

    /// Opens a cache that the job may read.
    pub(super) fn open(&self, scope: &Scope, data: &str) -> Option<(File, u64)> {
        let place = self.place(scope);
        let is_it = |entry: &Entry| entry.data == data && scope.read.contains(&entry.scope);
        let entry = entries(&place).filter_map(|path| read(&path)).find(is_it)?;
        Some((File::open(data_of(&place, &entry)).ok()?, entry.size))
    }

    /// Whether there is one with this key where the job writes.
    pub(super) fn has(&self, scope: &Scope, key: &str, version: &str) -> bool {
        let place = self.place(scope);
        let entry = read(&place.join(file_of(&scope.write, key, version)));
        entry.is_some_and(|entry| is_whole(&place, &entry))
    }

    /// Whether an entry of a job is whole, by the number under which it saved it, and its size.
    pub(super) fn has_saved(&self, scope: &Scope, job: JobId, number: u64, size: u64) -> bool {
        let place = self.place(scope);
        entries(&place).filter_map(|path| read(&path)).any(|entry| {
            (entry.job, entry.size, &entry.scope) == (Some(job), size, &scope.write)
                && upload::number(scope, job, &entry.key, &entry.version) == number
                && is_whole(&place, &entry)
        })
    }

    /// Makes an entry of a file, which is moved. Who is killed meanwhile leaves the file, or a whole
    /// entry.
    pub(super) fn add(
        &self,
        scope: &Scope,
        job: JobId,
        (key, version): (&str, &str),
        file: &Path,
    ) -> Result<(), SaveError> {
        let place = self.make_place(scope)?;
        let entry = Entry {
            key: key.to_owned(),
            version: version.to_owned(),
            scope: scope.write.clone(),
            size: file.metadata()?.len(),
            data: Uuid::now_v7().simple().to_string(),
            made: now(),
            job: Some(job),
        };
        let path = place.join(file_of(&entry.scope, key, version));
        if read(&path).is_some_and(|old| !is_whole(&place, &old)) {
            // Its content is gone, and nobody can restore it.
            drop(fs::remove_file(&path));
        }
        publish(&path, &entry).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(key),
            _ => error.into(),
        })?;
        // Until then the entry is not whole, and nobody's.
        if let Err(error) = fs::rename(file, data_of(&place, &entry)) {
            drop(fs::remove_file(&path));
            return Err(error.into());
        }
        evict::make_room(&self.settings, &path);
        Ok(())
    }
}

pub(super) fn taken(key: &str) -> SaveError {
    SaveError::Taken(format!("a cache with the key {key} exists already, or is being saved"))
}

/// Writes the file of an entry, unless there is one.
fn publish(path: &Path, entry: &Entry) -> io::Result<()> {
    let temporary = path.with_extension(&entry.data);
    let written = OpenOptions::new().write(true).create_new(true).open(&temporary);
    let written = written.and_then(|mut file| file.write_all(&serde_json::to_vec(entry)?));
    let linked = written.and_then(|()| fs::hard_link(&temporary, path));
    drop(fs::remove_file(&temporary));
    linked
}

/// The files of the entries of a directory; none where nothing can be read.
pub(super) fn entries(place: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let all = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|path| path.extension().is_some_and(|end| end == ENTRY))
}

pub(super) fn read(path: &Path) -> Option<Entry> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

pub(super) fn data_of(place: &Path, entry: &Entry) -> PathBuf {
    place.join(&entry.data).with_extension(DATA)
}

/// A host that lost its power may have lost what was written last.
fn is_whole(place: &Path, entry: &Entry) -> bool {
    data_of(place, entry).metadata().is_ok_and(|facts| facts.len() == entry.size)
}

/// The name of the file of an entry.
fn file_of(scope: &str, key: &str, version: &str) -> String {
    format!("{}.{ENTRY}", hash(&[scope, key, version]))
}

/// A name for several texts.
pub(super) fn hash(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hex::encode(&hash.finalize()[..16])
}

/// What was used goes later than what was not.
pub(super) fn touch(path: &Path) {
    // A cache that cannot be touched is only forgotten sooner.
    drop(File::open(path).and_then(|file| file.set_modified(SystemTime::now())));
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! Caches that are being saved.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::ids::JobId;
use serde::{Deserialize, Serialize};

use super::evict::is_untouched;
use super::store::{SaveError, hash, taken, touch};
use super::{CacheStore, Scope};
use crate::blob::{Blob, Room};
use crate::calls::Body;

/// The end of the name of the file that says what is being saved.
pub(super) const PENDING: &str = "pending";

/// The caches that one job saves at the same time.
const PENDINGS: usize = 64;

/// A job that has sent nothing of a cache for so long keeps nobody else from saving it
/// (forgejo-runner-protocol 8.8).
const IDLE: Duration = Duration::from_secs(5 * 60);

/// The characters of a key or a version (github-runner-protocol 8.5 names no limit; GitHub's own is
/// this for keys).
pub(super) const KEY_CHARACTERS: usize = 512;

/// What is being saved.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    job: JobId,
    key: String,
    version: String,
    scope: String,
}

/// A cache that is being saved.
#[derive(Debug)]
pub(super) struct Upload {
    pending: Pending,
    /// The file that says so; the others have the same name but for the end.
    path: PathBuf,
    blob: Blob,
}

impl CacheStore {
    /// Begins to save a cache, or goes on with it. Gives its number.
    pub(super) fn reserve(
        &self,
        scope: &Scope,
        job: JobId,
        key: &str,
        version: &str,
    ) -> Result<u64, SaveError> {
        let invalid = |what: &str| SaveError::Invalid(format!("the {what} of a cache is too long"));
        if key.is_empty() {
            return Err(SaveError::Invalid("a cache needs a key".to_owned()));
        }
        if key.chars().count() > KEY_CHARACTERS {
            return Err(invalid("key"));
        }
        if version.chars().count() > KEY_CHARACTERS {
            return Err(invalid("version"));
        }
        if self.has(scope, key, version) {
            return Err(taken(key));
        }
        let place = self.make_place(scope)?;
        let number = number(scope, job, key, version);
        let path = place.join(format!("{number}.{PENDING}"));
        if let Some(upload) = Upload::read(&path) {
            // Nothing of it has come when the answer to this question was lost; else it is a new try.
            upload.blob.restart();
            return Ok(number);
        }
        let mut own = 0;
        for other in fs::read_dir(&place)?.flatten().map(|entry| entry.path()) {
            let Some(upload) = Upload::read(&other) else { continue };
            let same = |own: &Pending| {
                (own.key.as_str(), own.version.as_str(), own.scope.as_str())
                    == (key, version, scope.write.as_str())
            };
            if same(&upload.pending) && !upload.is_stale() {
                return Err(taken(key));
            }
            own += usize::from(upload.pending.job == job);
        }
        if own >= PENDINGS {
            let text = format!("the job saves {PENDINGS} caches already");
            return Err(SaveError::TooLarge(text));
        }
        let (key, version) = (key.to_owned(), version.to_owned());
        let pending = Pending { job, key, version, scope: scope.write.clone() };
        fs::write(path, serde_json::to_vec(&pending).map_err(io::Error::other)?)?;
        Ok(number)
    }

    /// What the job is saving under this number.
    pub(super) fn upload(
        &self,
        scope: &Scope,
        job: JobId,
        number: u64,
    ) -> Result<Upload, SaveError> {
        let path = self.place(scope).join(format!("{number}.{PENDING}"));
        let upload = Upload::read(&path).ok_or(SaveError::Unknown)?;
        let is_own = upload.pending.job == job && upload.pending.scope == scope.write;
        if is_own { Ok(upload) } else { Err(SaveError::Unknown) }
    }

    /// Removes what the job has begun and not completed.
    pub(super) fn forget(&self, scope: &Scope, job: JobId) {
        let all = fs::read_dir(self.place(scope)).into_iter().flatten().flatten();
        let uploads = all.filter_map(|entry| Upload::read(&entry.path()));
        for upload in uploads.filter(|upload| upload.pending.job == job) {
            upload.blob.remove();
        }
    }

    /// Makes an entry of what has come under a number, which has so many bytes. False where the job
    /// has done so before, in this process or another, and did not hear of it.
    pub(super) fn commit(
        &self,
        scope: &Scope,
        job: JobId,
        number: u64,
        size: u64,
    ) -> Result<bool, SaveError> {
        let upload = self.upload(scope, job, number);
        if self.has_saved(scope, job, number, size) {
            // Who was killed may have left the rest of it.
            upload.iter().for_each(|upload| upload.blob.remove());
            return Ok(false);
        }
        let upload = upload?;
        upload.blob.check(size)?;
        let Pending { key, version, .. } = &upload.pending;
        let added = self.add(scope, job, (key, version), &upload.blob.file());
        upload.blob.remove();
        added.map(|()| true)
    }
}

/// The number of what a job saves. It fits into the numbers that JavaScript has.
pub(super) fn number(scope: &Scope, job: JobId, key: &str, version: &str) -> u64 {
    let hash = hash(&[&job.to_string(), &scope.write, key, version]);
    u64::from_str_radix(&hash[..12], 16).unwrap_or_default()
}

impl Upload {
    fn read(path: &Path) -> Option<Self> {
        if path.extension().is_none_or(|end| end != PENDING) {
            return None;
        }
        let pending = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let name = path.file_stem()?.to_str()?;
        let blob = Blob::new(path.parent()?, name);
        Some(Self { pending, path: path.to_owned(), blob })
    }

    /// Whether nothing has come for so long that nothing will.
    fn is_stale(&self) -> bool {
        is_untouched(&self.path, IDLE)
    }

    /// Takes a part at a place, which has so many bytes.
    pub(super) async fn write(
        &self,
        at: u64,
        body: Body,
        count: u64,
        room: &Room,
    ) -> Result<(), SaveError> {
        self.blob.write(at, body, Some(count), room).await?;
        touch(&self.path);
        Ok(())
    }

    /// Takes what a client of the Azure blob service sends.
    pub(super) async fn put(&self, query: &str, body: Body, room: &Room) -> Result<(), SaveError> {
        self.blob.put(query, body, room).await?;
        touch(&self.path);
        Ok(())
    }
}

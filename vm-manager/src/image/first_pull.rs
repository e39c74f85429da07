//! The digests of images for which the catalogue names none, as the first pull found them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::ImageError;

/// What the user is asked to vouch for.
#[derive(Clone, Debug)]
pub struct FirstPull {
    /// The image.
    pub label: String,
    /// Where it came from.
    pub url: String,
    /// The digest of what came.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The file `images.lock`.
pub(super) struct LockFile {
    path: PathBuf,
    /// Held while the file is changed.
    guard: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    image: BTreeMap<String, Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    digest: String,
}

impl LockFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.join("images.lock"), guard: directory.join("images.lock.guard") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The digest that the first pull from this address found, if there was one.
    pub(super) fn recorded(&self, url: &str) -> Result<Option<Digest>, ImageError> {
        let content = self.read()?;
        let Some(record) = content.image.get(url) else { return Ok(None) };
        record.digest.parse().map(Some).map_err(|error| self.damaged(&error))
    }

    /// Records a first pull. The caller holds the image's lock; other images may be recorded at the
    /// same moment.
    pub(super) fn record(&self, url: &str, digest: &Digest) -> Result<(), ImageError> {
        let guard =
            fs::File::create(&self.guard).map_err(ImageError::store("create", &self.guard))?;
        guard.lock().map_err(ImageError::store("lock", &self.guard))?;
        let mut content = self.read()?;
        content.image.insert(url.to_owned(), Record { digest: digest.to_string() });
        let text = toml::to_string(&content).expect("texts and maps of texts are TOML");
        let text = format!(
            "# What the first pull of each image found. Later pulls must find the same; remove an\n\
             # entry to accept another image from its address.\n\n{text}"
        );
        write_durably(&self.path, text.as_bytes())
    }

    fn read(&self) -> Result<Content, ImageError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => toml::from_str(&text).map_err(|error| self.damaged(&error.message())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(ImageError::store("read", &self.path)(error)),
        }
    }

    fn damaged(&self, message: &dyn std::fmt::Display) -> ImageError {
        ImageError::Damaged { path: self.path.clone(), message: message.to_string() }
    }
}

/// Replaces a file in one step: whatever happens, a reader sees the old or the new one.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let directory = path.parent().expect("the store's files lie in its directories");
    let partial = path.with_extension(format!("{}.new", uuid::Uuid::now_v7()));
    let write = || {
        let mut file = fs::File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        fs::File::open(directory)?.sync_all()
    };
    write().map_err(|error| {
        // It may not be there; the error that counts is the first one.
        drop(fs::remove_file(&partial));
        ImageError::store("write", path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_last_and_are_apart() {
        let directory = tempfile::tempdir().unwrap();
        let lock = LockFile::new(directory.path());
        let one: Digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        let two: Digest = format!("sha256:{}", "2".repeat(64)).parse().unwrap();
        assert_eq!(lock.recorded("https://a.example/x").unwrap(), None);
        lock.record("https://a.example/x", &one).unwrap();
        lock.record("https://b.example/y", &two).unwrap();
        let again = LockFile::new(directory.path());
        assert_eq!(again.recorded("https://a.example/x").unwrap(), Some(one));
        assert_eq!(again.recorded("https://b.example/y").unwrap(), Some(two));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_a_first_pull() {
        let directory = tempfile::tempdir().unwrap();
        let lock = LockFile::new(directory.path());
        for bad in ["[image", "[other]\n", "[image.\"u\"]\ndigest = \"sha256:short\"\n"] {
            fs::write(lock.path(), bad).unwrap();
            let error = lock.recorded("u").unwrap_err();
            assert!(error.to_string().contains("images.lock"), "{error}");
        }
    }
}

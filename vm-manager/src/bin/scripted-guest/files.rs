//! The files of the guest: in memory, by their whole paths. There are no directories to make.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The bytes of a file that are kept; of a larger one, such as the guest program, only its size is.
pub(crate) const KEPT_BYTES: usize = 64 * 1024;

/// The files of the guest.
#[derive(Debug, Default)]
pub(crate) struct Files(Mutex<HashMap<String, File>>);

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct File {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Its start, at most [`KEPT_BYTES`].
    pub(crate) start: Vec<u8>,
}

impl File {
    /// Writes at a place.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.size = self.size.max(offset.saturating_add(bytes.len() as u64));
        let Ok(offset) = usize::try_from(offset) else { return };
        let end = offset.saturating_add(bytes.len()).min(KEPT_BYTES);
        if offset < end {
            if self.start.len() < end {
                self.start.resize(end, 0);
            }
            self.start[offset..end].copy_from_slice(&bytes[..end - offset]);
        }
    }

    /// Reads at a place: nothing at the end, and an error where the bytes were not kept.
    pub(crate) fn read(&self, offset: u64, count: usize) -> Result<&[u8], ()> {
        if offset >= self.size {
            return Ok(&[]);
        }
        let from = usize::try_from(offset).map_err(|_| ())?;
        let to = from.saturating_add(count).min(self.start.len());
        if from < to { Ok(&self.start[from..to]) } else { Err(()) }
    }
}

impl Files {
    /// Looks at a file or changes it.
    pub(crate) fn with<T>(&self, path: &str, act: impl FnOnce(&mut File) -> T) -> Option<T> {
        self.lock().get_mut(path).map(act)
    }

    /// Makes an empty file; says whether there was none before. What was there is gone.
    pub(crate) fn create(&self, path: &str, mode: u32) -> bool {
        self.lock().insert(path.to_owned(), File { mode, ..File::default() }).is_none()
    }

    /// Whether there is a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.lock().contains_key(path)
    }

    /// Removes a file; says whether there was one.
    pub(crate) fn remove(&self, path: &str) -> bool {
        self.lock().remove(path).is_some()
    }

    /// Gives a file another name, in place of what had it; says whether there was one.
    pub(crate) fn rename(&self, from: &str, to: &str) -> bool {
        let mut files = self.lock();
        let found = files.remove(from);
        found.map(|file| files.insert(to.to_owned(), file)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_kept_and_of_large_ones_the_size() {
        let files = Files::default();
        assert!(files.create("/a", 0o600) && files.has("/a"));
        files.with("/a", |file| {
            file.write(4, b"later");
            file.write(0, b"soon");
            assert_eq!(file.read(0, 100), Ok(&b"soonlater"[..]));
            assert_eq!(file.read(9, 1), Ok(&[][..]));
            file.write(1 << 20, b"x");
            assert_eq!(file.size, (1 << 20) + 1);
            assert_eq!(file.start.len(), 9);
            assert_eq!(file.read(1 << 20, 1), Err(()));
            file.write(u64::MAX, b"x");
        });
        assert!(files.rename("/a", "/b") && !files.has("/a") && files.remove("/b"));
        assert!(!files.rename("/a", "/b") && !files.remove("/b"));
    }
}

//! Freezing machines of failed jobs, under the keys of the installation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use queue::seal::{KeyFileError, KeyRing, Sealed};
use vm_manager::frozen::Cipher;

/// What machines' frozen files are sealed for.
const PURPOSE: &str = "frozen machine";

/// What is sealed with.
#[derive(Clone, Debug)]
pub enum Keys {
    /// A key of this host, made on first use.
    Own(PathBuf),
    /// Keys that the installation shares: the first seals, all open.
    Given(Vec<PathBuf>),
}

impl Keys {
    /// Reads them.
    ///
    /// # Errors
    /// A file cannot be read or made, others may read it, or it holds no key.
    pub fn load(&self) -> Result<KeyRing, KeyFileError> {
        match self {
            Self::Own(path) => KeyRing::load_or_create(path),
            Self::Given(paths) => KeyRing::load(paths),
        }
    }

    /// What seals and opens frozen machines with them.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn cipher(&self) -> Result<Arc<dyn Cipher>, KeyFileError> {
        if let Self::Own(path) = self {
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap_or_default();
        }
        Ok(Arc::new(OfRing(self.load()?)))
    }
}

struct OfRing(KeyRing);

impl Cipher for OfRing {
    fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        self.0.seal(PURPOSE, b"", place, plain).to_bytes()
    }

    fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.open(PURPOSE, b"", place, &Sealed::from_bytes(sealed)?).ok()
    }
}

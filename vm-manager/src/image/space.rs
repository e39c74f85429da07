//! Room on disk: some stays free whatever the store does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::limits::MIB;
use common::size::ByteSize;

use super::error::ImageError;

/// Bytes that may be written between two looks at the free space.
const BYTES_BETWEEN_CHECKS: u64 = 32 * MIB;

/// Says how many bytes an ordinary user can still write below a path: the file system's word, or a
/// test's.
pub type FreeSpace = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// Asks the file system.
pub(super) fn free_space(path: &Path) -> io::Result<u64> {
    let status = nix::sys::statvfs::statvfs(path)?;
    Ok(status.blocks_available().saturating_mul(status.fragment_size()))
}

/// Watches the room for one image.
#[derive(Clone)]
pub(super) struct Room {
    pub(super) label: String,
    pub(super) path: PathBuf,
    pub(super) reserve: ByteSize,
    pub(super) free_space: FreeSpace,
}

impl Room {
    /// Fails unless so many bytes fit and the reserve stays.
    pub(super) fn check(&self, bytes: u64) -> Result<(), ImageError> {
        let free = (self.free_space)(&self.path)
            .map_err(ImageError::store("ask for the free space of", &self.path))?;
        let needed = bytes.saturating_add(self.reserve.0);
        if free >= needed {
            return Ok(());
        }
        Err(ImageError::NoRoom {
            label: self.label.clone(),
            needed: ByteSize(needed),
            reserve: self.reserve,
            free: ByteSize(free),
            path: self.path.clone(),
        })
    }

    /// A count of bytes that are being written.
    pub(super) fn meter(&self) -> Meter<'_> {
        Meter { room: self, unchecked: 0 }
    }
}

/// Checks the room every now and then while bytes are written.
pub(super) struct Meter<'a> {
    room: &'a Room,
    unchecked: u64,
}

impl Meter<'_> {
    /// To be called before so many bytes are written.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), ImageError> {
        self.unchecked += bytes as u64;
        if self.unchecked >= BYTES_BETWEEN_CHECKS {
            self.room.check(self.unchecked)?;
            self.unchecked = 0;
        }
        Ok(())
    }
}

//! Where segment files lie.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// A place for segment files.
pub(in crate::guest) trait Disk {
    /// Makes an empty segment.
    fn create(&self) -> io::Result<Box<dyn Segment>>;
}

/// One file of a spool. Its space is free again when it is dropped.
pub(in crate::guest) trait Segment {
    /// Writes all bytes at this place.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads exactly as many bytes from this place.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Segments as files without a name in a directory: they are unlinked at once, so that nothing of a
/// job's log stays behind a daemon that is killed.
#[derive(Debug)]
pub(in crate::guest) struct Folder(pub(in crate::guest) PathBuf);

impl Disk for Folder {
    fn create(&self) -> io::Result<Box<dyn Segment>> {
        let path = self.0.join("segment");
        // Left there by a failed unlink; nothing uses it any more.
        drop(fs::remove_file(&path));
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        Ok(Box::new(file))
    }
}

impl Segment for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

//! Whether an archive came to its end.

use std::io::{self, Read};

/// The bytes of a block; entries begin at whole blocks.
const BLOCK_BYTES: u64 = 512;

/// The zero bytes that end an archive: two blocks.
const END_BYTES: u64 = 2 * BLOCK_BYTES;

/// A reader that counts. An archive that was cut off between two entries looks complete otherwise.
pub(super) struct Tail<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Tail<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, bytes: 0 }
    }

    /// Reads what is left, so that the writer is not cut off, and fails if there is no end mark
    /// behind the last entry, whose content ends at `last`.
    pub(super) fn check_end(mut self, last: u64) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        let end =
            last.checked_next_multiple_of(BLOCK_BYTES).and_then(|end| end.checked_add(END_BYTES));
        if end.is_none_or(|end| self.bytes < end) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends early"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect(|bytes| self.bytes += *bytes as u64)
    }
}

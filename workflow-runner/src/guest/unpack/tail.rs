//! Whether an archive came to its end, and what stands between its entries.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// The bytes of a block; entries begin at whole blocks.
const BLOCK_BYTES: u64 = 512;

/// The zero bytes that end an archive: two blocks.
const END_BYTES: u64 = 2 * BLOCK_BYTES;

/// The most bytes between the content of an entry and that of the next: its header, and long names
/// and attributes, which are kept in memory.
const BETWEEN_BYTES: u64 = 1024 * 1024;

/// A reader that counts. An archive that was cut off between two entries looks complete otherwise.
pub(super) struct Tail<R> {
    inner: R,
    bytes: u64,
    most: Bound,
}

/// How far an archive may be read at this moment.
#[derive(Clone)]
pub(super) struct Bound(Rc<Cell<u64>>);

impl Bound {
    /// The content of an entry may be read.
    pub(super) fn lift(&self) {
        self.0.set(u64::MAX);
    }

    /// The next entry is looked for, behind content that ends at `last`.
    pub(super) fn set_behind(&self, last: u64) {
        self.0.set(last.saturating_add(BLOCK_BYTES + BETWEEN_BYTES));
    }
}

impl<R: Read> Tail<R> {
    pub(super) fn new(inner: R) -> Self {
        let most = Bound(Rc::new(Cell::new(BETWEEN_BYTES)));
        Self { inner, bytes: 0, most }
    }

    /// Bounds what is read between two entries.
    pub(super) fn bound(&self) -> Bound {
        self.most.clone()
    }

    /// Reads what is left, so that the writer is not cut off, and fails if there is no end mark
    /// behind the last entry, whose content ends at `last`.
    pub(super) fn check_end(mut self, last: u64) -> io::Result<()> {
        self.most.lift();
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
        if self.bytes > self.most.0.get() {
            let text = format!("more than {BETWEEN_BYTES} bytes of names and attributes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.inner.read(buffer).inspect(|bytes| self.bytes += *bytes as u64)
    }
}

//! What the store says while it works.

/// A step on the way to an image. The store calls with these while [`ensure`] runs; each is the
/// whole truth at that moment, so that a display may drop any but the last.
///
/// [`ensure`]: super::ImageStore::ensure
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another process, or another task of this one, fetches or builds the same image.
    Waiting,
    /// Bytes are coming.
    Downloading {
        /// Bytes so far.
        done: u64,
        /// All bytes, where the server said so.
        total: Option<u64>,
    },
    /// The digest is compared, or made of what was built.
    Verifying,
    /// The downloaded file is decompressed.
    Unpacking,
    /// `qemu-img` writes the disk as qcow2.
    Converting,
    /// A recipe runs.
    Building {
        /// What it wrote last.
        line: String,
    },
}

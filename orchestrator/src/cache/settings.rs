//! Where caches are kept, and how much of them.

use std::path::PathBuf;

use common::size::ByteSize;

/// Where caches are kept, and how much of them.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// The directory for all caches.
    pub directory: PathBuf,
    /// How much may lie there. What was not used for longest goes first, of the repository that has
    /// most.
    pub quota: ByteSize,
}

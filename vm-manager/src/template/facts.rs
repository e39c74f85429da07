//! What is written down about a template.

use common::size::ByteSize;
use common::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What is written down about a template. Holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The label of its image.
    pub label: String,
    /// The digest of its image.
    pub image: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory of the guest.
    pub memory: ByteSize,
    /// When it was frozen.
    pub made: Timestamp,
    /// The public part of the key by which its maker logged in: no clone may accept it.
    pub login_key: String,
    /// The size of each file, by which one that was cut off is seen.
    pub files: Vec<(String, u64)>,
}

//! The conversation that makes a clone of a template a machine of its own, over a serial port.
//!
//! ```text
//!  host                                            guest program, frozen into the template
//!      │◀──────────── "solstice-personal 1" ───────│  it listens; the template is frozen behind this
//!      │                                           │
//!      │── digest and Personal in a line of JSON ─▶│  in the clone
//!      │◀──────────── Answer::Again ───────────────│  where a part of the line was lost
//!      │◀──────────── Answer::Clock ───────────────│  how late is it? some times
//!      │── Timestamp, one line of JSON ───────────▶│
//!      │◀──────────── Answer::Done or Failed ──────│
//! ```
//!
//! Nothing else may use the guest's random numbers before: all clones of a template have the same
//! ones until the seed is in (vm-facts 3). So this is no SSH connection.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::Timestamp;
use crate::request::Secret;

/// What the guest program says when it listens; one line.
pub const GREETING: &str = "solstice-personal 1";
/// The longest line, either way.
pub const LINE_BYTES: usize = 256 * 1024;
/// The digits of a digest in front of a line.
pub const DIGEST_DIGITS: usize = 16;
/// The random bytes that a clone gets.
pub const SEED_BYTES: usize = 64;
/// The bytes of the generator of which the answer has the digest.
pub const SAMPLE_BYTES: usize = 1024;

/// Everything by which a clone differs from its template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Personal {
    /// [`SEED_BYTES`] random bytes for the kernel's generator, in hexadecimal digits.
    pub seed: Secret,
    /// The host name.
    pub hostname: String,
    /// The machine id: 32 hexadecimal digits.
    pub machine_id: String,
    /// The user that may log in.
    pub user: String,
    /// The only key that may: a line of `authorized_keys`.
    pub authorized_key: String,
    /// The host key, an unencrypted OpenSSH file.
    pub host_key: Secret,
    /// Its public part, one line.
    pub host_public_key: String,
    /// The image's POSIX shell script that puts names and keys in their places. It runs as root in a
    /// directory with the files `hostname`, `machine-id`, `user`, `authorized-key`, `host-key` and
    /// `host-key.pub`.
    pub script: String,
}

/// What the guest program says, each a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The line did not arrive as it was sent.
    Again,
    /// It asks for the host's clock, a [`Timestamp`] as a line of JSON.
    Clock,
    /// The clone is a machine of its own.
    Done {
        /// The digest (SHA-256, hexadecimal) of the first [`SAMPLE_BYTES`] of the kernel's generator
        /// after the seed. No two machines have the same.
        sample: String,
    },
    /// It is not, and must not be used.
    Failed {
        /// Why.
        reason: String,
    },
}

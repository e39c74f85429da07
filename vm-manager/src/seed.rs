//! The seed disk: what a guest learns about itself before anybody can log in.
//!
//! A NoCloud data source for cloud-init (and for the small readers of other systems): an ISO 9660
//! image with volume id `CIDATA` that holds `meta-data` and `user-data`. It carries the guest's host
//! key, so that the first connection is authenticated already, and our login key. No value of a job
//! is in it.

mod document;
mod iso;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::ssh::KeyError;

/// The volume id by which guests find the disk. cloud-init accepts it in either case; ISO 9660 has
/// upper case only.
pub const VOLUME_ID: &str = "CIDATA";

/// What the seed tells a guest.
#[derive(Clone)]
pub struct Seed {
    /// Names this machine; a guest that sees another one than at its last boot sets itself up again.
    /// At most 64 letters, digits, dots, dashes and underscores.
    pub instance_id: String,
    /// The guest's host name: at most 63 lower-case letters, digits and dashes.
    pub hostname: String,
    /// The user that we log in as. Unless it is `root`, it is the one that the image makes by
    /// default, and gets the same key as root.
    pub user: String,
    /// The public key that may log in: `ssh-ed25519 AAAA...`. A comment is dropped.
    pub authorized_key: String,
    /// The guest's host key, an unencrypted ed25519 key in OpenSSH's format.
    pub host_key_private_openssh: Zeroizing<String>,
}

/// A seed that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A name with characters that do not belong there.
    #[error("the {field} `{value}` of the seed is not valid: {rule}")]
    Name {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it must look like.
        rule: &'static str,
    },
    /// A key that is not an ed25519 key.
    #[error("the seed cannot be made")]
    Key(#[from] KeyError),
    /// The file system image could not be laid out.
    #[error("the seed image cannot be made: {0}")]
    Image(String),
    /// The file could not be written.
    #[error("cannot write the seed `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the seed disk to `path`, readable and writable by this user only. The same seed gives the
/// same bytes. An existing file is replaced.
///
/// # Errors
///
/// [`SeedError`] names the field that is not valid, or the file that cannot be written.
pub fn write_iso(path: &Path, seed: &Seed) -> Result<(), SeedError> {
    let meta_data = document::meta_data(seed)?;
    let user_data = document::user_data(seed)?;
    iso::write(path, &[("meta-data", meta_data.as_bytes()), ("user-data", user_data.as_bytes())])
}

//! Why there is no template or no clone. A job boots without one then.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use common::size::ByteSize;

use crate::host::{DiskShort, HostError};
use crate::image::ImageError;
use crate::machine::qmp::QmpError;

/// Why there is no template or no clone.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The image has nothing by which a clone would become a machine of its own.
    #[error("the image `{label}` has no `template` in the catalogue")]
    Unsupported {
        /// The image.
        label: String,
    },
    /// QEMU's monitor failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU could not save or restore a guest.
    #[error("QEMU could not {action} the guest: {reason}")]
    Migration {
        /// "save" or "restore".
        action: &'static str,
        /// QEMU's own words.
        reason: String,
    },
    /// The serial port to the guest failed.
    #[error("the serial port to the guest failed: {0}")]
    Port(#[source] io::Error),
    /// The guest did not become a machine of its own.
    #[error("the clone could not be made a machine of its own: {reason}")]
    Personal {
        /// Its words.
        reason: String,
    },
    /// Something did not end in time.
    #[error("{what} did not end within {deadline:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        deadline: Duration,
    },
    /// The host's files failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ImageError),
    /// The guest's memory alone is more than all templates may have.
    #[error("a guest with {memory} of memory does not fit into the `template_quota` of {quota}")]
    Quota {
        /// The memory of the guest.
        memory: ByteSize,
        /// What templates may have of the disk.
        quota: ByteSize,
    },
    /// The host's disk has too little room for the guest's memory.
    #[error("no room for the guest's memory: {0}")]
    Disk(#[source] DiskShort),
    /// A file of the template cannot be used.
    #[error("the template's file `{}` cannot be used: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

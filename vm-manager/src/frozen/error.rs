//! Why a machine cannot be frozen or continued.

use std::path::PathBuf;
use std::time::Duration;

use crate::host::{DiskShort, HostError};
use crate::image::ImageError;
use crate::machine::qmp::QmpError;
use crate::template::TemplateError;

/// Why a machine cannot be frozen or continued.
#[derive(Debug, thiserror::Error)]
pub enum FrozenError {
    /// The host's files failed, or no machine is kept under the name.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No machine is frozen under the name.
    #[error("no machine is frozen under the name {name:?}; {}", known_names(known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// One is frozen under the name already.
    #[error("a machine is frozen under the name {name:?} already")]
    There {
        /// The name.
        name: String,
    },
    /// The machine was started by an older program, or in a way that cannot be repeated.
    #[error("the machine {name:?} cannot be frozen: {reason}")]
    Unable {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ImageError),
    /// QEMU's monitor failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU could not save or restore the guest.
    #[error(transparent)]
    Guest(#[from] TemplateError),
    /// The disk has too little room for the guest's memory and disk.
    #[error("no room for a frozen machine: {0}")]
    Disk(#[from] DiskShort),
    /// A file cannot be opened with the installation's keys, or was changed.
    #[error(
        "the frozen machine's file `{}` cannot be read: it was changed, or sealed with a key that \
         is not among this installation's",
        path.display()
    )]
    Sealed {
        /// The file.
        path: PathBuf,
    },
    /// Something did not end in time.
    #[error("{what} did not end within {deadline:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        deadline: Duration,
    },
}

fn known_names(known: &[String]) -> String {
    match known {
        [] => "none is frozen on this host".to_owned(),
        known => format!("frozen are {}", known.join(", ")),
    }
}

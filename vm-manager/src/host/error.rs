//! What can go wrong with the directories, locks and records of a host.

use std::io;
use std::path::{Path, PathBuf};

use common::infrastructure::Cause;

use super::{MachineName, NoRoom, QemuMissing};

/// A failure of the host's side: directories, locks, records, processes.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file or directory could not be used.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, such as "create".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else could put, remove or exchange files in a directory of ours.
    #[error("the directory `{}` cannot be used: {reason}", path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The runtime directory's path leaves no room for a socket's name.
    #[error(
        "the runtime directory `{}` is too long: with the names below it a socket would have a path \
         of {length} bytes and the system allows {limit}; set a shorter one", path.display()
    )]
    PathTooLong {
        /// The runtime directory.
        path: PathBuf,
        /// The bytes of the longest socket path below it.
        length: usize,
        /// What the system allows.
        limit: usize,
    },
    /// A record that this program did not write.
    #[error("the record `{}` cannot be understood: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the same service's instance.
    #[error(
        "the instance directory `{}` is in use by {holder}; two services cannot have the same id, so \
         end that one first or give this one a state directory of its own", path.display()
    )]
    InUse {
        /// The instance's directory.
        path: PathBuf,
        /// Who holds it, as far as that is known.
        holder: String,
    },
    /// A process does not go away.
    #[error(
        "the process {pid} of the machine {name} does not end after KILL; it may hang in the kernel"
    )]
    Stuck {
        /// Its process id.
        pid: i32,
        /// The machine.
        name: MachineName,
    },
    /// No machine of this name is kept.
    #[error("no machine is kept under the name `{name}`{}", kept_names(known))]
    NotKept {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The key of a kept machine cannot be used.
    #[error("the login key of the kept machine `{name}` cannot be used: {reason}")]
    KeptKey {
        /// The name of the kept machine.
        name: String,
        /// Why.
        reason: String,
    },
    /// No room for a machine.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// No usable QEMU.
    #[error(transparent)]
    QemuMissing(#[from] QemuMissing),
}

impl HostError {
    /// Wraps an error of the system with what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// The cause that stands in a job's log for this error.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Io { source, .. } if is_full(source) => Cause::HostDiskFull,
            Self::NoRoom(_) => Cause::HostMemory,
            Self::QemuMissing(_) => Cause::QemuMissing,
            _ => Cause::Internal,
        }
    }
}

/// Whether the system refused for want of space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn kept_names(known: &[String]) -> String {
    if known.is_empty() {
        "; no machine is kept on this host".to_owned()
    } else {
        format!("; kept are: {}", known.join(", "))
    }
}

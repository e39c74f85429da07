//! Why the guest program could not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

use common::JobId;
use common::guest::{ATTACH_VERSION, EXIT_DISK_FULL};
use common::limits::JOB_DOCUMENT_BYTES;

use crate::system::is_full;

/// The exit code for input that cannot be used: sysexits' `EX_USAGE`.
const EXIT_INPUT: u8 = 64;
/// The exit code for a daemon that is not there: sysexits' `EX_UNAVAILABLE`.
const EXIT_UNAVAILABLE: u8 = 69;
/// The exit code for everything that went wrong in this machine: sysexits' `EX_SOFTWARE`.
const EXIT_FAULT: u8 = 70;

/// Why the guest program could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The job document is larger than [`JOB_DOCUMENT_BYTES`].
    #[error("the job document is over the limit of {JOB_DOCUMENT_BYTES} bytes")]
    DocumentTooLong,
    /// The job document is not JSON of the right shape. Nothing of it is quoted: it holds secrets.
    #[error("the job document cannot be read: {what} at line {line}, column {column}")]
    DocumentMalformed {
        /// What is wrong.
        what: &'static str,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// The job document is of another version of the conversation.
    #[error(
        "the job document has version {found}, but this guest program speaks version \
         {ATTACH_VERSION}; upload the guest program that belongs to the host's version"
    )]
    DocumentVersion {
        /// The version that the document names.
        found: u64,
    },
    /// The operating system refused something.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// A verb, such as "create".
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A directory that others could have planted or could change is not used.
    #[error("{} is not used, because {why}; remove it and try again", path.display())]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The job's daemon was started before and has died. A job is never started twice in one
    /// machine: its steps may have run.
    #[error("the daemon of job {0} was started before and is gone; run the job in a fresh machine")]
    Died(JobId),
    /// The daemon did not get ready.
    #[error("the daemon of the job did not start: {0}")]
    NotReady(String),
    /// The daemon did not get ready because a file system has no room.
    #[error("the daemon of the job did not start: {0}")]
    DiskFull(String),
    /// There is no daemon to attach to.
    #[error("no daemon of job {job} answers: {why}")]
    NoDaemon {
        /// The job.
        job: JobId,
        /// What the operating system said, or what the daemon left behind.
        why: String,
    },
    /// An archive that is damaged, or has an entry that must not be unpacked.
    #[error("the archive cannot be unpacked: {entry}: {why}")]
    Archive {
        /// The name of the entry.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// An entry of an archive could not be written.
    #[error("cannot unpack {entry}: {source}")]
    Unpack {
        /// The name of the entry.
        entry: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl GuestError {
    /// The exit code that stands for this error: 64 for input that cannot be used, 69 for a daemon
    /// that is not there, 73 ([`EXIT_DISK_FULL`]) for a file system without room, 70 for any other
    /// fault of this machine.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            error if error.is_disk_full() => EXIT_DISK_FULL,
            Self::Usage(_)
            | Self::DocumentTooLong
            | Self::DocumentMalformed { .. }
            | Self::DocumentVersion { .. }
            | Self::Archive { .. } => EXIT_INPUT,
            Self::NoDaemon { .. } => EXIT_UNAVAILABLE,
            Self::Io { .. }
            | Self::UnsafeDirectory { .. }
            | Self::Died(_)
            | Self::NotReady(_)
            | Self::DiskFull(_)
            | Self::Unpack { .. } => EXIT_FAULT,
        }
    }

    /// Whether a file system of this machine has no room.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull(_) => true,
            Self::Io { source, .. } | Self::Unpack { source, .. } => is_full(source),
            _ => false,
        }
    }

    /// For `map_err`: what was tried, and where.
    pub(super) fn io(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { what, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_an_exit_code_of_its_own() {
        let full = || io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let unpack = |source| GuestError::Unpack { entry: "a/b".to_owned(), source };
        assert_eq!(unpack(full()).exit_code(), EXIT_DISK_FULL);
        assert_eq!(GuestError::io("create", "/x")(full()).exit_code(), EXIT_DISK_FULL);
        assert_eq!(GuestError::DiskFull(String::new()).exit_code(), EXIT_DISK_FULL);
        assert_eq!(unpack(io::ErrorKind::PermissionDenied.into()).exit_code(), EXIT_FAULT);
        let said = unpack(full()).to_string();
        assert_eq!(said, "cannot unpack a/b: No space left on device (os error 28)");
    }
}

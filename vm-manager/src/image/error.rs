//! Why there is no image.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::infrastructure::Cause;
use common::size::ByteSize;

use super::digest::Digest;

/// Why the store has no image to give.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store's own directory cannot be used.
    #[error("failed to {what} {path} in the image store: {source}", path = .path.display())]
    Store {
        /// A verb: `create`, `read`.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the store does not say what the store writes.
    #[error("{path} in the image store is damaged ({message}); remove it and pull the image again", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Too little room, with the reserve counted.
    #[error("no room for the image {label}: {needed} needed, the reserve of {reserve} included, and {free} free on the file system of {path}; free some or set a smaller reserve", path = .path.display())]
    NoRoom {
        /// The image.
        label: String,
        /// What is needed, with the reserve.
        needed: ByteSize,
        /// What stays free whatever happens.
        reserve: ByteSize,
        /// What there is.
        free: ByteSize,
        /// The store.
        path: PathBuf,
    },
    /// The server or the way to it failed.
    #[error("failed to download the image {label} from {url}: {reason}")]
    Download {
        /// The image.
        label: String,
        /// The address in the catalogue.
        url: String,
        /// What happened, with its causes.
        reason: String,
    },
    /// The bytes are not those that the catalogue names.
    #[error(
        "the image {label} from {url} has the wrong digest: expected {expected}, found {found}; the file was deleted"
    )]
    WrongDigest {
        /// The image.
        label: String,
        /// The address in the catalogue.
        url: String,
        /// The catalogue's.
        expected: Digest,
        /// That of the bytes that came.
        found: Digest,
    },
    /// The bytes are not those of the first pull.
    #[error("the image {label} from {url} has changed since its first pull: {expected} was recorded in {lock_file}, found {found}; the file was deleted. If the change is meant, remove the record", lock_file = .lock_file.display())]
    Changed {
        /// The image.
        label: String,
        /// The address in the catalogue.
        url: String,
        /// The digest of the first pull.
        expected: Digest,
        /// That of the bytes that came.
        found: Digest,
        /// Where the first pull was recorded.
        lock_file: Box<Path>,
    },
    /// The catalogue has no digest for the image, and there is nobody who could vouch for one.
    #[error(
        "the image {label} was not downloaded from {url}: its catalogue entry names no digest, and nobody can be asked here whether what comes is right; run `solstice image pull {label}` once, which asks"
    )]
    NobodyToAsk {
        /// The image.
        label: String,
        /// The address in the catalogue.
        url: String,
    },
    /// The catalogue has no digest for the image, and nobody vouched for what was found.
    #[error(
        "the image {label} from {url} was not accepted: its catalogue entry names no digest, {found} was found, and nobody confirmed it; `solstice image pull {label}` asks"
    )]
    NotConfirmed {
        /// The image.
        label: String,
        /// The address in the catalogue.
        url: String,
        /// That of the bytes that came.
        found: Digest,
    },
    /// The downloaded file cannot be made into a disk.
    #[error("the image {label} cannot be used: {reason}")]
    Unusable {
        /// The image.
        label: String,
        /// What is wrong with the file.
        reason: String,
    },
    /// A recipe or one of QEMU's tools failed.
    #[error("{what} of the image {label} failed ({status}){}", tail(.output))]
    Failed {
        /// The image.
        label: String,
        /// What ran: `the recipe`, `the conversion`.
        what: &'static str,
        /// How it ended.
        status: String,
        /// Its last lines.
        output: Vec<String>,
    },
    /// A program that the store needs is not installed.
    #[error(
        "cannot run `{program}` for the image {label}: {source}; `solstice doctor` says what to install"
    )]
    NoProgram {
        /// The image.
        label: String,
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// Something took longer than it may.
    #[error("{what} of the image {label} took longer than {}", humantime::format_duration(*.limit))]
    Deadline {
        /// The image.
        label: String,
        /// What ran.
        what: &'static str,
        /// The deadline.
        limit: Duration,
    },
}

fn tail(output: &[String]) -> String {
    if output.is_empty() {
        String::new()
    } else {
        format!(", and its last lines were:\n    {}", output.join("\n    "))
    }
}

impl ImageError {
    /// The infrastructure failure that a job reports.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::NoRoom { .. } => Cause::HostDiskFull,
            _ => Cause::ImageUnavailable,
        }
    }

    /// For `map_err` on a file operation.
    pub(super) fn store(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Store { what, path, source }
    }
}

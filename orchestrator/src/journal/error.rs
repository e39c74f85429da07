//! What can go wrong with a journal.

use std::path::PathBuf;

use common::JobId;

use crate::segment::SegmentError;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is one already; it can be reopened.
    #[error("job {job} has a journal already")]
    Exists {
        /// The job.
        job: JobId,
    },
    /// Its file cannot be used.
    #[error("the journal {}: {error}", path.display())]
    Segment {
        /// The file.
        path: PathBuf,
        /// Why.
        error: SegmentError,
    },
}

impl JournalError {
    /// Whether the file will never be readable for this program: waiting does not help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        use SegmentError::{Damaged, Foreign, Newer};
        match self {
            Self::Exists { .. } => false,
            Self::Segment { error, .. } => {
                matches!(error, Damaged { .. } | Foreign(_) | Newer { .. })
            }
        }
    }

    /// Whether the disk has no room for it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let Self::Segment { error: SegmentError::Io(error), .. } = self else { return false };
        matches!(error.kind(), StorageFull | QuotaExceeded)
    }

    /// Whether a key is missing, which may yet be added.
    #[must_use]
    pub fn is_for_want_of_a_key(&self) -> bool {
        matches!(self, Self::Segment { error: SegmentError::Key { .. }, .. })
    }
}

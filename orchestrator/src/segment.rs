//! The segment file of one job: the one durable copy of its log, masked and sealed.
//!
//! ```text
//!  file   = head record*
//!  head   = "SOLSEG" version:u16 job:36 bytes of text
//!  record = "SREC" flags:u8 0:u8[3] try:u32 count:u32 first:u64 synced:u64 events:u32 state:u32
//!           sealed events (so many bytes)  sealed state (so many bytes)
//! ```
//!
//! Numbers are big-endian. The events are an [`EventPart`](queue::message::EventPart): they are
//! published as they lie here, without being opened. A record with a state ends an *entry*, which is
//! found whole after a crash or not at all; one without is followed by the rest of its entry. The
//! state is bound to its record's header.
//!
//! `synced` is how much of the file was on disk for certain when the record was written. What cannot
//! be read behind the highest `synced` is a tail that a crash tore, and is cut. In front of it it is
//! damage.

mod open;
mod read;
mod record;
mod write;

pub(crate) use open::{Opened, open};
pub(crate) use read::{Chunk, read};
pub(crate) use write::Segment;

use common::JobId;

/// The version of the format that this program writes. It reads no other.
const VERSION: u16 = 1;

const HEAD_MAGIC: [u8; 6] = *b"SOLSEG";
const ID_BYTES: usize = 36;
/// The bytes of a file's head.
pub(crate) const HEAD_BYTES: u64 = (HEAD_MAGIC.len() + 2 + ID_BYTES) as u64;

/// The purpose for which states are sealed; the owner is the job.
const PURPOSE: &str = "segment";

/// Why a segment file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file system refuses.
    #[error("the file cannot be used: {0}")]
    Io(#[from] std::io::Error),
    /// It is no segment file of this job.
    #[error("the file is not the segment of job {0}")]
    Foreign(JobId),
    /// It is from a newer program.
    #[error(
        "the file has version {found}, this program knows up to {VERSION}; start the newer program \
         again"
    )]
    Newer {
        /// Its version.
        found: u16,
    },
    /// Its key is missing.
    #[error("the record at offset {offset}: {error}")]
    Key {
        /// Where the record begins.
        offset: u64,
        /// Which key.
        error: queue::seal::SealError,
    },
    /// Something in it was changed or lost that was on disk.
    #[error("the file is damaged at offset {offset}: {reason}")]
    Damaged {
        /// Where the record begins that cannot be read.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Events that cannot be sealed: a defect.
    #[error("events cannot be sealed: {0}")]
    Seal(#[from] queue::message::MessageError),
}

fn head(job: JobId) -> Vec<u8> {
    let mut head = HEAD_MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_be_bytes());
    head.extend_from_slice(job.to_string().as_bytes());
    head
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
pub(crate) mod tests;

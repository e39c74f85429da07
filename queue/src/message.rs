//! The wire form of everything that is queued.
//!
//! Every message begins with [`MAGIC`], one byte that names its kind, and the version of the
//! protocol as two bytes, big-endian; MessagePack with named fields follows. A message of a newer
//! version is refused before anything of it is read. Within a version there is nothing optional: a
//! field that is not known makes a message malformed, and whoever adds one raises the version.
//!
//! | kind | message | limit |
//! | --- | --- | --- |
//! | `J` | [`JobMessage`] | [`JOB_REQUEST_BYTES`](common::limits::JOB_REQUEST_BYTES) |
//! | `E` | [`EventBatch`] | [`EVENT_BATCH_BYTES`](common::limits::EVENT_BATCH_BYTES) |
//! | `C` | [`Control`] | [`CONTROL_BYTES`](common::limits::CONTROL_BYTES) |
//! | `R` | [`Reserve`] | [`RESERVE_BYTES`](common::limits::RESERVE_BYTES) |
//! | `A` | [`Reserved`] | [`RESERVE_BYTES`](common::limits::RESERVE_BYTES) |

mod check;
mod events;
mod job;
mod plain;
mod wire;

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod samples;

use common::ids::{HostId, JobId, ReservationId};
use common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::seal::{SealError, Sealed};

pub use check::REFUSED_LABEL;
pub use job::JobMessage;

/// The first bytes of every message.
pub const MAGIC: [u8; 3] = *b"SOL";

/// Why bytes are not a message, or a message cannot become bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The bytes do not begin as a message of Solstice does.
    #[error("not a message of Solstice")]
    Foreign,
    /// The message is of another kind than belongs on this queue.
    #[error("a message of kind {found}, expected {expected}")]
    Kind {
        /// What came.
        found: u8,
        /// What belongs here.
        expected: u8,
    },
    /// The message is from a newer program.
    #[error(
        "a message of protocol version {found}, this program knows up to {known}; upgrade this part"
    )]
    Newer {
        /// Its version.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// The message is over its limit.
    #[error("a message of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The bytes are cut, or not what they claim to be.
    #[error("a message cannot be read: {reason}")]
    Malformed {
        /// What the decoder said.
        reason: String,
    },
    /// A field has a value that it may not have.
    #[error("{field} is {value:?}: {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value, cut.
        value: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// Events are not all of one try of one job, or have a hole.
    #[error("events do not belong together: {reason}")]
    Events {
        /// Where, and what is wrong.
        reason: String,
    },
    /// The sealed part cannot be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// A part of a job's log: some events in order, sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventPart {
    /// The job.
    pub job: JobId,
    /// Which try.
    #[serde(rename = "try")]
    pub try_number: u32,
    /// The number of the first event.
    pub first: u64,
    /// How many events.
    pub count: u32,
    /// Whether the last of them is the job's final event.
    pub last: bool,
    /// The events, bound to the fields above.
    pub events: Sealed,
}

/// Events of one job, as they travel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventBatch {
    /// The host that has the job, to which [`Progress`] goes.
    pub host: HostId,
    /// The parts in order; all of the same job.
    pub parts: Vec<EventPart>,
}

/// What an orchestrator is told outside of the jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Control {
    /// End a job, wherever it is.
    Cancel {
        /// The job.
        job: JobId,
        /// When its end was asked for, by the clock of who asked.
        time: Timestamp,
    },
    /// The forge runner has taken events.
    Progress(Progress),
    /// A forge runner gives back what it does not use.
    Release(Release),
}

/// How far a forge runner has taken a job's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The job.
    pub job: JobId,
    /// Which try.
    #[serde(rename = "try")]
    pub try_number: u32,
    /// Every event up to and with this one.
    pub seq: u64,
}

/// A forge runner asks how many jobs can start now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Chosen by who asks: asking again with the same id is the same question.
    pub id: ReservationId,
    /// Who asks.
    pub runner: String,
    /// The labels that the jobs may carry.
    pub labels: Vec<String>,
    /// How many jobs it would take at most.
    pub want: u32,
}

/// The answer to [`Reserve`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserved {
    /// The question's id, which is from now on the reservation's.
    pub id: ReservationId,
    /// So many jobs can start now, whichever of the labels they carry.
    pub count: u32,
    /// The labels that live hosts can run.
    pub labels: Vec<String>,
    /// When what is unused lapses, by the answering side's clock.
    pub expires: Timestamp,
}

/// A forge runner gives back a part of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The reservation.
    pub id: ReservationId,
    /// So many jobs fewer.
    pub count: u32,
}

/// A message that is MessagePack and nothing else.
pub trait Message: Sized {
    /// The byte that names the kind.
    const KIND: u8;

    /// The bytes that travel.
    ///
    /// # Errors
    /// The message is over its limit, or has a field that it may not have.
    fn encode(&self) -> Result<Vec<u8>, MessageError>;

    /// Reads a message strictly.
    ///
    /// # Errors
    /// See [`MessageError`].
    fn decode(bytes: &[u8]) -> Result<Self, MessageError>;
}

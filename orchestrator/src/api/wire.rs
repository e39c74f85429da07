//! What crosses between the API and its clients.

use common::event::JobEvent;
use common::ids::{HostId, JobId};
use serde::{Deserialize, Serialize};

use crate::store::CancelOutcome;

/// The header of every response with the program's version.
pub const VERSION_HEADER: &str = "solstice-version";
/// The header with the version of JobRequest and JobEvent
/// ([`PROTOCOL_VERSION`](common::request::PROTOCOL_VERSION)): in every response, and in the requests
/// of our own client. A request with another version is refused.
pub const PROTOCOL_HEADER: &str = "solstice-protocol";
/// The media type of a JobRequest.
pub const REQUEST_TYPE: &str = "application/msgpack";
/// The media type of a stream of [`StreamPart`]s in frames of [`common::frame`].
pub const EVENTS_TYPE: &str = "application/vnd.solstice.events";
/// A body of JSON in a request. A larger one is refused.
pub const JSON_BYTES: u64 = 64 * common::limits::KIB;

/// The body of every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The answer to a job that was handed in or run once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job; a new one after a retry.
    pub job: JobId,
}

/// The answer to a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// What became of it.
    pub outcome: Outcome,
    /// The host that has the job and ends it.
    pub host: Option<HostId>,
}

/// What became of a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The job is not known; the request is remembered for a day.
    Remembered,
    /// It had not begun and never will.
    WasQueued,
    /// Its host ends it.
    Ending,
    /// It was over already.
    WasDone,
}

impl From<CancelOutcome> for Cancelled {
    fn from(outcome: CancelOutcome) -> Self {
        let (outcome, host) = match outcome {
            CancelOutcome::Remembered => (Outcome::Remembered, None),
            CancelOutcome::WasQueued => (Outcome::WasQueued, None),
            CancelOutcome::Leased(host) => (Outcome::Ending, Some(host)),
            CancelOutcome::WasDone => (Outcome::WasDone, None),
        };
        Self { outcome, host }
    }
}

/// The body of `POST /v1/drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The host; absent means the one of the service that is asked.
    pub host: Option<HostId>,
    /// Whether it takes nothing new from now on.
    pub on: bool,
}

/// One part of a stream of events. After the last event, or after a failure, nothing follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamPart {
    /// Events in order.
    Events(Vec<JobEvent>),
    /// Nothing has happened for a while; both sides are still there.
    Alive,
    /// The stream ends here although the job's events do not.
    Failed {
        /// The status that the error would have had as a response; 503 means that asking again
        /// helps.
        status: u16,
        /// Why.
        error: ErrorBody,
    },
}

/// The place of an event among all events of its job: its try and its number in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The try.
    pub try_number: u32,
    /// The number in it.
    pub seq: u64,
}

impl Place {
    /// The place of an event.
    #[must_use]
    pub fn of(event: &JobEvent) -> Self {
        Self { try_number: event.try_number, seq: event.seq }
    }
}

/// A text that is no [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a place as TRY.SEQ, such as 1.17")]
pub struct PlaceError;

impl std::str::FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (try_number, seq) = text.split_once('.').ok_or(PlaceError)?;
        Ok(Self {
            try_number: try_number.parse().map_err(|_| PlaceError)?,
            seq: seq.parse().map_err(|_| PlaceError)?,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.try_number, self.seq)
    }
}

//! Reading requests strictly: everything is bounded, and an error says what was expected.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use common::ids::JobId;
use common::request::{JobRequest, PROTOCOL_VERSION};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::wire::Place;
use super::{ApiError, ApiErrorKind, Extent};
use crate::store::{JobFilter, JobState};

/// How long the body of a request may take.
const BODY: Duration = Duration::from_secs(60);

/// Nesting of a JobRequest. The deepest value that a workflow or a forge's payload can have takes
/// about 300 levels.
const REQUEST_DEPTH: usize = 512;

/// `?state=..&repository=..&label=..&most=..`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobsQuery {
    state: Option<String>,
    repository: Option<String>,
    label: Option<String>,
    most: Option<u32>,
}

/// `?until=..&after=..`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// How far.
    #[serde(default)]
    pub(super) until: Extent,
    after: Option<String>,
}

/// `?now=true`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelQuery {
    /// Whether the machine is destroyed at once.
    #[serde(default)]
    pub(super) now: bool,
}

impl JobsQuery {
    pub(super) fn filter(self) -> Result<JobFilter, ApiError> {
        let names = self.state.as_deref().unwrap_or_default().split(',');
        let states = names.filter(|name| !name.is_empty()).map(|name| {
            JobState::from_name(name).ok_or_else(|| {
                let known: Vec<&str> = JobState::ALL.iter().map(|state| state.name()).collect();
                invalid(format!("{name:?} is not the state of a job"))
                    .hint(format!("the states are {}", known.join(", ")))
            })
        });
        Ok(JobFilter {
            states: states.collect::<Result<_, _>>()?,
            repository: self.repository,
            label: self.label,
            most: self.most.unwrap_or(0),
        })
    }
}

impl EventsQuery {
    /// The last event that the client has.
    pub(super) fn after(&self) -> Result<Place, ApiError> {
        match &self.after {
            None => Ok(Place::default()),
            Some(text) => text.parse().map_err(|error| invalid(format!("after: {error}"))),
        }
    }
}

/// The id of a job in a path.
pub(super) fn job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|_| invalid(format!("{:?} is not the id of a job", cut(text))))
}

/// Reads a body that may have so many bytes.
pub(super) async fn body(body: Body, limit: u64) -> Result<Bytes, ApiError> {
    // What is announced too large need not be sent.
    if body.size_hint().lower() > limit {
        return Err(too_large(limit));
    }
    let read = async {
        let mut bytes = Vec::new();
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| invalid(format!("the body broke off: {error}")))?;
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(too_large(limit));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(bytes))
    };
    tokio::time::timeout(BODY, read).await.unwrap_or_else(|_| {
        let seconds = BODY.as_secs();
        Err(ApiError::new(ApiErrorKind::Slow, format!("the body did not come within {seconds} s")))
    })
}

/// Reads a body of JSON.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| invalid(format!("the body is not what belongs here: {error}")))
}

/// Reads a JobRequest of our own protocol version.
pub(super) fn job_request(bytes: &[u8]) -> Result<JobRequest, ApiError> {
    /// The fields that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        envelope: VersionedEnvelope,
    }
    #[derive(Deserialize)]
    struct VersionedEnvelope {
        version: u16,
    }

    let versioned: Versioned = message_pack(bytes)?;
    check_protocol(versioned.envelope.version)?;
    message_pack(bytes)
}

/// Refuses another protocol version than ours.
pub(super) fn check_protocol(version: u16) -> Result<(), ApiError> {
    if version == PROTOCOL_VERSION {
        return Ok(());
    }
    let older = if version < PROTOCOL_VERSION { "client" } else { "service" };
    Err(invalid(format!(
        "the client speaks protocol version {version}, this service (version {}) speaks \
         {PROTOCOL_VERSION}",
        env!("CARGO_PKG_VERSION")
    ))
    .hint(format!("upgrade the {older}")))
}

fn message_pack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // What the decoder says may quote a value, and the value may be a secret.
    let refused = |at: u64| {
        invalid(format!("the body is not a JobRequest as MessagePack: it goes wrong at byte {at}"))
    };
    let mut deserializer = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    deserializer.set_max_depth(REQUEST_DEPTH);
    let decoded = T::deserialize(&mut deserializer);
    let at = deserializer.position();
    match decoded {
        Ok(value) if at == bytes.len() as u64 => Ok(value),
        _ => Err(refused(at)),
    }
}

pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ApiErrorKind::Invalid, message)
}

/// A body over its limit.
pub(super) fn too_large(limit: u64) -> ApiError {
    ApiError::new(
        ApiErrorKind::TooLarge,
        format!("the body is over the limit of {}", common::size::ByteSize(limit)),
    )
}

/// Enough of a text to know it again.
fn cut(text: &str) -> String {
    const CHARACTERS: usize = 80;
    text.chars().take(CHARACTERS).collect()
}

//! The message that carries a JobRequest.

use common::limits::JOB_REQUEST_BYTES;
use common::request::{Envelope, JobBody, JobRequest};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::seal::{KeyRing, Sealed};

use super::{MAGIC, MessageError, check, wire};

/// A JobRequest on its way: what schedulers read in plain text, the rest sealed to it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobMessage {
    envelope: Envelope,
    /// The envelope as it was encoded: the sealed body is bound to these bytes.
    envelope_bytes: Vec<u8>,
    body: Sealed,
}

/// The purpose for which bodies are sealed; the owner is the job.
const PURPOSE: &str = "job";
const LIMIT: usize = JOB_REQUEST_BYTES as usize;

/// How deep a body nests. A level of a workflow file is two here, and a file has at most
/// [`common::limits::YAML_DEPTH`] of them; JSON of a forge has at most 128.
const BODY_DEPTH: usize = 256;

#[derive(Serialize)]
struct Outgoing<'a> {
    #[serde(with = "serde_bytes")]
    envelope: &'a [u8],
    body: &'a Sealed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Incoming {
    envelope: serde_bytes::ByteBuf,
    body: Sealed,
}

/// The field of an envelope that all versions have; the others are not looked at.
#[derive(Deserialize)]
struct Versioned {
    version: u16,
}

impl JobMessage {
    /// The byte that names this kind of message.
    pub const KIND: u8 = b'J';

    /// Seals a request. The envelope is checked as [`JobMessage::decode`] checks it.
    ///
    /// # Errors
    /// It is over [`common::limits::JOB_REQUEST_BYTES`], its envelope is refused, its job has too many
    /// steps, or its body nests so deep that it could not be read again.
    pub fn seal(request: &JobRequest, keys: &KeyRing) -> Result<Self, MessageError> {
        let envelope = request.envelope.clone();
        check::own_envelope(&envelope)?;
        let mut envelope_bytes = Vec::new();
        wire::write(&mut envelope_bytes, &envelope)?;

        let mut plain = Zeroizing::new(Vec::new());
        wire::write(&mut plain, &request.body)?;
        wire::within(plain.len(), LIMIT)?;
        read_body(&plain)?;
        let body =
            keys.seal(PURPOSE, &owner(&envelope), &bound(&envelope, &envelope_bytes), &plain);

        let message = Self { envelope, envelope_bytes, body };
        wire::within(message.encode().len(), LIMIT)?;
        Ok(message)
    }

    /// Puts a message together from what a database kept of it.
    ///
    /// # Errors
    /// The bytes are not an envelope and a sealed body.
    pub fn from_stored(envelope: &[u8], body: &[u8]) -> Result<Self, MessageError> {
        wire::within(envelope.len().saturating_add(body.len()), LIMIT)?;
        let body =
            Sealed::from_bytes(body).ok_or_else(|| wire::malformed("its body is not sealed"))?;
        Self::assemble(envelope.to_vec(), body, None)
    }

    /// The request.
    ///
    /// # Errors
    /// The key is unknown, the body does not belong to this envelope, or its job has too many steps.
    pub fn open(&self, keys: &KeyRing) -> Result<JobRequest, MessageError> {
        let bound = bound(&self.envelope, &self.envelope_bytes);
        let plain = keys.open(PURPOSE, &owner(&self.envelope), &bound, &self.body)?;
        let body = read_body(&Zeroizing::new(plain))?;
        Ok(JobRequest { envelope: self.envelope.clone(), body })
    }

    /// What schedulers may read.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The envelope's bytes, to be stored.
    #[must_use]
    pub fn envelope_bytes(&self) -> &[u8] {
        &self.envelope_bytes
    }

    /// The sealed body's bytes, to be stored.
    #[must_use]
    pub fn body_bytes(&self) -> Vec<u8> {
        self.body.to_bytes()
    }

    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let outgoing = Outgoing { envelope: &self.envelope_bytes, body: &self.body };
        wire::encode(Self::KIND, usize::MAX, &outgoing).expect("strings of bytes can be encoded")
    }

    /// Reads a message strictly: version, sizes, and every field of the envelope, such as a label
    /// with other characters than labels have.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let (version, payload) = wire::payload(bytes, Self::KIND, LIMIT)?;
        let Incoming { envelope, body } = wire::read(payload, wire::FLAT_DEPTH)?;
        Self::assemble(envelope.into_vec(), body, Some(version))
    }

    /// Of a message whose envelope [`JobMessage::decode`] refuses for the value of a field: the job
    /// with a harmless envelope, so that it can be recorded and its sender told. It never runs,
    /// because its body is not bound to that envelope and does not open. `None` where not even the
    /// job and the address for its events can be read.
    #[must_use]
    pub fn answerable(bytes: &[u8]) -> Option<Self> {
        let (_, payload) = wire::payload(bytes, Self::KIND, LIMIT).ok()?;
        let Incoming { envelope, body } = wire::read(payload, wire::FLAT_DEPTH).ok()?;
        let envelope = check::harmless(&wire::read(&envelope, wire::FLAT_DEPTH).ok()?)?;
        let mut envelope_bytes = Vec::new();
        wire::write(&mut envelope_bytes, &envelope).ok()?;
        Some(Self { envelope, envelope_bytes, body })
    }

    /// `version` is the one in the header, where there is a header.
    fn assemble(
        envelope_bytes: Vec<u8>,
        body: Sealed,
        version: Option<u16>,
    ) -> Result<Self, MessageError> {
        let Versioned { version: own } = wire::read(&envelope_bytes, wire::FLAT_DEPTH)?;
        wire::known(own)?;
        let envelope = wire::read(&envelope_bytes, wire::FLAT_DEPTH)?;
        check::envelope(&envelope, version.unwrap_or(own))?;
        Ok(Self { envelope, envelope_bytes, body })
    }
}

fn owner(envelope: &Envelope) -> [u8; 36] {
    let mut text = [0; 36];
    text.copy_from_slice(envelope.job.to_string().as_bytes());
    text
}

/// What a body is bound to: the kind and version of its message, and the envelope byte for byte.
fn bound(envelope: &Envelope, envelope_bytes: &[u8]) -> Vec<u8> {
    let version = envelope.version.to_be_bytes();
    [MAGIC.as_slice(), &[JobMessage::KIND], &version, envelope_bytes].concat()
}

fn read_body(plain: &[u8]) -> Result<JobBody, MessageError> {
    let body: JobBody =
        wire::read_secret(plain, BODY_DEPTH, "the sealed body is not a job, or nests too deep")?;
    check::body(&body)?;
    Ok(body)
}

#[cfg(test)]
mod tests;

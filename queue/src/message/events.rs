//! Parts of a job's log, and the message that carries them.

use common::event::{EventBody, JobEvent};
use common::ids::JobId;
use common::limits::{EVENT_BATCH_BYTES, EVENT_PART_BYTES};
use common::request::PROTOCOL_VERSION;
use zeroize::Zeroizing;

use crate::seal::{KeyRing, Sealer};

use super::{EventBatch, EventPart, Message, MessageError, check, wire};

/// The purpose for which events are sealed; the owner is the job.
const PURPOSE: &str = "events";

/// What a message and the header of a part add to sealed events, rounded up.
const PART_HEADER_BYTES: usize = 256;
const LIMIT: usize = EVENT_PART_BYTES + 2 * PART_HEADER_BYTES;

/// The fields of a part beside its events.
#[derive(Clone, Copy)]
struct Header {
    job: JobId,
    try_number: u32,
    first: u64,
    count: u32,
    last: bool,
}

impl EventPart {
    /// Seals events of one try, which must follow each other without a hole.
    ///
    /// # Errors
    /// There is no event, they do not belong together, or they are over
    /// [`common::limits::EVENT_PART_BYTES`].
    pub fn seal(events: &[JobEvent], keys: &KeyRing) -> Result<Self, MessageError> {
        Self::seal_with(events, &Self::sealer(Header::of(events)?.job, keys))
    }

    /// What seals the events of a job; see [`EventPart::seal_with`].
    #[must_use]
    pub fn sealer(job: JobId, keys: &KeyRing) -> Sealer {
        keys.sealer(PURPOSE, &owner(job))
    }

    /// The same as [`EventPart::seal`] with the job's [`EventPart::sealer`]; what that of another job
    /// has sealed cannot be opened.
    ///
    /// # Errors
    /// See [`EventPart::seal`].
    pub fn seal_with(events: &[JobEvent], sealer: &Sealer) -> Result<Self, MessageError> {
        let header = Header::of(events)?;
        header.check(events)?;
        // The version lies inside, because a part is published as it was stored, also after an
        // upgrade, in a message of the newer version.
        let mut plain = Zeroizing::new(PROTOCOL_VERSION.to_be_bytes().to_vec());
        wire::write(&mut plain, &events)?;
        wire::within(plain.len(), EVENT_PART_BYTES)?;
        let sealed = sealer.seal(&header.bound(), &plain);
        let Header { job, try_number, first, count, last } = header;
        Ok(Self { job, try_number, first, count, last, events: sealed })
    }

    /// The events.
    ///
    /// # Errors
    /// The key is unknown, or the events do not belong to this part's header.
    pub fn open(&self, keys: &KeyRing) -> Result<Vec<JobEvent>, MessageError> {
        let Self { job, try_number, first, count, last, .. } = *self;
        let header = Header { job, try_number, first, count, last };
        let plain = keys.open(PURPOSE, &owner(job), &header.bound(), &self.events)?;
        let plain = Zeroizing::new(plain);
        let (version, plain) = plain
            .split_first_chunk()
            .ok_or_else(|| wire::malformed("there are no events in it"))?;
        wire::known(u16::from_be_bytes(*version))?;
        let events: Vec<JobEvent> =
            wire::read_secret(plain, wire::FLAT_DEPTH, "what was sealed is not a list of events")?;
        header.check(&events)?;
        Ok(events)
    }

    /// At most so many bytes of a message: what is sealed, and the header.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.events.stored_bytes() + PART_HEADER_BYTES
    }
}

impl Header {
    fn of(events: &[JobEvent]) -> Result<Self, MessageError> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err(check::events("there is no event".to_owned()));
        };
        Ok(Self {
            job: first.job,
            try_number: first.try_number,
            first: first.seq,
            count: u32::try_from(events.len())
                .map_err(|_| check::events("there are too many".to_owned()))?,
            last: is_final(last),
        })
    }

    /// What the events are bound to: every field, each of a fixed length.
    fn bound(self) -> Vec<u8> {
        let mut bound = owner(self.job);
        bound.extend_from_slice(&self.try_number.to_be_bytes());
        bound.extend_from_slice(&self.first.to_be_bytes());
        bound.extend_from_slice(&self.count.to_be_bytes());
        bound.push(u8::from(self.last));
        bound
    }

    /// Whether these are the events that the header says.
    fn check(self, events: &[JobEvent]) -> Result<(), MessageError> {
        check::header(self.try_number, self.first, self.count)?;
        if events.len() != self.count as usize {
            return Err(check::events(format!("{} of {} events", events.len(), self.count)));
        }
        for (event, expected) in events.iter().zip(self.first..) {
            check::same_job(self.job, event.job)?;
            if (event.try_number, event.seq) != (self.try_number, expected) {
                return Err(check::events(format!(
                    "event {} of try {} stands in the place of event {expected} of try {}",
                    event.seq, event.try_number, self.try_number
                )));
            }
        }
        let place = events.iter().position(is_final);
        if place != self.last.then(|| events.len() - 1) {
            return Err(check::events("the final event is not where it belongs".to_owned()));
        }
        Ok(())
    }
}

/// The owner of what is sealed.
fn owner(job: JobId) -> Vec<u8> {
    job.to_string().into_bytes()
}

impl Message for EventBatch {
    const KIND: u8 = b'E';

    fn encode(&self) -> Result<Vec<u8>, MessageError> {
        check::batch(self)?;
        let bytes = wire::encode(Self::KIND, LIMIT, self)?;
        self.check_size(bytes.len())?;
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let (_, payload) = wire::payload(bytes, Self::KIND, LIMIT)?;
        let batch: Self = wire::read(payload, wire::FLAT_DEPTH)?;
        batch.check_size(bytes.len())?;
        check::batch(&batch)?;
        Ok(batch)
    }
}

impl EventBatch {
    /// Only a part that travels alone may be larger than a batch.
    fn check_size(&self, bytes: usize) -> Result<(), MessageError> {
        if self.parts.len() > 1 { wire::within(bytes, EVENT_BATCH_BYTES) } else { Ok(()) }
    }
}

fn is_final(event: &JobEvent) -> bool {
    matches!(event.event, EventBody::Finished(_))
}

#[cfg(test)]
mod tests;

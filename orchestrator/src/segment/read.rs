//! Reading parts out of a segment file as they lie there.

use std::fs::File;
use std::os::unix::fs::FileExt;

use common::JobId;
use queue::message::EventPart;
use queue::seal::Sealed;

use super::SegmentError;
use super::record::{BYTES, Header};

/// A part and where its record lies.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) part: EventPart,
    /// Where the record behind it begins.
    pub(crate) end: u64,
}

impl Part {
    /// The number of its last event.
    pub(crate) fn last_seq(&self) -> u64 {
        (self.part.first + u64::from(self.part.count)).saturating_sub(1)
    }
}

/// What was read at once.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// The parts, in order.
    pub(crate) parts: Vec<Part>,
    /// Where to read on; it is where reading began if there is nothing.
    pub(crate) next: u64,
}

/// Reads the whole records between `from` and `end` that fit into `most` bytes, at least one.
///
/// # Errors
/// What is there are no records.
pub(crate) fn read(
    file: &File,
    job: JobId,
    from: u64,
    end: u64,
    most: usize,
) -> Result<Chunk, SegmentError> {
    let mut chunk = Chunk { parts: Vec::new(), next: from };
    let available = end.saturating_sub(from);
    let mut bytes = vec![0; clamp(available).min(most.max(BYTES))];
    file.read_exact_at(&mut bytes, from)?;
    if let Some(needed) = record_bytes(&bytes, from)?
        && needed > bytes.len() as u64
    {
        if needed > available {
            return Ok(chunk);
        }
        bytes.resize(clamp(needed), 0);
        file.read_exact_at(&mut bytes, from)?;
    }
    let mut rest = &bytes[..];
    while let Some(needed) = record_bytes(rest, chunk.next)? {
        let Some((record, behind)) = rest.split_at_checked(clamp(needed)) else { break };
        let offset = chunk.next;
        chunk.next += needed;
        rest = behind;
        let (header, body) = header_of(record, offset)?.expect("a whole record has a header");
        if let Some(part) = part(job, &header, body, offset)? {
            chunk.parts.push(Part { part, end: chunk.next });
        }
    }
    Ok(chunk)
}

/// The events of a record's body as a part, if there are any.
pub(super) fn part(
    job: JobId,
    header: &Header,
    body: &[u8],
    offset: u64,
) -> Result<Option<EventPart>, SegmentError> {
    if header.count == 0 {
        return Ok(None);
    }
    let sealed = body.get(..header.events as usize).and_then(Sealed::from_bytes);
    let events = sealed.ok_or_else(|| damaged(offset, "its events are not sealed bytes"))?;
    let Header { try_number, first, count, last, .. } = *header;
    Ok(Some(EventPart { job, try_number, first, count, last, events }))
}

/// The header at the beginning of these bytes and what stands behind it; `None` if it is not whole.
fn header_of(bytes: &[u8], offset: u64) -> Result<Option<(Header, &[u8])>, SegmentError> {
    let Some((header, body)) = bytes.split_first_chunk::<BYTES>() else { return Ok(None) };
    let header = Header::decode(header).map_err(|reason| damaged(offset, reason))?;
    Ok(Some((header, body)))
}

fn record_bytes(bytes: &[u8], offset: u64) -> Result<Option<u64>, SegmentError> {
    Ok(header_of(bytes, offset)?.map(|(header, _)| header.record_bytes()))
}

pub(super) fn damaged(offset: u64, reason: impl Into<String>) -> SegmentError {
    SegmentError::Damaged { offset, reason: reason.into() }
}

fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

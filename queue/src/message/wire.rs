//! The frame that all messages share, and how MessagePack is read and written.

use std::io::Cursor;

use common::request::PROTOCOL_VERSION;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MAGIC, MessageError};

/// What stands in front of the MessagePack.
#[cfg(test)]
pub(super) const HEADER_BYTES: usize = MAGIC.len() + 1 + size_of::<u16>();

/// How deep a message nests. What is not sealed is flat.
pub(super) const FLAT_DEPTH: usize = 16;

/// What a decoder says about foreign bytes, in characters; the rest is cut.
const REASON_CHARACTERS: usize = 200;

/// A whole message: the header, then the MessagePack of `message`.
pub(super) fn encode<T: Serialize>(
    kind: u8,
    limit: usize,
    message: &T,
) -> Result<Vec<u8>, MessageError> {
    let mut bytes = Vec::from(MAGIC);
    bytes.push(kind);
    bytes.extend_from_slice(&PROTOCOL_VERSION.to_be_bytes());
    write(&mut bytes, message)?;
    within(bytes.len(), limit)?;
    Ok(bytes)
}

/// Checks the header and gives the version and the MessagePack behind it. The version comes first:
/// a newer program may have other kinds and other limits.
pub(super) fn payload(bytes: &[u8], kind: u8, limit: usize) -> Result<(u16, &[u8]), MessageError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(MessageError::Foreign)?;
    let header =
        rest.split_first().and_then(|(kind, rest)| Some((kind, rest.split_first_chunk()?)));
    let Some((&found, (&version, payload))) = header else {
        return Err(malformed("cut in its header"));
    };
    let version = u16::from_be_bytes(version);
    known(version)?;
    if found != kind {
        return Err(MessageError::Kind { found, expected: kind });
    }
    within(bytes.len(), limit)?;
    Ok((version, payload))
}

/// Refuses a version that this program does not know.
pub(super) fn known(version: u16) -> Result<(), MessageError> {
    match version {
        0 => Err(malformed("version 0 was never in use")),
        1..=PROTOCOL_VERSION => Ok(()),
        found => Err(MessageError::Newer { found, known: PROTOCOL_VERSION }),
    }
}

/// Refuses what is over a limit.
pub(super) fn within(bytes: usize, limit: usize) -> Result<(), MessageError> {
    if bytes > limit { Err(MessageError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// Appends the MessagePack of a value, with named fields.
pub(super) fn write<T: Serialize>(bytes: &mut Vec<u8>, value: &T) -> Result<(), MessageError> {
    rmp_serde::encode::write_named(bytes, value).map_err(|error| malformed(&error.to_string()))
}

/// Reads exactly one value.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8], depth: usize) -> Result<T, MessageError> {
    let (value, rest) = read_first(bytes, depth).map_err(|error| malformed(&error.to_string()))?;
    match rest {
        0 => Ok(value),
        rest => Err(malformed(&format!("{rest} bytes left over"))),
    }
}

/// Reads exactly one value that was sealed. The error says nothing of what was read.
pub(super) fn read_secret<T: DeserializeOwned>(
    bytes: &[u8],
    depth: usize,
    expected: &str,
) -> Result<T, MessageError> {
    match read_first(bytes, depth) {
        Ok((value, 0)) => Ok(value),
        _ => Err(malformed(expected)),
    }
}

/// An error about the shape of bytes, cut to a bearable length.
pub(super) fn malformed(reason: &str) -> MessageError {
    MessageError::Malformed { reason: reason.chars().take(REASON_CHARACTERS).collect() }
}

/// The first value and the number of bytes behind it.
fn read_first<T: DeserializeOwned>(
    bytes: &[u8],
    depth: usize,
) -> Result<(T, usize), rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(bytes));
    deserializer.set_max_depth(depth);
    let value = T::deserialize(&mut deserializer)?;
    let read = usize::try_from(deserializer.position()).unwrap_or(bytes.len());
    Ok((value, bytes.len() - read))
}

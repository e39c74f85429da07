//! The messages that hold no secret.

use common::limits::{CONTROL_BYTES, RESERVE_BYTES};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Control, Message, MessageError, Reserve, Reserved, check, wire};

impl Message for Control {
    const KIND: u8 = b'C';

    fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(self, CONTROL_BYTES, check::control)
    }

    fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        decode(bytes, CONTROL_BYTES, check::control)
    }
}

impl Message for Reserve {
    const KIND: u8 = b'R';

    fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(self, RESERVE_BYTES, check::reserve)
    }

    fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        decode(bytes, RESERVE_BYTES, check::reserve)
    }
}

impl Message for Reserved {
    const KIND: u8 = b'A';

    fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(self, RESERVE_BYTES, check::reserved)
    }

    fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        decode(bytes, RESERVE_BYTES, check::reserved)
    }
}

fn encode<T: Message + Serialize>(
    message: &T,
    limit: usize,
    check: fn(&T) -> Result<(), MessageError>,
) -> Result<Vec<u8>, MessageError> {
    check(message)?;
    wire::encode(T::KIND, limit, message)
}

fn decode<T: Message + DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
    check: fn(&T) -> Result<(), MessageError>,
) -> Result<T, MessageError> {
    let (_, payload) = wire::payload(bytes, T::KIND, limit)?;
    let message = wire::read(payload, wire::FLAT_DEPTH)?;
    check(&message)?;
    Ok(message)
}

#[cfg(test)]
mod tests;

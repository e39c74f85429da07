//! Frames on a byte stream: a length of four bytes, big-endian, then that many bytes of
//! MessagePack.
//!
//! No I/O here: [`encode`] and [`encode_into`] give bytes to write, [`Decoder`] takes bytes as they
//! come, and [`length`] finds the next frame in bytes that are already whole frames.

use std::io::Cursor;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::FRAME_BYTES;

/// The bytes of the length in front of each frame.
const LENGTH_BYTES: usize = 4;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length is over [`FRAME_BYTES`].
    #[error("a frame of {bytes} bytes is over the limit of {FRAME_BYTES}")]
    TooLong {
        /// The announced length.
        bytes: usize,
    },
    /// The bytes of the frame are not the message that was expected.
    #[error("a frame cannot be read: {0}")]
    Malformed(String),
}

/// Encodes one message as a frame.
///
/// # Errors
/// The message is over [`FRAME_BYTES`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    encode_into(&mut bytes, message)?;
    Ok(bytes)
}

/// Encodes one message as a frame behind the bytes that are there, which stay as they are if it
/// fails.
///
/// # Errors
/// The message is over [`FRAME_BYTES`].
pub fn encode_into<T: Serialize>(bytes: &mut Vec<u8>, message: &T) -> Result<(), FrameError> {
    let start = bytes.len();
    let payload = start + LENGTH_BYTES;
    bytes.extend_from_slice(&[0; LENGTH_BYTES]);
    let written = rmp_serde::encode::write_named(bytes, message);
    let length = bytes.len() - payload;
    let outcome = match written {
        Err(error) => Err(FrameError::Malformed(error.to_string())),
        Ok(()) if length > FRAME_BYTES => Err(FrameError::TooLong { bytes: length }),
        Ok(()) => Ok(()),
    };
    match outcome {
        Ok(()) => {
            let prefix = u32::try_from(length).expect("FRAME_BYTES fits in 32 bits");
            bytes[start..payload].copy_from_slice(&prefix.to_be_bytes());
        }
        Err(_) => bytes.truncate(start),
    }
    outcome
}

/// The bytes that the first frame takes, length included; `None` if it is not whole.
#[must_use]
pub fn length(bytes: &[u8]) -> Option<usize> {
    let (prefix, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes(*prefix)).ok()?;
    (length <= rest.len()).then_some(LENGTH_BYTES + length)
}

/// Decodes the payload of one frame, strictly: bytes left over are an error.
///
/// # Errors
/// The bytes are not exactly one message of this type.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(payload));
    deserializer.set_max_depth(64);
    let message = T::deserialize(&mut deserializer)
        .map_err(|error| FrameError::Malformed(error.to_string()))?;
    match deserializer.position() as usize {
        end if end == payload.len() => Ok(message),
        end => Err(FrameError::Malformed(format!("{} bytes left over", payload.len() - end))),
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds bytes as they came from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, `None` if more bytes are needed.
    ///
    /// # Errors
    /// The stream cannot be used any more: a length over the limit, or a malformed frame.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let waiting = &self.buffer[self.start..];
        let Some((prefix, rest)) = waiting.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > FRAME_BYTES {
            return Err(FrameError::TooLong { bytes: length });
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let message = decode(payload)?;
        self.start += LENGTH_BYTES + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{LogBatch, LogLine, Stream};
    use crate::guest::{FromGuest, GuestEvent, ToGuest};
    use crate::time::Timestamp;

    fn line(text: &[u8]) -> FromGuest {
        let line = LogLine {
            time: Timestamp::from_micros(1_700_000_000_000_000),
            stream: Stream::Stdout,
            text: text.to_vec().into(),
        };
        let batch = LogBatch { step: Some(3), lines: vec![line] };
        FromGuest::Event { seq: 7, event: GuestEvent::Log(batch) }
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_gives_the_same_frames(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            cut in 1..50_usize,
        ) {
            let sent: Vec<_> = texts.iter().map(|text| line(text)).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|frame| encode(frame).unwrap()).collect();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for chunk in bytes.chunks(cut) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next_frame::<FromGuest>().unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(sent, got);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame::<FromGuest>() {}
            drop(decode::<ToGuest>(&bytes));
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert!(matches!(decoder.next_frame::<ToGuest>(), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_message_that_does_not_fit_leaves_the_bytes_before_it() {
        let mut bytes = encode(&ToGuest::Cancel).unwrap();
        let before = bytes.clone();
        let refused = encode_into(&mut bytes, &line(&vec![b'x'; FRAME_BYTES]));
        assert!(matches!(refused, Err(FrameError::TooLong { .. })));
        assert_eq!(before, bytes);
        assert_eq!(length(&bytes), Some(bytes.len()));
        assert_eq!(length(&bytes[1..]), None);
    }

    #[test]
    fn bytes_left_over_in_a_frame_are_refused() {
        let mut bytes = encode(&ToGuest::Cancel).unwrap().split_off(LENGTH_BYTES);
        bytes.push(0);
        assert!(matches!(decode::<ToGuest>(&bytes), Err(FrameError::Malformed(_))));
    }
}

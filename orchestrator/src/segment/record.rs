//! The header of one record.

use common::limits::EVENT_PART_BYTES;

pub(super) const MAGIC: [u8; 4] = *b"SREC";
/// The bytes of a header.
pub(super) const BYTES: usize = 40;

/// The most bytes of sealed events in one record: what one part may be, and what sealing adds.
const EVENTS: u32 = EVENT_PART_BYTES as u32 + 1024;
/// The most bytes of a sealed state: the values to mask that one commit can bring, and held lines.
const STATE: u32 = 32 * 1024 * 1024;
/// The most events in one record. No event is encoded in fewer bytes than a few dozen.
const COUNT: u32 = EVENTS / 32;

const LAST: u8 = 1;
const WITH_STATE: u8 = 2;

/// What stands in front of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) try_number: u32,
    /// The number of the first event; 0 without events.
    pub(super) first: u64,
    pub(super) count: u32,
    /// Whether the last event is the job's final one.
    pub(super) last: bool,
    /// So much of the file was on disk.
    pub(super) synced: u64,
    /// Bytes of the sealed events.
    pub(super) events: u32,
    /// Bytes of the sealed state, if the record ends its entry.
    pub(super) state: Option<u32>,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let flags = if self.last { LAST } else { 0 };
        let flags = flags | if self.state.is_some() { WITH_STATE } else { 0 };
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = flags;
        bytes[8..12].copy_from_slice(&self.try_number.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.events.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.state.unwrap_or(0).to_be_bytes());
        bytes
    }

    /// Reads a header strictly; otherwise says what is wrong with it.
    pub(super) fn decode(bytes: &[u8; BYTES]) -> Result<Self, &'static str> {
        let four = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| bytes[at + n]));
        let eight = |at: usize| (u64::from(four(at)) << 32) | u64::from(four(at + 4));
        if bytes[..4] != MAGIC {
            return Err("no record begins there");
        }
        let flags = bytes[4];
        if flags & !(LAST | WITH_STATE) != 0 || bytes[5..8] != [0; 3] {
            return Err("it has flags that are not known");
        }
        let header = Self {
            try_number: four(8),
            count: four(12),
            first: eight(16),
            last: flags & LAST != 0,
            synced: eight(24),
            events: four(32),
            state: (flags & WITH_STATE != 0).then(|| four(36)),
        };
        let is_empty = header.count == 0;
        if header.events > EVENTS || header.state.unwrap_or(four(36)) > STATE {
            return Err("it claims to be larger than any record");
        }
        if header.count > COUNT
            || is_empty != (header.events == 0)
            || is_empty != (header.first == 0)
        {
            return Err("its number of events cannot be right");
        }
        if is_empty && (header.state.is_none() || header.last) {
            return Err("it is empty");
        }
        if header.state.is_none() && four(36) != 0 {
            return Err("it has a state and says it has none");
        }
        Ok(header)
    }

    /// The bytes of the whole record.
    pub(super) fn record_bytes(&self) -> u64 {
        BYTES as u64 + u64::from(self.events) + u64::from(self.state.unwrap_or(0))
    }

    /// The number of the last event.
    pub(super) fn last_seq(&self) -> u64 {
        (self.first + u64::from(self.count)).saturating_sub(1)
    }
}

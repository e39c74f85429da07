//! Writing a segment file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::JobId;
use common::event::JobEvent;
use common::limits::LOG_BATCH_BYTES;
use queue::message::EventPart;
use queue::seal::{KeyRing, Sealer};

use super::record::Header;
use super::{HEAD_BYTES, PURPOSE, SegmentError, head};
use crate::events::{LogState, event_bytes};

/// Events of about so many bytes become one part. One event alone may be larger.
const PART_BYTES: usize = LOG_BATCH_BYTES;

/// A segment file that is written. It has one writer.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) job: JobId,
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    /// Where the next record begins. Behind it may lie what an attempt left that failed.
    pub(super) length: u64,
    /// Made for the first entry.
    pub(super) sealers: Option<Sealers>,
}

/// What seals the records of one job.
#[derive(Debug)]
pub(super) struct Sealers {
    events: Sealer,
    state: Sealer,
}

impl Sealers {
    fn of(job: JobId, keys: &KeyRing) -> Self {
        let state = keys.sealer(PURPOSE, job.to_string().as_bytes());
        Self { events: EventPart::sealer(job, keys), state }
    }
}

impl Segment {
    /// Makes the file, with mode 0600.
    ///
    /// # Errors
    /// It exists, or the file system refuses.
    pub(crate) fn create(path: &Path, job: JobId) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        if let Err(error) = file.write_all_at(&head(job), 0) {
            // Without a head it is nothing, and would be in the way.
            drop(std::fs::remove_file(path));
            return Err(error);
        }
        Ok(Self {
            job,
            path: path.to_owned(),
            file: Arc::new(file),
            length: HEAD_BYTES,
            sealers: None,
        })
    }

    /// The bytes that are written.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The file, to read from or to sync.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where the file lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file another name.
    pub(crate) fn rename(&mut self, path: PathBuf) -> io::Result<()> {
        std::fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(())
    }

    /// Writes to another file from now on, and gives the one before: for tests of a disk that fails.
    #[cfg(test)]
    pub(crate) fn swap_file(&mut self, file: Arc<File>) -> Arc<File> {
        std::mem::replace(&mut self.file, file)
    }

    /// Appends an entry; when that fails it is as if it had not been tried.
    ///
    /// # Errors
    /// The file system refuses, or the events do not belong together.
    pub(crate) fn append(
        &mut self,
        events: &[JobEvent],
        state: &LogState,
        synced: u64,
        keys: &KeyRing,
    ) -> Result<(), SegmentError> {
        let sealers = self.sealers.get_or_insert_with(|| Sealers::of(self.job, keys));
        let mut bytes = Vec::new();
        let mut parts = split(events);
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            encode(&mut bytes, part, None, synced, sealers)?;
        }
        encode(&mut bytes, last, Some(state), synced, sealers)?;
        self.file.write_all_at(&bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// Cuts events into parts: of one try, and not much larger than [`PART_BYTES`].
fn split(events: &[JobEvent]) -> Vec<&[JobEvent]> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut bytes = 0;
    for (index, event) in events.iter().enumerate() {
        bytes += event_bytes(&event.event);
        let other_try = events[begin].try_number != event.try_number;
        if index > begin && (other_try || bytes > PART_BYTES) {
            parts.push(&events[begin..index]);
            begin = index;
            bytes = event_bytes(&event.event);
        }
    }
    if begin < events.len() {
        parts.push(&events[begin..]);
    }
    parts
}

/// Appends one record to `bytes`.
fn encode(
    bytes: &mut Vec<u8>,
    events: &[JobEvent],
    state: Option<&LogState>,
    synced: u64,
    sealers: &Sealers,
) -> Result<(), SegmentError> {
    let part = match events {
        [] => None,
        events => Some(EventPart::seal_with(events, &sealers.events)?),
    };
    let sealed_events = part.as_ref().map(|part| part.events.to_bytes()).unwrap_or_default();
    let plain = state.map(|state| {
        rmp_serde::to_vec_named(state).expect("a state is numbers, texts and lists of them")
    });
    let sealed_bytes = |plain: &Vec<u8>| plain.len() + SEAL_BYTES;
    let header = Header {
        try_number: part
            .as_ref()
            .map_or_else(|| state.map_or(0, |state| state.try_number), |part| part.try_number),
        first: part.as_ref().map_or(0, |part| part.first),
        count: part.as_ref().map_or(0, |part| part.count),
        last: part.as_ref().is_some_and(|part| part.last),
        synced,
        events: length(sealed_events.len())?,
        state: plain.as_ref().map(|plain| length(sealed_bytes(plain))).transpose()?,
    };
    let encoded = header.encode();
    bytes.extend_from_slice(&encoded);
    bytes.extend_from_slice(&sealed_events);
    if let Some(plain) = plain {
        let sealed = sealers.state.seal(&encoded, &plain).to_bytes();
        debug_assert_eq!(sealed.len(), sealed_bytes(&plain));
        bytes.extend_from_slice(&sealed);
    }
    Ok(())
}

/// What sealing adds to plain bytes.
const SEAL_BYTES: usize = 1 + 8 + 12 + 16;

fn length(bytes: usize) -> Result<u32, SegmentError> {
    let too_large = || io::Error::other(format!("a record of {bytes} bytes cannot be written"));
    Ok(u32::try_from(bytes).map_err(|_| too_large())?)
}

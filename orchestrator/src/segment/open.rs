//! Opening a segment file that an earlier process wrote: every record is checked, and what a crash
//! tore off is cut.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use common::JobId;
use queue::message::MessageError;
use queue::seal::{KeyRing, SealError, Sealed};

use super::read::{damaged, part};
use super::record::{BYTES, Header, MAGIC};
use super::{HEAD_BYTES, HEAD_MAGIC, PURPOSE, Segment, SegmentError, VERSION};
use crate::events::LogState;

/// Bytes that are looked through at once for a record behind a torn one.
const SEARCH_BYTES: usize = 1024 * 1024;
/// Bytes that are read at once.
const READ_BYTES: usize = 128 * 1024;

/// A file that was opened again.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) segment: Segment,
    /// Where the log stands; nothing was written before if it is absent.
    pub(crate) state: Option<LogState>,
    /// The try and number of the last event.
    pub(crate) last: (u32, u64),
}

/// Opens a file, cuts a torn tail, and syncs the rest. `None` if there is none, or it is not even
/// begun.
///
/// # Errors
/// See [`SegmentError`].
pub(crate) fn open(
    path: &Path,
    job: JobId,
    keys: &KeyRing,
) -> Result<Option<Opened>, SegmentError> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let size = file.metadata()?.len();
    if size < HEAD_BYTES {
        // The crash came before anything was written.
        std::fs::remove_file(path)?;
        return Ok(None);
    }
    check_head(&file, job)?;
    let mut walk = Walk::new(job, keys);
    let mut reader = BufReader::with_capacity(READ_BYTES, &file);
    reader.seek(SeekFrom::Start(HEAD_BYTES))?;
    while walk.at < size {
        match walk.record(&mut reader, size) {
            Ok(()) => {}
            Err(SegmentError::Damaged { offset, reason }) => {
                if walk.was_synced(&file, offset, size)? {
                    return Err(damaged(offset, reason));
                }
                tracing::warn!(job.id = %job, offset, reason, "cut a torn tail off a segment");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let Walk { state, entry: Entry { end, last }, .. } = walk;
    if end < size {
        file.set_len(end)?;
    }
    file.sync_all()?;
    let segment =
        Segment { job, path: path.to_owned(), file: Arc::new(file), length: end, sealers: None };
    Ok(Some(Opened { segment, state, last }))
}

fn check_head(file: &File, job: JobId) -> Result<(), SegmentError> {
    let mut head = [0; HEAD_BYTES as usize];
    file.read_exact_at(&mut head, 0)?;
    let foreign = SegmentError::Foreign(job);
    let Some(rest) = head.strip_prefix(&HEAD_MAGIC) else { return Err(foreign) };
    let Some((version, id)) = rest.split_first_chunk() else { return Err(foreign) };
    match u16::from_be_bytes(*version) {
        VERSION if id == job.to_string().as_bytes() => Ok(()),
        found if found > VERSION => Err(SegmentError::Newer { found }),
        _ => Err(foreign),
    }
}

/// The way through a file, record by record.
struct Walk<'a> {
    job: JobId,
    /// Whose state it is, as it is sealed.
    owner: String,
    keys: &'a KeyRing,
    /// Where the next record begins.
    at: u64,
    /// The try and number of the last event.
    last: (u32, u64),
    /// The state behind the last entry.
    state: Option<LogState>,
    entry: Entry,
}

/// The last entry that is whole.
struct Entry {
    end: u64,
    last: (u32, u64),
}

impl<'a> Walk<'a> {
    fn new(job: JobId, keys: &'a KeyRing) -> Self {
        Self {
            job,
            owner: job.to_string(),
            keys,
            at: HEAD_BYTES,
            last: (0, 0),
            state: None,
            entry: Entry { end: HEAD_BYTES, last: (0, 0) },
        }
    }

    /// Takes the next record.
    fn record(&mut self, reader: &mut impl Read, size: u64) -> Result<(), SegmentError> {
        let at = self.at;
        let broken = |reason: &str| damaged(at, reason);
        let mut encoded = [0; BYTES];
        if size - at < BYTES as u64 {
            return Err(broken("the file ends in a record's header"));
        }
        reader.read_exact(&mut encoded)?;
        let header = Header::decode(&encoded).map_err(broken)?;
        if size - at < header.record_bytes() {
            return Err(broken("the file ends in a record"));
        }
        let mut body = vec![0; (header.events + header.state.unwrap_or(0)) as usize];
        reader.read_exact(&mut body)?;
        let mut last = self.last;
        if let Some(part) = part(self.job, &header, &body, at)? {
            if self.state.as_ref().is_some_and(|state| state.finished.is_some()) {
                return Err(broken("it comes after the job's final event"));
            }
            let follows = match header.try_number {
                number if number == last.0 => header.first == last.1 + 1,
                number => number > last.0 && header.first == 1,
            };
            if !follows {
                return Err(broken("its events do not follow those before it"));
            }
            part.open(self.keys).map_err(|error| match error {
                MessageError::Seal(error @ SealError::UnknownKey { .. }) => {
                    SegmentError::Key { offset: at, error }
                }
                other => damaged(at, other.to_string()),
            })?;
            last = (header.try_number, header.last_seq());
        }
        let state = match header.state {
            Some(_) => Some(self.open_state(&encoded, &header, &body, at)?),
            None => None,
        };
        if header.synced > at {
            return Err(broken("it claims that more was on disk than was written"));
        }
        self.at += header.record_bytes();
        self.last = last;
        if let Some(state) = state {
            let agrees = match state.try_number {
                number if number == last.0 => state.seq == last.1,
                number => number > last.0 && state.seq == 0,
            };
            if !agrees || header.last != (header.count > 0 && state.finished.is_some()) {
                return Err(broken("its state is not that of its events"));
            }
            self.entry = Entry { end: self.at, last };
            match &mut self.state {
                Some(current) => current.advance(state),
                None => self.state = Some(state),
            }
        }
        Ok(())
    }

    fn open_state(
        &self,
        encoded: &[u8; BYTES],
        header: &Header,
        body: &[u8],
        offset: u64,
    ) -> Result<LogState, SegmentError> {
        let sealed = body.get(header.events as usize..).and_then(Sealed::from_bytes);
        let sealed = sealed.ok_or_else(|| damaged(offset, "its state is not sealed bytes"))?;
        let opened = self.keys.open(PURPOSE, self.owner.as_bytes(), encoded, &sealed);
        let plain = opened.map_err(|error| match error {
            error @ SealError::UnknownKey { .. } => SegmentError::Key { offset, error },
            broken @ SealError::Broken { .. } => damaged(offset, broken.to_string()),
        })?;
        rmp_serde::from_slice(&plain)
            .map_err(|error| damaged(offset, format!("its state cannot be read: {error}")))
    }

    /// Whether a record behind `offset` knows that what lies there was on disk.
    fn was_synced(&self, file: &File, offset: u64, size: u64) -> Result<bool, SegmentError> {
        let mut bytes = vec![0; SEARCH_BYTES];
        let mut at = offset + 1;
        while at + (BYTES as u64) <= size {
            let count = usize::try_from(size - at).map_or(SEARCH_BYTES, |n| n.min(SEARCH_BYTES));
            file.read_exact_at(&mut bytes[..count], at)?;
            for found in beginnings(&bytes[..count]) {
                if self.knows(file, at + found, offset, size)? {
                    return Ok(true);
                }
            }
            // What lies across the border of two pieces is seen with the second.
            at += (count - (MAGIC.len() - 1)) as u64;
        }
        Ok(false)
    }

    /// Whether at `at` lies a record of ours that was written when `offset` was on disk.
    fn knows(&self, file: &File, at: u64, offset: u64, size: u64) -> Result<bool, SegmentError> {
        let mut encoded = [0; BYTES];
        if size - at < BYTES as u64 {
            return Ok(false);
        }
        file.read_exact_at(&mut encoded, at)?;
        let Ok(header) = Header::decode(&encoded) else { return Ok(false) };
        if header.state.is_none() || header.synced <= offset || size - at < header.record_bytes() {
            return Ok(false);
        }
        let mut body = vec![0; (header.events + header.state.unwrap_or(0)) as usize];
        file.read_exact_at(&mut body, at + BYTES as u64)?;
        Ok(self.open_state(&encoded, &header, &body, at).is_ok())
    }
}

/// Where records may begin.
fn beginnings(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let found = bytes.windows(MAGIC.len()).enumerate().filter(|(_, four)| **four == MAGIC);
    found.map(|(index, _)| index as u64)
}

//! Reading a job's events for operators, while they are written or long after.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use common::JobId;
use common::event::JobEvent;
use queue::message::EventPart;
use queue::seal::KeyRing;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::JournalError;
use super::job::{Job, Written};
use crate::segment::{self, Chunk, HEAD_BYTES, SegmentError};

/// Bytes that are read at once; a part that is larger is read alone.
const READ_BYTES: usize = 128 * 1024;

/// What lies so close to the end of a file was just written and needs no disk to be read.
const RECENT_BYTES: u64 = 1024 * 1024;

/// The events of one job, from the first one.
#[derive(Debug)]
pub struct Follower {
    job: JobId,
    path: PathBuf,
    file: Arc<File>,
    keys: KeyRing,
    end: End,
    position: u64,
    /// Parts that were read and not given out, with the offset behind each.
    parts: VecDeque<(EventPart, u64)>,
    is_over: bool,
}

/// How far can be read.
#[derive(Debug)]
enum End {
    /// So far, for ever.
    Fixed(u64),
    /// As far as the writer says.
    Growing(watch::Receiver<Written>),
}

impl Follower {
    /// Of a job that is written in this process.
    pub(super) fn live(job: &Job, keys: KeyRing) -> Self {
        Self::new(job.id(), job.path(), Arc::clone(job.file()), keys, End::Growing(job.written()))
    }

    /// Of a job that is not.
    pub(super) fn kept(
        path: PathBuf,
        job: JobId,
        keys: KeyRing,
    ) -> Result<Option<Self>, JournalError> {
        let opened = File::open(&path).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        match opened {
            Ok((file, length)) => {
                Ok(Some(Self::new(job, path, Arc::new(file), keys, End::Fixed(length))))
            }
            // It was removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JournalError::Segment { path, error: error.into() }),
        }
    }

    fn new(job: JobId, path: PathBuf, file: Arc<File>, keys: KeyRing, end: End) -> Self {
        let parts = VecDeque::new();
        Self { job, path, file, keys, end, position: HEAD_BYTES, parts, is_over: false }
    }

    /// The next events; waits for them while the job is written. `None` after the final event, and
    /// where nothing more can come. Safe to cancel.
    ///
    /// # Errors
    /// The file is damaged, or its key is missing. Nothing comes after it.
    pub async fn next(&mut self) -> Result<Option<Vec<JobEvent>>, JournalError> {
        loop {
            let mut is_last = true;
            if let End::Growing(written) = &mut self.end {
                is_last = written.has_changed().is_err();
                written.mark_unchanged();
            }
            if let Some(events) = self.next_written().await? {
                return Ok(Some(events));
            }
            match &mut self.end {
                // What was written last was read above if nobody writes any more.
                End::Growing(written) if !self.is_over && !is_last => drop(written.changed().await),
                _ => return Ok(None),
            }
        }
    }

    /// The next events that are written; `None` if there are no more now. Safe to cancel.
    ///
    /// # Errors
    /// See [`Follower::next`].
    pub async fn next_written(&mut self) -> Result<Option<Vec<JobEvent>>, JournalError> {
        match self.read().await {
            Ok(events) => Ok(events),
            Err(error) => {
                self.is_over = true;
                Err(JournalError::Segment { path: self.path.clone(), error })
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Vec<JobEvent>>, SegmentError> {
        while self.parts.is_empty() && !self.is_over {
            let end = match &self.end {
                End::Fixed(end) => *end,
                End::Growing(written) => written.borrow().length,
            };
            let chunk = read_some(&self.file, self.job, self.position, end).await?;
            if chunk.next == self.position {
                return Ok(None);
            }
            self.position = chunk.next;
            self.parts.extend(chunk.parts.into_iter().map(|part| (part.part, part.end)));
        }
        let Some((part, end)) = self.parts.pop_front() else { return Ok(None) };
        let events = part.open(&self.keys).map_err(|error| SegmentError::Damaged {
            offset: end,
            reason: format!("the record in front of it: {error}"),
        })?;
        self.is_over |= part.last;
        Ok(Some(events))
    }
}

/// Reads records as [`segment::read`] does, without keeping a thread of the runtime from its work
/// where that may take long.
pub(super) async fn read_some(
    file: &Arc<File>,
    job: JobId,
    from: u64,
    end: u64,
) -> Result<Chunk, SegmentError> {
    if end.saturating_sub(from) <= RECENT_BYTES {
        return segment::read(file, job, from, end, READ_BYTES);
    }
    let file = Arc::clone(file);
    let read = spawn_blocking(move || segment::read(&file, job, from, end, READ_BYTES));
    read.await.map_err(|error| io::Error::other(error.to_string()))?
}

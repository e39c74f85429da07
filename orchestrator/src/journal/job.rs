//! One job's journal, as the tasks share it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::JobId;
use queue::message::Progress;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::intake::{Intake, Waiting};
use super::{JournalError, Shared, retention};
use crate::events::{Entry, raise};
use crate::segment::{HEAD_BYTES, Segment, SegmentError};

/// Entries that wait are written together up to so many bytes.
const TOGETHER_BYTES: usize = 64 * 1024;

/// So many bytes that are not on disk are synced without waiting any longer.
const UNSYNCED_BYTES: u64 = 4 * 1024 * 1024;

/// One job's journal.
#[derive(Debug)]
pub(super) struct Job {
    id: JobId,
    file: Arc<File>,
    /// Never locked while `intake` is.
    segment: Mutex<Segment>,
    intake: Mutex<Intake>,
    written: watch::Sender<Written>,
    /// The try and event up to which the forge runner has taken everything.
    taken: watch::Sender<(u32, u64)>,
    synced: Mutex<Synced>,
    /// Whether somebody publishes it.
    is_published: bool,
    /// Whether the forge runner has the final event.
    is_delivered: AtomicBool,
    /// Another one has taken its place, or its file is gone.
    gone: CancellationToken,
}

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Bytes of the file.
    pub(super) length: u64,
    /// The try and number of the last event.
    pub(super) last: (u32, u64),
    /// Whether that is the final one.
    pub(super) is_finished: bool,
}

/// What is on disk, and what is to be told when more is.
#[derive(Debug)]
struct Synced {
    length: u64,
    /// The guest's last event that is written, and who waits for it to be on disk.
    guest: Option<(u64, watch::Sender<u64>)>,
    /// Whether the syncer knows, and whether it knows that somebody waits.
    is_queued: bool,
    is_urgent: bool,
    /// Whether the file's name is on disk.
    is_named: bool,
}

impl Job {
    pub(super) fn new(
        id: JobId,
        segment: Segment,
        (last, is_finished): ((u32, u64), bool),
        is_published: bool,
        before: Option<watch::Sender<Written>>,
    ) -> Self {
        let length = segment.length();
        let is_new = length == HEAD_BYTES;
        let known = Written { length, last, is_finished };
        let written = before.unwrap_or_else(|| watch::Sender::new(known));
        written.send_replace(known);
        Self {
            id,
            file: Arc::clone(segment.file()),
            segment: Mutex::new(segment),
            intake: Mutex::default(),
            written,
            taken: watch::Sender::new((0, 0)),
            synced: Mutex::new(Synced {
                // A file that was opened again was synced.
                length: if is_new { 0 } else { length },
                guest: None,
                is_queued: false,
                is_urgent: false,
                is_named: false,
            }),
            is_published,
            is_delivered: AtomicBool::new(false),
            gone: CancellationToken::new(),
        }
    }

    pub(super) fn id(&self) -> JobId {
        self.id
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn written(&self) -> watch::Receiver<Written> {
        self.written.subscribe()
    }

    /// For the one that takes its place, so that followers go on.
    pub(super) fn written_sender(&self) -> watch::Sender<Written> {
        self.written.clone()
    }

    pub(super) fn taken(&self) -> watch::Receiver<(u32, u64)> {
        self.taken.subscribe()
    }

    /// Resolves when nobody may publish it any more.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    pub(super) fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segment(&self) -> MutexGuard<'_, Segment> {
        self.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn synced(&self) -> MutexGuard<'_, Synced> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a forge runner says; nobody can have taken what was never written.
    pub(super) fn progress(&self, progress: Progress) {
        let taken = (progress.try_number, progress.seq);
        let written = self.written.borrow().last;
        self.taken.send_if_modified(|current| {
            let grows = taken > *current && taken <= written;
            if grows {
                *current = taken;
            }
            grows
        });
    }

    /// The forge runner has everything.
    pub(super) fn deliver(&self) {
        self.is_delivered.store(true, Ordering::Release);
    }

    /// Whether nothing more is to be done with it.
    pub(super) fn is_over(&self) -> bool {
        let written = *self.written.borrow();
        written.is_finished
            && (!self.is_published || self.is_delivered.load(Ordering::Acquire))
            && self.synced().length >= written.length
    }

    /// See [`Segment::swap_file`].
    #[cfg(test)]
    pub(super) fn swap_file(&self, file: Arc<File>) -> Arc<File> {
        self.segment().swap_file(file)
    }

    /// How much of the file is on disk for certain.
    #[cfg(test)]
    pub(super) fn synced_length(&self) -> u64 {
        self.synced().length
    }

    /// Takes no more entries; what waits is still written.
    pub(super) fn close(&self) {
        self.intake().replace_sender(None);
    }

    /// Takes no more entries, writes what waits, and is published by nobody any more.
    pub(super) fn cut_off(self: &Arc<Self>, shared: &Shared) -> Result<(), JournalError> {
        self.close();
        self.write(shared).map_err(|error| {
            let path = self.segment().path().to_owned();
            JournalError::Segment { path, error }
        })?;
        self.gone.cancel();
        Ok(())
    }

    /// Takes no more entries and drops those that wait: they can never be written.
    pub(super) fn give_up(&self) {
        let mut intake = self.intake();
        intake.replace_sender(None);
        intake.entries.clear();
        intake.is_announced = false;
    }

    /// Writes everything that waits.
    ///
    /// # Errors
    /// It cannot be written: it goes on waiting.
    pub(super) fn write(self: &Arc<Self>, shared: &Shared) -> Result<(), SegmentError> {
        let mut segment = self.segment();
        while let Some(waiting) = self.take_waiting() {
            let Entry { events, state, .. } = &waiting.entry;
            let synced = self.synced().length;
            if let Err(error) = segment.append(events, state, synced, &shared.keys) {
                self.intake().entries.push_front(waiting);
                return Err(error);
            }
            let length = segment.length();
            let is_finished = state.finished.is_some();
            let last = events.last().map(|event| (event.try_number, event.seq));
            self.written.send_if_modified(|written| {
                written.length = length;
                written.is_finished |= is_finished;
                written.last = last.unwrap_or(written.last);
                // Nobody reads a state.
                last.is_some()
            });
            self.note_dirty(shared, waiting.entry, length);
        }
        Ok(())
    }

    /// The entries that wait, as one, up to [`TOGETHER_BYTES`].
    fn take_waiting(&self) -> Option<Waiting> {
        let mut intake = self.intake();
        let Some(mut waiting) = intake.entries.pop_front() else {
            intake.is_announced = false;
            return None;
        };
        let fits = |first: &Entry, next: &Entry| first.bytes + next.bytes <= TOGETHER_BYTES;
        while let Some(next) = intake.entries.pop_front_if(|next| fits(&waiting.entry, &next.entry))
        {
            waiting.add(next);
        }
        Some(waiting)
    }

    /// What was written must come on disk.
    fn note_dirty(self: &Arc<Self>, shared: &Shared, entry: Entry, length: u64) {
        let mut synced = self.synced();
        synced.guest = Some((entry.state.guest_seq, entry.synced));
        let is_urgent = entry.urgent || length - synced.length >= UNSYNCED_BYTES;
        let is_known = if is_urgent { &mut synced.is_urgent } else { &mut synced.is_queued };
        if !std::mem::replace(is_known, true) {
            shared.dirty.add(Arc::clone(self), is_urgent);
        }
        drop(synced);
        if let Some(written) = entry.written {
            // Whoever waited for it may have been given up.
            let _ = written.send(());
        }
    }

    /// Where the file lies now.
    pub(super) fn path(&self) -> PathBuf {
        self.segment().path().to_owned()
    }

    /// Lets the syncer try again.
    pub(super) fn sync_again(self: &Arc<Self>, shared: &Shared) {
        let mut synced = self.synced();
        if !std::mem::replace(&mut synced.is_queued, true) {
            shared.dirty.add(Arc::clone(self), false);
        }
    }

    /// Brings on disk what is written, and tells the guest's connection.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn sync(self: &Arc<Self>, shared: &Shared) -> io::Result<()> {
        let is_finished = self.sync_file(&shared.settings.directory)?;
        if is_finished {
            let done = retention::done(&shared.settings.directory, self.id);
            let mut segment = self.segment();
            if segment.path() != done {
                segment.rename(done)?;
            }
            drop(segment);
            shared.retire(self);
        }
        Ok(())
    }

    /// Brings on disk what is written; gives whether that is everything.
    fn sync_file(&self, directory: &Path) -> io::Result<bool> {
        let (guest, is_named, before) = {
            let mut synced = self.synced();
            synced.is_queued = false;
            synced.is_urgent = false;
            (synced.guest.clone(), synced.is_named, synced.length)
        };
        // Looked at after the guest's number: what that says is written lies within this length.
        let Written { length, is_finished, .. } = *self.written.borrow();
        if before >= length {
            return Ok(is_finished);
        }
        self.file.sync_data()?;
        if !is_named {
            File::open(directory)?.sync_all()?;
        }
        let mut synced = self.synced();
        synced.length = synced.length.max(length);
        synced.is_named = true;
        drop(synced);
        if let Some((seq, watched)) = guest {
            raise(&watched, seq);
        }
        Ok(is_finished)
    }
}

//! The way of a job's entries to the writer.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::SharedRef;
use super::job::Job;
use crate::events::{Entry, ReceiverGone};

/// Bytes of entries of one job that may wait for the writer. An entry that is larger waits alone.
const WAITING_BYTES: u32 = 96 * 1024;

/// What an entry takes beside its events, roughly.
const ENTRY_BYTES: usize = 512;

/// The way of one job's entries into its segment file.
#[derive(Debug)]
pub struct JournalSender {
    shared: SharedRef,
    job: Arc<Job>,
    /// Of this sender only: closed when it is cut off.
    room: Arc<Semaphore>,
}

/// Room for one entry.
pub(crate) struct Slot<'a> {
    sender: &'a JournalSender,
    room: OwnedSemaphorePermit,
}

/// An entry that waits, with the room that it takes.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Entry,
    pub(super) room: OwnedSemaphorePermit,
}

/// What waits for the writer.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub(super) entries: VecDeque<Waiting>,
    /// The room of the sender that may still add to it.
    pub(super) sender: Option<Arc<Semaphore>>,
    /// Whether the writer knows that something waits.
    pub(super) is_announced: bool,
}

impl std::fmt::Debug for super::Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl JournalSender {
    pub(super) fn new(shared: SharedRef, job: Arc<Job>) -> Self {
        let room = Arc::new(Semaphore::new(WAITING_BYTES as usize));
        job.intake().replace_sender(Some(Arc::clone(&room)));
        Self { shared, job, room }
    }

    /// Waits until an entry of so many bytes may be sent.
    pub(crate) async fn slot(&self, bytes: usize) -> Result<Slot<'_>, ReceiverGone> {
        let bytes = u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX).min(WAITING_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        Ok(Slot { sender: self, room: room.map_err(|_| ReceiverGone)? })
    }
}

impl Slot<'_> {
    /// Hands the entry over. That of a sender that was cut off meanwhile is dropped.
    pub(crate) fn send(self, entry: Entry) {
        let Some(shared) = self.sender.shared.upgrade() else { return };
        let job = &self.sender.job;
        let mut intake = job.intake();
        if !intake.sender.as_ref().is_some_and(|sender| Arc::ptr_eq(sender, &self.sender.room)) {
            return;
        }
        intake.entries.push_back(Waiting { entry, room: self.room });
        let is_news = !std::mem::replace(&mut intake.is_announced, true);
        drop(intake);
        if is_news {
            shared.ready.announce(Arc::clone(job));
        }
    }
}

impl Waiting {
    /// Joins the entry that comes next to this one.
    pub(super) fn add(&mut self, next: Self) {
        let Entry { mut events, state, bytes, urgent, written, synced } = next.entry;
        let entry = &mut self.entry;
        entry.events.append(&mut events);
        entry.state.advance(state);
        entry.bytes += bytes;
        entry.urgent |= urgent;
        entry.written = written.or_else(|| entry.written.take());
        entry.synced = synced;
        self.room.merge(next.room);
    }
}

impl Intake {
    /// Cuts the sender off and lets another one add, or nobody.
    pub(super) fn replace_sender(&mut self, sender: Option<Arc<Semaphore>>) {
        if let Some(before) = std::mem::replace(&mut self.sender, sender) {
            before.close();
        }
    }
}

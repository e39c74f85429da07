//! Where a job's events go.

use common::event::JobEvent;
use tokio::sync::{mpsc, oneshot, watch};

use super::{LogState, ReceiverGone};
use crate::journal::JournalSender;

/// Where a job's events go.
#[derive(Debug)]
pub enum Outlet {
    /// To a consumer in this process, and nowhere else.
    Direct(mpsc::Sender<JobEvent>),
    /// Into the job's segment file, and on from there.
    Journal(JournalSender),
}

/// What is written at once: all of it is found after a crash, or nothing.
#[derive(Debug)]
pub struct Entry {
    /// Events in order; there may be none.
    pub events: Vec<JobEvent>,
    /// Where the log stands behind them.
    pub state: LogState,
    /// About the memory that the events take, in bytes.
    pub(crate) bytes: usize,
    /// Somebody waits until it is on disk.
    pub(crate) urgent: bool,
    /// Is told when it is in the file.
    pub(crate) written: Option<oneshot::Sender<()>>,
    /// Takes the number of the guest's event that is on disk.
    pub(crate) synced: watch::Sender<u64>,
}

/// Raises a watched number.
pub(crate) fn raise(watched: &watch::Sender<u64>, number: u64) {
    watched.send_if_modified(|current| {
        let grows = *current < number;
        *current = number.max(*current);
        grows
    });
}

impl super::EventLog {
    /// Hands over everything that was recorded, as one entry. The one place that waits for room.
    ///
    /// When it is given up nothing is lost: the next commit hands over what is left.
    ///
    /// # Errors
    /// The receiver is gone, or the journal is closed.
    pub async fn commit(&mut self) -> Result<(), ReceiverGone> {
        if !self.is_dirty() {
            return Ok(());
        }
        match &self.outlet {
            Outlet::Direct(sender) => {
                while !self.pending.is_empty() {
                    let slot = sender.reserve().await.map_err(|_| ReceiverGone)?;
                    slot.send(self.pending.pop_front().expect("the loop saw a front"));
                }
                self.pending_bytes = 0;
                self.state.masks.clear();
                raise(&self.synced, self.state.guest_seq);
            }
            Outlet::Journal(sender) => {
                let slot = sender.slot(self.pending_bytes + self.state.mask_bytes()).await?;
                self.state.held = self.lines.held();
                let state = self.state.clone();
                self.state.masks.clear();
                slot.send(Entry {
                    events: std::mem::take(&mut self.pending).into(),
                    state,
                    bytes: std::mem::take(&mut self.pending_bytes),
                    urgent: std::mem::take(&mut self.urgent),
                    written: self.written.take(),
                    synced: self.synced.clone(),
                });
            }
        }
        self.is_changed = false;
        Ok(())
    }
}

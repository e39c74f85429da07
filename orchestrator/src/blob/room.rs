//! How much one job may make come before it completes something, and how much of the host's work it has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::BlobError;

/// What of one job reads and writes files at the same time.
const TURNS: usize = 4;

/// What one job may still make come, and when it is its turn to work with files.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    most: u64,
    left: Arc<AtomicU64>,
    turns: Arc<Semaphore>,
    alone: Arc<Mutex<()>>,
}

impl Room {
    pub(crate) fn new(most: u64) -> Self {
        let turns = Arc::new(Semaphore::new(TURNS));
        Self { most, left: Arc::new(AtomicU64::new(most)), turns, alone: Arc::default() }
    }

    /// Takes so many bytes of it.
    pub(super) fn take(&self, bytes: u64) -> Result<(), BlobError> {
        let less = |left: u64| left.checked_sub(bytes);
        match self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(BlobError::TooLarge(format!(
                "the job has sent more than {} bytes that belong to nothing complete",
                self.most
            ))),
        }
    }

    /// So many bytes belong to something complete now.
    pub(crate) fn give(&self, bytes: u64) {
        let more = |left: u64| Some(left.saturating_add(bytes).min(self.most));
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok();
    }

    /// Does work that may block, when it is its turn. It goes on, and keeps its turn, when nobody waits
    /// for it any more.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<T> {
        let turn: OwnedSemaphorePermit =
            Arc::clone(&self.turns).acquire_owned().await.map_err(std::io::Error::other)?;
        let done = spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(std::io::Error::other)
    }

    /// The same for work that must not meet other such work of the job: one goes after the other, and a
    /// question that is asked again is answered when the first is done.
    pub(crate) async fn work_alone<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<T> {
        let alone = Arc::clone(&self.alone);
        self.work(move || {
            let _alone = alone.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        })
        .await
    }
}

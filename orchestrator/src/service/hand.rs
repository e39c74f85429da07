//! Which jobs this process has in hand, so that nothing is done about one from two sides.
//!
//! A job that the table gives to this host is in hand from the moment at which the table says so: a
//! worker carries it, or it is being settled or ended. What takes jobs from the table holds
//! [`Hands::taking`] until they are in hand, and who looks for jobs that nobody has in hand waits
//! for that.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::ids::JobId;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::store::Size;

/// The jobs that are in hand without a worker.
#[derive(Debug, Default)]
pub(super) struct Hands {
    jobs: Mutex<HashMap<JobId, Size>>,
    taking: RwLock<()>,
}

/// One job that is in hand. Let go of when dropped.
#[derive(Debug)]
pub(super) struct InHand {
    hands: Arc<Hands>,
    job: JobId,
}

impl Hands {
    /// Takes a job in hand whose machine has this size; `None` if it is already.
    pub(super) fn take(self: &Arc<Self>, job: JobId, size: Size) -> Option<InHand> {
        match self.jobs().entry(job) {
            std::collections::hash_map::Entry::Occupied(_) => None,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(size);
                Some(InHand { hands: Arc::clone(self), job })
            }
        }
    }

    /// The jobs that are in hand.
    pub(super) fn all(&self) -> BTreeSet<JobId> {
        self.jobs().keys().copied().collect()
    }

    /// The sizes of the machines of jobs that are in hand, but for those that have a worker.
    pub(super) fn sizes(&self, has_worker: impl Fn(JobId) -> bool) -> Vec<Size> {
        let jobs = self.jobs();
        jobs.iter().filter(|(job, _)| !has_worker(**job)).map(|(_, size)| *size).collect()
    }

    /// Held from before a job is taken from the table until it is in hand.
    pub(super) async fn taking(&self) -> RwLockReadGuard<'_, ()> {
        self.taking.read().await
    }

    /// Held while the table is compared with what is in hand.
    pub(super) async fn comparing(&self) -> RwLockWriteGuard<'_, ()> {
        self.taking.write().await
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Size>> {
        // The map is whole at every moment, whoever panicked.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.hands.jobs().remove(&self.job);
    }
}

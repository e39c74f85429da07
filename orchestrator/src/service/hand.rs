//! Which jobs this process has in hand, so that nothing is done about one from two sides.
//!
//! A job that the table gives to this host is in hand from the moment at which the table says so: a
//! worker carries it, or it is being settled or ended. What takes jobs from the table holds
//! [`Hands::taking`] until they are in hand, and who looks for jobs that nobody has in hand waits
//! for that.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::ids::JobId;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::store::Size;

/// The jobs that are in hand without a worker.
#[derive(Debug, Default)]
pub(super) struct Hands {
    jobs: Mutex<HashMap<JobId, Hand>>,
    taking: RwLock<()>,
}

#[derive(Debug)]
struct Hand {
    size: Size,
    since: Instant,
    /// It was told of that this takes long.
    is_told: bool,
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
                place.insert(Hand { size, since: Instant::now(), is_told: false });
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
        jobs.iter().filter(|(job, _)| !has_worker(**job)).map(|(_, hand)| hand.size).collect()
    }

    /// The jobs that are in hand for longer than that, each once.
    pub(super) fn slow(&self, limit: Duration) -> Vec<JobId> {
        let mut jobs = self.jobs();
        let slow = jobs.iter_mut().filter(|(_, hand)| hand.since.elapsed() > limit);
        slow.filter_map(|(job, hand)| (!std::mem::replace(&mut hand.is_told, true)).then_some(*job))
            .collect()
    }

    /// Held from before a job is taken from the table until it is in hand.
    pub(super) async fn taking(&self) -> RwLockReadGuard<'_, ()> {
        self.taking.read().await
    }

    /// Held while the table is compared with what is in hand.
    pub(super) async fn comparing(&self) -> RwLockWriteGuard<'_, ()> {
        self.taking.write().await
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Hand>> {
        // The map is whole at every moment, whoever panicked.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.hands.jobs().remove(&self.job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_long_in_hand_is_told_of_once() {
        let hands = Arc::new(Hands::default());
        let job = JobId::new();
        let size = Size { cpus: 1, memory: common::size::ByteSize(1) };
        let in_hand = hands.take(job, size).unwrap();
        assert!(hands.take(job, size).is_none());
        assert_eq!(hands.slow(Duration::from_secs(3600)), []);
        while hands.slow(Duration::ZERO) != [job] {}
        assert_eq!(hands.slow(Duration::ZERO), []);
        drop(in_hand);
        assert!(hands.take(job, size).is_some());
    }
}

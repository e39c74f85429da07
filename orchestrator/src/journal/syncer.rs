//! The one syncer of a host: it brings what was written on disk, in groups.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::job::Job;
use crate::metrics;

/// How long what was written may wait to be synced together with what comes after it. Somebody who
/// waits for it, or a large amount, is not kept waiting.
const TOGETHER: Duration = Duration::from_secs(2);

/// The jobs of which something is not on disk.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    jobs: Mutex<DirtyJobs>,
    news: Notify,
}

#[derive(Debug, Default)]
struct DirtyJobs {
    urgent: Vec<Arc<Job>>,
    others: Vec<Arc<Job>>,
}

impl Dirty {
    /// Something of a job must come on disk; said once until it is synced.
    pub(super) fn add(&self, job: Arc<Job>, is_urgent: bool) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let list = if is_urgent { &mut jobs.urgent } else { &mut jobs.others };
        list.push(job);
        if list.len() == 1 {
            self.news.notify_one();
        }
    }

    fn take(&self, and_others: bool) -> Vec<Arc<Job>> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = std::mem::take(&mut jobs.urgent);
        if and_others {
            taken.append(&mut jobs.others);
        }
        taken
    }

    fn has_others(&self) -> bool {
        !self.jobs.lock().unwrap_or_else(PoisonError::into_inner).others.is_empty()
    }
}

/// Syncs until the writer has ended and everything is on disk.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut due = None;
    let mut is_failing = false;
    loop {
        let is_due = tokio::select! {
            biased;
            () = shared.kill.cancelled() => return,
            () = shared.no_syncer.cancelled() => {
                sync_all(&shared, true, &mut is_failing).await;
                return;
            }
            () = until(due) => true,
            () = shared.dirty.news.notified() => false,
        };
        sync_all(&shared, is_due, &mut is_failing).await;
        due = match due {
            Some(due) if !is_due => Some(due),
            _ => shared.dirty.has_others().then(|| Instant::now() + TOGETHER),
        };
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

async fn sync_all(shared: &Arc<Shared>, and_others: bool, is_failing: &mut bool) {
    let jobs = shared.dirty.take(and_others);
    if jobs.is_empty() {
        return;
    }
    let at_work = Arc::clone(shared);
    let synced = spawn_blocking(move || {
        let mut failure = None;
        for job in jobs {
            if let Err(error) = job.sync(&at_work) {
                metrics::error("journal");
                job.sync_again(&at_work);
                failure = Some(error);
            }
        }
        failure
    });
    match synced.await {
        Ok(Some(error)) if !*is_failing => {
            *is_failing = true;
            tracing::error!(%error, "jobs' journals cannot be synced; trying again");
        }
        Ok(None) if *is_failing => {
            *is_failing = false;
            tracing::info!("jobs' journals are synced again");
        }
        Ok(_) => {}
        Err(error) => {
            metrics::error("journal");
            tracing::error!(%error, "the syncer of the journals failed");
        }
    }
}

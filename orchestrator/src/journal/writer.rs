//! The one writer of a host: it writes what waits, of whichever jobs, in turns.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::job::Job;
use crate::metrics;
use crate::segment::SegmentError;

/// How long after a failure, such as a full disk, writing is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The least time between two turns. What comes meanwhile is written together: a turn costs the same
/// for one job as for many, and a line that waits so long is on nobody's way.
const TURN: Duration = Duration::from_millis(5);

/// The jobs of which entries wait.
#[derive(Debug, Default)]
pub(super) struct Ready {
    jobs: Mutex<Vec<Arc<Job>>>,
    news: Notify,
}

impl Ready {
    /// Entries of a job wait; said once until they were taken.
    pub(super) fn announce(&self, job: Arc<Job>) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.push(job);
        if jobs.len() == 1 {
            self.news.notify_one();
        }
    }

    fn has_jobs(&self) -> bool {
        !self.jobs.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self) -> Vec<Arc<Job>> {
        std::mem::take(&mut self.jobs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes until the journals are closed and nothing waits any more.
pub(super) async fn run(shared: Arc<Shared>) {
    let _closing = Closing(Arc::clone(&shared));
    let mut failed = Failed::default();
    let mut turn = Instant::now();
    while !shared.kill.is_cancelled() {
        if shared.ready.has_jobs() {
            sleep_until(turn).await;
            turn = Instant::now() + TURN;
            let mut jobs = shared.ready.take();
            // However much there is to write, those that failed have their turn.
            jobs.append(&mut failed.take_due());
            failed.add(write_all(&shared, jobs).await);
            continue;
        }
        tokio::select! {
            () = shared.kill.cancelled() => return,
            () = shared.ready.news.notified() => {}
            jobs = failed.again() => {
                let left = write_all(&shared, jobs).await;
                if left.is_empty() {
                    tracing::info!("jobs' journals are written again");
                }
                failed.add(left);
            }
            () = shared.no_writer.cancelled() => {
                // What was announced before the end is written as well.
                let mut jobs = shared.ready.take();
                jobs.append(&mut failed.jobs);
                failed.add(write_all(&shared, jobs).await);
                break;
            }
        }
    }
    if !failed.jobs.is_empty() {
        let jobs = failed.jobs.len();
        tracing::error!(jobs, "what was left of jobs' journals could not be written");
    }
}

/// Writes what waits of each of these, and returns those that failed, with what they failed with.
async fn write_all(shared: &Arc<Shared>, jobs: Vec<Arc<Job>>) -> Vec<(Arc<Job>, SegmentError)> {
    let in_charge = jobs.clone();
    let shared = Arc::clone(shared);
    let written = spawn_blocking(move || {
        let write = |job: Arc<Job>| job.write(&shared).err().map(|error| (job, error));
        jobs.into_iter().filter_map(write).collect()
    });
    match written.await {
        Ok(failed) => failed,
        Err(error) => {
            // It panicked: which of the jobs it was is not known.
            metrics::error("journal");
            tracing::error!(%error, "the writer of the journals failed; its jobs are given up");
            in_charge.iter().for_each(|job| job.give_up());
            Vec::new()
        }
    }
}

/// Jobs that could not be written.
#[derive(Default)]
struct Failed {
    jobs: Vec<Arc<Job>>,
    again: Option<Instant>,
}

impl Failed {
    fn add(&mut self, failed: Vec<(Arc<Job>, SegmentError)>) {
        let was_empty = self.jobs.is_empty();
        for (job, error) in failed {
            metrics::error("journal");
            if let SegmentError::Seal(_) = error {
                tracing::error!(job.id = %job.id(), %error, "a job's journal is given up");
                job.give_up();
                continue;
            }
            if was_empty && self.jobs.is_empty() {
                let pause = AGAIN.as_secs();
                tracing::error!(job.id = %job.id(), %error, "jobs' journals cannot be written; trying again every {pause} s");
            }
            self.jobs.push(job);
        }
        if self.jobs.is_empty() {
            self.again = None;
        } else {
            self.again.get_or_insert_with(|| Instant::now() + AGAIN);
        }
    }

    /// Those that are to be tried again now.
    fn take_due(&mut self) -> Vec<Arc<Job>> {
        match self.again {
            Some(again) if again <= Instant::now() => {
                self.again = None;
                std::mem::take(&mut self.jobs)
            }
            _ => Vec::new(),
        }
    }

    /// Waits until they are to be tried again.
    async fn again(&mut self) -> Vec<Arc<Job>> {
        match self.again {
            Some(again) => sleep_until(again).await,
            None => pending().await,
        }
        self.again = None;
        std::mem::take(&mut self.jobs)
    }
}

/// However the writer ends, nobody waits for it any more.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.jobs().values().for_each(|job| job.close());
        self.0.no_syncer.cancel();
    }
}

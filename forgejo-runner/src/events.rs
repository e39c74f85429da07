//! The events of all jobs of this daemon, each handed to its task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use common::ids::JobId;
use queue::message::{EventBatch, Progress};
use queue::seal::KeyRing;
use queue::{Delivery, EventReceiver, Queue};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::journal::JournalError;
use crate::task::{Backoff, Task, tell};

/// A task, shared between those who hear of it and who reports it.
pub(crate) type InHand = Arc<Task>;

/// Batches that are delivered ahead of those that were taken.
pub(crate) const PREFETCH: u16 = 64;

/// The tasks in hand, by their jobs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    inner: Arc<TasksInner>,
}

#[derive(Debug, Default)]
struct TasksInner {
    tasks: Mutex<HashMap<JobId, InHand>>,
    changed: Notify,
}

impl Tasks {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, InHand>> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, task: InHand) {
        self.lock().insert(task.job, task);
    }

    pub(crate) fn remove(&self, job: JobId) {
        self.lock().remove(&job);
        self.inner.changed.notify_waiters();
    }

    pub(crate) fn get(&self, job: JobId) -> Option<InHand> {
        self.lock().get(&job).cloned()
    }

    pub(crate) fn all(&self) -> Vec<InHand> {
        self.lock().values().cloned().collect()
    }

    /// How many came over a connection.
    pub(crate) fn of(&self, connection: &str) -> usize {
        self.lock().values().filter(|task| task.id.connection == connection).count()
    }

    /// Waits until one is over.
    ///
    /// It hears of those that are over from the moment at which it is made.
    pub(crate) fn one_less(&self) -> Notified<'_> {
        self.inner.changed.notified()
    }

    /// Waits until none is left.
    pub(crate) async fn none(&self) {
        loop {
            let changed = self.inner.changed.notified();
            if self.lock().is_empty() {
                return;
            }
            changed.await;
        }
    }
}

/// Hands events to their tasks until the queue is closed.
pub(crate) async fn deliver(mut events: EventReceiver, queue: Queue, keys: KeyRing, tasks: Tasks) {
    loop {
        let delivery = match events.next().await {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::info!(%error, "no more events");
                return;
            }
        };
        // In its place, because what comes behind it would be a hole.
        let mut backoff = Backoff::default();
        let taken = loop {
            match take(&delivery, &queue, &keys, &tasks).await {
                Ok(()) => break Ok(()),
                Err(Refused::Unreadable(reason)) => break Err(reason),
                Err(Refused::Journal(error)) => {
                    tracing::error!(%error, "events cannot be kept; trying again");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        };
        let done = match taken {
            Ok(()) => delivery.acknowledge().await,
            Err(reason) => {
                tracing::error!(reason, "events cannot be read");
                delivery.reject(&reason).await
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "events come again");
        }
    }
}

/// Why events were not taken.
enum Refused {
    Unreadable(String),
    Journal(JournalError),
}

async fn take(
    delivery: &Delivery<EventBatch>,
    queue: &Queue,
    keys: &KeyRing,
    tasks: &Tasks,
) -> Result<(), Refused> {
    let unreadable = |error: &dyn std::fmt::Display| Refused::Unreadable(error.to_string());
    let batch = delivery.message.as_ref().map_err(|error| unreadable(error))?;
    let Some(job) = batch.parts.first().map(|part| part.job) else { return Ok(()) };
    let Some(task) = tasks.get(job) else {
        // Of a task that is over: the orchestrator has not heard yet that all was taken.
        if let Some(part) = batch.parts.last() {
            let seq = part.first + u64::from(part.count) - 1;
            let progress = Progress { job, try_number: part.try_number, seq };
            tell(queue, batch.host, progress);
        }
        return Ok(());
    };
    let mut events = Vec::new();
    for part in &batch.parts {
        match part.open(keys) {
            Ok(found) => events.extend(found),
            Err(error) => {
                let line =
                    format!("SOL-JOB-UNREADABLE: the events of the job cannot be read: {error}");
                task.fail(&line).await.map_err(Refused::Journal)?;
                return Err(unreadable(&error));
            }
        }
    }
    task.take(batch.host, &events).await.map_err(Refused::Journal)
}

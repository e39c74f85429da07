//! The events of all jobs of this daemon, each handed to its task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use common::ids::JobId;
use queue::message::{EventBatch, Progress};
use queue::seal::KeyRing;
use queue::{Delivery, EventReceiver, Queue};
use tokio::sync::Notify;

use crate::journal::JournalError;
use crate::task::{InHand, tell};

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
    pub(crate) async fn one_less(&self) {
        self.inner.changed.notified().await;
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
        let done = match take(&delivery, &queue, &keys, &tasks).await {
            Ok(()) => delivery.acknowledge().await,
            Err(Refused::Unreadable(reason)) => {
                tracing::error!(reason, "events cannot be read");
                delivery.reject(&reason).await
            }
            // It is delivered again, to this process or the next one.
            Err(Refused::Journal(error)) => {
                tracing::error!(%error, "events cannot be kept");
                continue;
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
            tell(queue, batch.host, progress).await;
        }
        return Ok(());
    };
    let mut events = Vec::new();
    for part in &batch.parts {
        events.extend(part.open(keys).map_err(|error| unreadable(&error))?);
    }
    task.take(batch.host, events).await.map_err(Refused::Journal)
}

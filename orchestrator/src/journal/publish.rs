//! Publishing one job's events to its forge runner, a bounded amount ahead of what it has taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use queue::message::{EventBatch, EventPart};
use queue::{Address, Queue, QueueError};
use tokio::sync::watch;
use tokio::time::sleep;

use super::Shared;
use super::follow::read_some;
use super::job::{Job, Written};
use crate::metrics;

/// The bytes that are published ahead of what the forge runner has taken.
pub(super) const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// The parts that are published ahead of it.
pub(super) const WINDOW_PARTS: usize = 256;
/// How long after the first failure publishing is tried again; each further failure doubles it.
const BACK_OFF: Duration = Duration::from_millis(250);
/// The longest pause between two attempts.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// What takes events to forge runners.
pub(super) trait Transport: Send + Sync {
    /// Hands a batch over; it is durable then.
    fn publish<'a>(
        &'a self,
        to: &'a Address,
        batch: &'a EventBatch,
    ) -> BoxFuture<'a, Result<(), QueueError>>;
}

impl Transport for Queue {
    fn publish<'a>(
        &'a self,
        to: &'a Address,
        batch: &'a EventBatch,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(self.publish_events(to, batch))
    }
}

/// Publishes a job's events until its forge runner has the final one.
pub(super) async fn run(
    shared: Arc<Shared>,
    job: Arc<Job>,
    to: Address,
    transport: Arc<dyn Transport>,
) {
    let mut publisher = Publisher {
        shared: &shared,
        job: &job,
        to,
        transport,
        position: crate::segment::HEAD_BYTES,
        ahead: VecDeque::new(),
        ahead_bytes: 0,
        is_complete: false,
        written: job.written(),
        taken: job.taken(),
    };
    tokio::select! {
        biased;
        () = shared.kill.cancelled() => {}
        () = shared.stop.cancelled() => {}
        () = job.gone().cancelled() => {}
        () = publisher.publish_all() => {}
    }
}

struct Publisher<'a> {
    shared: &'a Shared,
    job: &'a Arc<Job>,
    to: Address,
    transport: Arc<dyn Transport>,
    /// Everything in front of it is published.
    position: u64,
    /// What the forge runner has not taken yet: the last event of each part, and its size.
    ahead: VecDeque<((u32, u64), u64)>,
    ahead_bytes: u64,
    /// Whether the final event is published.
    is_complete: bool,
    written: watch::Receiver<Written>,
    taken: watch::Receiver<(u32, u64)>,
}

impl Publisher<'_> {
    async fn publish_all(&mut self) {
        loop {
            self.forget_taken();
            if self.is_complete && self.ahead.is_empty() {
                self.job.deliver();
                self.shared.retire(self.job);
                // Whoever records deliveries may be gone.
                let _ = self.shared.delivered.send(self.job.id()).await;
                return;
            }
            let length = self.written.borrow_and_update().length;
            if self.position < length && self.has_room() {
                match self.publish_some(length).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(Ended) => return,
                }
            }
            let changed = tokio::select! {
                changed = self.written.changed() => changed,
                changed = self.taken.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.ahead.len() < WINDOW_PARTS && self.ahead_bytes < WINDOW_BYTES
    }

    fn forget_taken(&mut self) {
        let taken = *self.taken.borrow_and_update();
        while let Some((_, bytes)) = self.ahead.pop_front_if(|(last, _)| *last <= taken) {
            self.ahead_bytes -= bytes;
        }
    }

    /// Publishes what comes next, however long that takes, and says whether there was anything.
    async fn publish_some(&mut self, length: u64) -> Result<bool, Ended> {
        let mut pause = BACK_OFF;
        loop {
            match self.publish_once(length).await {
                Ok(is_progress) => {
                    self.note_recovery();
                    return Ok(is_progress);
                }
                Err(QueueError::Closed) => return Err(Ended),
                Err(error) => self.note_failure(&error),
            }
            // Nothing is kept in memory meanwhile.
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_BACK_OFF);
        }
    }

    async fn publish_once(&mut self, length: u64) -> Result<bool, QueueError> {
        let permit = self.shared.publishing.acquire().await.map_err(|_| QueueError::Closed)?;
        let read = read_some(self.job.file(), self.job.id(), self.position, length).await;
        let chunk = read.map_err(|error| {
            metrics::error("journal");
            let job = self.job.id();
            tracing::error!(job.id = %job, %error, "a journal cannot be read; its events stay behind");
            QueueError::Closed
        })?;
        if chunk.next == self.position {
            return Ok(false);
        }
        let (mut next, mut ahead) = (chunk.next, Vec::new());
        let mut bytes = self.ahead_bytes;
        let mut parts: Vec<EventPart> = Vec::new();
        for part in chunk.parts {
            if self.ahead.len() + parts.len() >= WINDOW_PARTS || bytes >= WINDOW_BYTES {
                break;
            }
            let size = part.part.message_bytes() as u64;
            bytes += size;
            next = part.end;
            ahead.push(((part.part.try_number, part.last_seq()), size));
            parts.push(part.part);
        }
        let is_last = parts.last().is_some_and(|part| part.last);
        if !parts.is_empty() {
            let batch = EventBatch { host: self.shared.settings.host, parts };
            self.transport.publish(&self.to, &batch).await?;
        }
        drop(permit);
        self.position = next;
        self.ahead.extend(ahead);
        self.ahead_bytes = bytes;
        self.is_complete |= is_last;
        Ok(true)
    }

    /// Says once for each address that it cannot be published to.
    fn note_failure(&self, error: &QueueError) {
        metrics::error("publish");
        if self.shared.failing().insert(self.to.clone()) {
            let to = &self.to;
            let job = self.job.id();
            tracing::warn!(job.id = %job, %to, %error, "cannot publish events; trying again, they are kept");
        }
    }

    fn note_recovery(&self) {
        if self.shared.failing().remove(&self.to) {
            tracing::info!(to = %self.to, "events are published again");
        }
    }
}

/// The queue is closed, or the file cannot be read.
struct Ended;

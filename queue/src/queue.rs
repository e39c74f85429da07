//! The one contract of both queues.
//!
//! - A job, a control message or a batch of events is durable when the call that publishes it
//!   returns.
//! - It is delivered in order, and again after a crash of the consumer or a lost connection, until
//!   it is acknowledged. An acknowledgement may itself be lost with the process or the connection,
//!   so consumers must take the same message twice without a second effect.
//! - A receiver gives out at most `prefetch` messages that are not acknowledged: that is the
//!   back-pressure.
//! - A message that its consumer rejects goes to the dead letters with a reason.

use std::time::Duration;

use common::ids::{HostId, JobId};
use common::time::Timestamp;

use crate::message::{EventBatch, JobMessage, Progress, Release, Reserve, Reserved};
use crate::{Address, ControlReceiver, EventReceiver, JobReceiver, QueueError, embedded, rabbit};

/// How long an orchestrator may take to answer a question for a reservation.
pub const RESERVE_ANSWER: Duration = Duration::from_secs(5);

/// A queue in one of its two forms. Clones share the connection.
#[derive(Clone, Debug)]
pub enum Queue {
    /// In this process, durable in a SQLite file.
    Embedded(embedded::Embedded),
    /// A RabbitMQ broker.
    Rabbit(rabbit::Rabbit),
}

/// A message that nobody could use.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Why.
    pub reason: String,
    /// When it was rejected.
    pub time: Timestamp,
    /// The queue that it was on.
    pub queue: String,
    /// Its bytes, cut to a kibibyte.
    pub bytes: Vec<u8>,
}

macro_rules! either {
    ($queue:expr, $inner:ident => $call:expr) => {
        match $queue {
            Queue::Embedded($inner) => $call,
            Queue::Rabbit($inner) => $call,
        }
    };
}

impl Queue {
    /// Hands a job to the orchestrators.
    ///
    /// # Errors
    /// The queue cannot be used; the caller must try again with the same job id.
    pub async fn publish_job(&self, job: &JobMessage) -> Result<(), QueueError> {
        either!(self, queue => queue.publish_job(job).await)
    }

    /// Asks whoever has a job to end it. Reaches every orchestrator, also one that is down now.
    ///
    /// # Errors
    /// The queue cannot be used, or no orchestrator has ever started.
    pub async fn cancel(&self, job: JobId) -> Result<(), QueueError> {
        either!(self, queue => queue.cancel(job).await)
    }

    /// Tells the host that has a job how far its events were taken.
    ///
    /// # Errors
    /// The queue cannot be used, or the host is unknown to it.
    pub async fn progress(&self, host: HostId, progress: Progress) -> Result<(), QueueError> {
        either!(self, queue => queue.progress(host, progress).await)
    }

    /// Asks one orchestrator, whichever is free, for a reservation.
    ///
    /// # Errors
    /// The queue cannot be used, or nobody answers in time.
    pub async fn reserve(&self, question: &Reserve) -> Result<Reserved, QueueError> {
        either!(self, queue => queue.reserve(question).await)
    }

    /// Gives a part of a reservation back. Reaches one orchestrator.
    ///
    /// # Errors
    /// The queue cannot be used.
    pub async fn release(&self, release: Release) -> Result<(), QueueError> {
        either!(self, queue => queue.release(release).await)
    }

    /// The events for one forge runner; made durable by the first call. One receiver at a time.
    ///
    /// # Errors
    /// The queue cannot be used.
    pub async fn events(
        &self,
        address: &Address,
        prefetch: u16,
    ) -> Result<EventReceiver, QueueError> {
        either!(self, queue => queue.events(address, prefetch).await)
    }

    /// The jobs for orchestrators. Several receivers share them.
    ///
    /// # Errors
    /// The queue cannot be used.
    pub async fn jobs(&self, prefetch: u16) -> Result<JobReceiver, QueueError> {
        either!(self, queue => queue.jobs(prefetch).await)
    }

    /// What this orchestrator is told, and a share of the questions for a reservation. One receiver
    /// for each host.
    ///
    /// # Errors
    /// The queue cannot be used.
    pub async fn control(&self, host: HostId) -> Result<ControlReceiver, QueueError> {
        either!(self, queue => queue.control(host).await)
    }

    /// Sends events to a forge runner. They are kept while it is away, up to the limits of its queue.
    ///
    /// # Errors
    /// The queue cannot be used, or the address has no queue.
    pub async fn publish_events(&self, to: &Address, batch: &EventBatch) -> Result<(), QueueError> {
        either!(self, queue => queue.publish_events(to, batch).await)
    }

    /// The latest messages that nobody could use, newest first.
    ///
    /// # Errors
    /// The queue cannot be used.
    pub async fn dead_letters(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
        either!(self, queue => queue.dead_letters(most).await)
    }

    /// Whether the queue can be used at this moment.
    ///
    /// # Errors
    /// It cannot, or does not answer within 3 seconds.
    pub async fn check(&self) -> Result<(), QueueError> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Rabbit(queue) => queue.check().await,
        }
    }

    /// Ends the connection. What was delivered and not acknowledged is delivered again later.
    pub async fn close(&self) {
        either!(self, queue => queue.close().await);
    }
}

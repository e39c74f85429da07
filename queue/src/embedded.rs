//! The queue of one process, durable in a SQLite file.
//!
//! ```text
//!  publish ──┐                       ┌── in memory: what comes next ──▶ receivers
//!  declare ──┼─▶ writer: one task,   │        (`lane`)                      │
//!  reject  ──┤   one transaction for │                                      │
//!  acks    ──┘   all that waits ─────┴── on disk: what is not acknowledged  │
//!     ▲              (`writer`)                (`database`)                 │
//!     └─────────────────────── acknowledgements ────────────────────────────┘
//! ```
//!
//! A message is in a *lane*: `jobs`, `release`, one `events.ADDRESS` for each forge runner and one
//! `host.ID` for each orchestrator. The writer alone uses the file. It writes everything that waits
//! in one transaction, so that the cost of a sync is shared, and only then answers those who
//! published. Receivers are fed from memory: with what was just written, or with what the writer
//! reads ahead when they have caught up with that. Nothing is polled.
//!
//! An acknowledgement is on its way when its call returns, as it is with a broker: it may be lost
//! with the process, and the message comes again. Questions for a reservation are never written.

mod database;
mod lane;
mod questions;
mod receiver;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::ids::{HostId, JobId};
use common::limits::MIB;
use common::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::delivery::Reader;
use crate::message::{
    Control, EventBatch, JobMessage, Message, Progress, Release, Reserve, Reserved,
};
use crate::{Address, DeadLetter, EventReceiver, JobReceiver, QueueError};

pub use receiver::{ControlReceiver, Receiver, Token};

use database::Database;
use lane::{Kind, Lane};
use questions::Questions;
use writer::{Op, Writer};

/// What a lane of events, or of a host, may hold. At the limit publishing to it is an error.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Messages in one lane.
    messages: usize,
    /// Their bytes.
    bytes: u64,
    /// The age of the oldest.
    age: Duration,
}

const LIMITS: Limits =
    Limits { messages: 100_000, bytes: 256 * MIB, age: Duration::from_secs(7 * 24 * 3600) };

/// Calls that wait for the writer. At the limit a further one waits in its caller.
const WAITING_OPS: usize = 1024;

/// Control messages of each kind that one orchestrator has at once.
const CONTROL_PREFETCH: u16 = 64;

/// How long the file may take to be written and closed at the end.
const CLOSE: Duration = Duration::from_secs(30);

/// A queue in this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lanes: Lanes,
    writer: mpsc::Sender<Op>,
    questions: Questions,
    closed: CancellationToken,
}

/// The lanes by their names. The writer adds those that are made.
#[derive(Clone, Debug, Default)]
struct Lanes(Arc<Mutex<HashMap<String, Arc<Lane>>>>);

impl Embedded {
    /// Opens the file, or makes it. The caller holds the lock of the directory that it lies in.
    ///
    /// # Errors
    /// It cannot be used, or is from a newer program.
    pub async fn open(path: &Path) -> Result<Self, QueueError> {
        Self::start(Database::open(path).await?, LIMITS).await
    }

    /// Looks at a file that is there, whether or not a process has it open. Nothing is changed.
    ///
    /// # Errors
    /// It is no queue's, or from a newer program.
    pub async fn look(path: &Path) -> Result<(), QueueError> {
        Database::look(path).await
    }

    async fn start(database: Database, limits: Limits) -> Result<Self, QueueError> {
        let (writer, ops) = mpsc::channel(WAITING_OPS);
        let lanes = Lanes::default();
        let task = Writer::load(database, limits, lanes.clone()).await?;
        let (questions, closed) = (Questions::default(), CancellationToken::new());
        // Whichever way the writer ends, nobody waits for it any more.
        let ended = closed.clone().drop_guard();
        tokio::spawn(async move {
            task.run(ops).await;
            drop(ended);
        });
        let shared = Arc::new(Shared { lanes, writer, questions, closed });
        for kind in [Kind::Jobs, Kind::Release] {
            shared.declare(&kind).await?;
        }
        Ok(Self { shared })
    }

    pub(crate) async fn publish_job(&self, job: &JobMessage) -> Result<(), QueueError> {
        self.publish_to(&Kind::Jobs, "a job", job.encode()).await
    }

    pub(crate) async fn cancel(&self, job: JobId) -> Result<(), QueueError> {
        let hosts = self.shared.lanes.of_hosts();
        if hosts.is_empty() {
            self.shared.open()?;
            return Err(QueueError::Unroutable { what: "a cancel", queue: "host.*".to_owned() });
        }
        let message = Control::Cancel { job, time: Timestamp::now() };
        self.shared.publish(hosts, message.encode()?).await
    }

    pub(crate) async fn progress(
        &self,
        host: HostId,
        progress: Progress,
    ) -> Result<(), QueueError> {
        let message = Control::Progress(progress).encode()?;
        self.publish_to(&Kind::Host(host), "progress", message).await
    }

    pub(crate) async fn reserve(&self, question: &Reserve) -> Result<Reserved, QueueError> {
        // The same checks as on a wire.
        question.encode()?;
        let shared = &self.shared;
        let answer = shared.closed.run_until_cancelled(shared.questions.ask(question));
        answer.await.unwrap_or(Err(QueueError::Closed))
    }

    pub(crate) async fn release(&self, release: Release) -> Result<(), QueueError> {
        let message = Control::Release(release).encode()?;
        self.publish_to(&Kind::Release, "a release", message).await
    }

    pub(crate) async fn events(
        &self,
        address: &Address,
        prefetch: u16,
    ) -> Result<EventReceiver, QueueError> {
        let lane = self.shared.declare(&Kind::Events(address.clone())).await?;
        let read = Reader::new(EventBatch::decode);
        Ok(EventReceiver::Embedded(Receiver::new(&self.shared, lane, prefetch, read)))
    }

    pub(crate) async fn jobs(&self, prefetch: u16) -> Result<JobReceiver, QueueError> {
        let lane = self.shared.declare(&Kind::Jobs).await?;
        let read = Reader::jobs();
        Ok(JobReceiver::Embedded(Receiver::new(&self.shared, lane, prefetch, read)))
    }

    pub(crate) async fn control(&self, host: HostId) -> Result<crate::ControlReceiver, QueueError> {
        let host = self.shared.declare(&Kind::Host(host)).await?;
        let release = self.shared.declare(&Kind::Release).await?;
        let receiver = ControlReceiver::new(&self.shared, host, release);
        Ok(crate::ControlReceiver::Embedded(receiver))
    }

    pub(crate) async fn publish_events(
        &self,
        to: &Address,
        batch: &EventBatch,
    ) -> Result<(), QueueError> {
        self.publish_to(&Kind::Events(to.clone()), "events", batch.encode()?).await
    }

    pub(crate) async fn dead_letters(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.shared.ask(|done| Op::DeadLetters { most, done }).await
    }

    pub(crate) async fn close(&self) {
        self.shared.closed.cancel();
        let (done, closed) = oneshot::channel();
        let close = async {
            // An error means that it was closed before.
            if self.shared.writer.send(Op::Close { done }).await.is_ok() {
                drop(closed.await);
            }
        };
        if timeout(CLOSE, close).await.is_err() {
            tracing::warn!(seconds = CLOSE.as_secs(), "the queue's file was not closed in time");
        }
    }

    async fn publish_to(
        &self,
        kind: &Kind,
        what: &'static str,
        bytes: Vec<u8>,
    ) -> Result<(), QueueError> {
        self.shared.open()?;
        let name = kind.name();
        match self.shared.lanes.get(&name) {
            Some(lane) => self.shared.publish(vec![lane], bytes).await,
            None => Err(QueueError::Unroutable { what, queue: name }),
        }
    }
}

impl Shared {
    /// Puts a message into lanes; returns when it is on disk.
    async fn publish(&self, lanes: Vec<Arc<Lane>>, bytes: Vec<u8>) -> Result<(), QueueError> {
        let bytes = bytes.into();
        self.ask(|done| Op::Publish { lanes, bytes, done }).await
    }

    /// Gives a lane, made if it is not there.
    async fn declare(&self, kind: &Kind) -> Result<Arc<Lane>, QueueError> {
        self.ask(|done| Op::Declare { kind: kind.clone(), done }).await
    }

    async fn ask<T>(
        &self,
        op: impl FnOnce(oneshot::Sender<Result<T, QueueError>>) -> Op,
    ) -> Result<T, QueueError> {
        self.open()?;
        let (done, answer) = oneshot::channel();
        self.writer.send(op(done)).await.map_err(|_| QueueError::Closed)?;
        answer.await.unwrap_or(Err(QueueError::Closed))
    }

    fn open(&self) -> Result<(), QueueError> {
        if self.closed.is_cancelled() { Err(QueueError::Closed) } else { Ok(()) }
    }
}

impl Lanes {
    fn get(&self, name: &str) -> Option<Arc<Lane>> {
        lock(&self.0).get(name).cloned()
    }

    fn insert(&self, lane: &Arc<Lane>) {
        lock(&self.0).insert(lane.kind.name(), Arc::clone(lane));
    }

    fn of_hosts(&self) -> Vec<Arc<Lane>> {
        let is_host = |lane: &&Arc<Lane>| matches!(lane.kind, Kind::Host(_));
        lock(&self.0).values().filter(is_host).cloned().collect()
    }
}

/// Locks what is consistent after every statement, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The durable orchestrator of one host.
//!
//! ```text
//!  queue ──▶ intake ──▶ table of jobs ──▶ schedule ──▶ worker ──▶ journal ──▶ queue ──▶ forge runner
//!              control ──▶ (cancel, progress, reservations)          │
//!                          sweep ◀── deadlines, contradictions ──────┘
//! ```
//!
//! Each part is a loop of its own: [`intake`](self) puts jobs from the queue into the table,
//! `schedule` takes those that this host has room for, a worker carries each through, `control`
//! hears what the forge runners say meanwhile, `sweep` enforces every deadline and settles what
//! contradicts the records, and `recover` goes on with what an earlier process left. Whatever one of
//! them cannot do now it does later: no loop ends before the service does.

mod answer;
mod backend;
mod control;
mod hand;
mod heartbeat;
mod identity;
mod intake;
mod jumps;
mod recover;
mod schedule;
mod settings;
mod sweep;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::ids::{HostId, InstanceId, JobId};
use common::infrastructure::{Cause, Infrastructure};
use common::time::Timestamp;
use queue::seal::{KeyFileError, KeyRing};
use queue::{Queue, QueueError, embedded, rabbit};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vm_manager::host::HostError;
use vm_manager::image::CatalogueError;

use crate::clock::Clock;
use crate::journal::{JournalError, JournalSettings, Journals};
use crate::machines::Machines;
use crate::record::Note;
use crate::store::{HostReport, LabelOffer, Size, Store, StoreError};

pub use self::settings::{Database, ServiceSettings, Transport};

use self::hand::Hands;
use self::jumps::Jumps;
use self::worker::Worker;

/// How long workers may take to leave their machines when the service ends.
const LEAVE: Duration = Duration::from_secs(20);
/// Jobs of an earlier process that are looked at together.
const SETTLED_TOGETHER: usize = 4;
/// Notes for the database that may wait; more are dropped.
const WAITING_NOTES: usize = 10_000;

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The catalogue cannot be read.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The host's directories cannot be used, or another process has them.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The host's id cannot be read or made.
    #[error("the host's id in {path:?} cannot be used: {reason}")]
    Identity {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The journals cannot be used.
    #[error("the journals cannot be used: {0}")]
    Journals(#[from] std::io::Error),
    /// A label of the settings is not in the catalogue.
    #[error("`labels`: {0}")]
    Label(#[from] vm_manager::image::UnknownLabel),
}

/// The durable orchestrator of this host. Dropping it ends its loops and destroys its machines as a
/// crash would; [`Service::stop`] is the way to end it.
#[derive(Debug)]
pub struct Service {
    inner: Arc<Inner>,
    tasks: TaskTracker,
}

/// What all loops share.
#[derive(Debug)]
pub(crate) struct Inner {
    host: HostId,
    name: String,
    started: Timestamp,
    /// Where this service lives, so that two with one host id are told apart.
    place: uuid::Uuid,
    labels: Vec<LabelOffer>,
    capacity: Size,
    /// What of that the other machines of this host left when it was announced last.
    usable: Mutex<Size>,
    /// `kvm` or `tcg`.
    acceleration: String,
    /// For how long finished jobs are remembered.
    keep: Duration,
    store: Store,
    queue: Queue,
    keys: KeyRing,
    journals: Arc<Journals>,
    machines: Arc<Machines>,
    /// Whether no other host has a part in the table of jobs.
    is_alone: bool,
    clock: Clock,
    /// With an embedded database.
    jumps: Option<Jumps>,
    workers: Mutex<HashMap<JobId, Worker>>,
    /// Jobs of this host that have no worker, and that something is done about.
    hands: Arc<Hands>,
    /// So many jobs are looked at together that were left: each may be a large file.
    settling: Semaphore,
    /// Held while the ends that are owed are gone through.
    telling: Semaphore,
    /// There may be something to start.
    wake: Notify,
    draining: AtomicBool,
    notes: mpsc::Sender<Note>,
    stop: CancellationToken,
    /// The workers, which end after the loops.
    working: TaskTracker,
}

impl Service {
    /// Starts the service: opens everything, goes on with what an earlier process left, and takes
    /// jobs.
    ///
    /// # Errors
    /// Something that it needs cannot be used; see [`StartError`].
    pub async fn start(settings: ServiceSettings) -> Result<Self, StartError> {
        let host = identity::load_or_create(&settings.state)?;
        let instance: InstanceId = host.to_string().parse().expect("both ids are uuids");
        let limits = settings.machines.host.limits;
        let keys = settings.machines.keys.clone();
        let machines = Arc::new(Machines::of_service(settings.machines, instance)?);
        // First of all: what follows belongs to whoever holds this.
        let acceleration = machines.acceleration().await?;
        let labels = schedule::offers(&machines, settings.labels.as_deref())?;
        let capacity = schedule::capacity(&limits, &labels)?;
        let keys = keys.load()?;
        let is_alone = matches!(settings.database, Database::Sqlite(_));
        let store = match &settings.database {
            Database::Sqlite(path) => Store::sqlite(path, settings.clock.clone()).await?,
            Database::Postgres(url) => Store::postgres(url).await?,
        };
        let queue = match &settings.transport {
            Transport::Embedded(path) => Queue::Embedded(embedded::Embedded::open(path).await?),
            Transport::Rabbit(settings) => Queue::Rabbit(rabbit::Rabbit::connect(settings).await?),
        };
        let journal_settings = JournalSettings {
            directory: settings.state.join("journals"),
            host,
            days: settings.keep_days,
            bytes: settings.keep_bytes,
        };
        let journals = Journals::open(journal_settings, keys.clone(), Some(queue.clone()))?;
        let (notes, written) = mpsc::channel(WAITING_NOTES);
        let inner = Arc::new(Inner {
            host,
            name: settings.name,
            started: settings.clock.now(),
            place: identity::place(&settings.state),
            labels,
            capacity,
            usable: Mutex::new(capacity),
            acceleration,
            keep: Duration::from_secs(u64::from(settings.keep_days) * 24 * 3600),
            store,
            queue,
            keys,
            journals,
            machines,
            is_alone,
            clock: settings.clock,
            jumps: matches!(settings.database, Database::Sqlite(_))
                .then(|| Jumps::open(&settings.state)),
            workers: Mutex::default(),
            hands: Arc::default(),
            settling: Semaphore::new(SETTLED_TOGETHER),
            telling: Semaphore::new(1),
            wake: Notify::new(),
            draining: AtomicBool::new(false),
            notes,
            stop: CancellationToken::new(),
            working: TaskTracker::new(),
        });
        inner.look_at_host().await;
        // A host that lives with the same id is found here, before anything is touched.
        inner.announce_first().await?;
        inner.follow_clock().await?;
        inner.recover().await?;
        let tasks = TaskTracker::new();
        inner.spawn_loops(&tasks, written);
        Ok(Self { inner, tasks })
    }

    /// This host.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.inner.host
    }

    /// The queue of this service, for forge runners of the same process.
    #[must_use]
    pub fn queue(&self) -> Queue {
        self.inner.queue.clone()
    }

    /// The keys of the installation, for forge runners of the same process.
    #[must_use]
    pub fn keys(&self) -> KeyRing {
        self.inner.keys.clone()
    }

    /// What operators ask and say.
    #[must_use]
    pub fn backend(&self) -> Arc<impl crate::api::Backend + use<>> {
        Arc::new(backend::Operators(Arc::clone(&self.inner)))
    }

    /// Takes nothing new, and waits until everything that runs has ended or `give_up` resolves.
    pub async fn drain(&self, give_up: impl Future<Output = ()>) {
        self.inner.draining.store(true, Ordering::SeqCst);
        self.inner.working.close();
        tokio::select! {
            () = self.inner.working.wait() => {}
            () = give_up => {}
        }
    }

    /// Ends the service. Jobs whose steps run are left in their machines, to be adopted by the next
    /// start; others begin again then.
    pub async fn stop(self) {
        let inner = &self.inner;
        inner.draining.store(true, Ordering::SeqCst);
        inner.stop.cancel();
        for worker in inner.workers().values() {
            worker.words.leave.cancel();
        }
        inner.working.close();
        if timeout(LEAVE, inner.working.wait()).await.is_err() {
            tracing::warn!(
                "some jobs could not be left in time; they are settled at the next start"
            );
        }
        self.tasks.close();
        if timeout(LEAVE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some loops did not end in time");
        }
        inner.journals.close().await;
        if let Err(error) = inner.store.depart(inner.host).await {
            tracing::warn!(%error, "cannot record that this host has gone");
        }
        inner.queue.close().await;
        inner.store.close().await;
        inner.machines.shutdown().await;
    }
}

impl Inner {
    fn spawn_loops(self: &Arc<Self>, tasks: &TaskTracker, notes: mpsc::Receiver<Note>) {
        let inner = Arc::clone(self);
        tasks.spawn(async move { inner.take_in().await });
        let inner = Arc::clone(self);
        tasks.spawn(async move { inner.listen().await });
        let inner = Arc::clone(self);
        tasks.spawn(async move { inner.schedule().await });
        let inner = Arc::clone(self);
        tasks.spawn(async move { inner.beat().await });
        let inner = Arc::clone(self);
        tasks.spawn(async move { inner.watch_host().await });
        let inner = Arc::clone(self);
        tasks.spawn(async move { inner.sweep().await });
        let inner = Arc::clone(self);
        tasks.spawn(async move { inner.write_notes(notes).await });
        let inner = Arc::clone(self);
        tasks.spawn(async move { inner.note_deliveries().await });
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<JobId, Worker>> {
        // The map is whole at every moment, whoever panicked.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// What this host says about itself now.
    fn report(&self) -> HostReport {
        heartbeat::report(self)
    }
}

/// A job's log cannot be kept.
pub(crate) fn journal_failure(error: &JournalError) -> Infrastructure {
    let cause = if error.is_full() { Cause::HostDiskFull } else { Cause::Internal };
    Infrastructure::new(cause, format!("the job's journal cannot be used: {error}"))
}

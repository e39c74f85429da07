//! The journals of one host's jobs: entries go into the job's segment file and
//! from there to its forge runner.
//!
//! ```text
//!  EventLog ─commit─▶ waiting entries ─▶ writer ─▶ segment file ─▶ publisher ─▶ queue
//!                     (bounded)             │        │    ╰──────▶ followers
//!      guest ◀─acknowledge─ synced ◀─ syncer ◀───────╯
//! ```
//!
//! - One writer and one syncer serve all jobs, on threads where blocking is allowed. A job costs a
//!   task only while it has somebody to publish to, and no timer.
//! - What waits for the writer is bounded for each job; everybody behind it reads from the file. An
//!   event can be published or read as soon as its whole entry is written, and is acknowledged to the
//!   guest as soon as it is on disk.
//! - A queue that cannot be used, or a slow forge runner, leaves events in the file and stops nothing
//!   else. A full disk stops the job, because its guest is not acknowledged and blocks.

mod error;
mod follow;
mod intake;
mod job;
mod publish;
mod retention;
mod syncer;
#[cfg(test)]
mod tests;
mod writer;

pub use crate::segment::SegmentError;
pub use error::JournalError;
pub use follow::Follower;
pub use intake::JournalSender;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use common::event::Finished;
use common::ids::{HostId, JobId};
use common::time::Timestamp;
use queue::message::Progress;
use queue::seal::KeyRing;
use queue::{Address, Queue};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::events::LogState;
use crate::segment::{self, Opened, Segment};
use job::{Job, Written};
use publish::Transport;
use syncer::Dirty;
use writer::Ready;

/// Publishers that may have a batch in memory at the same time.
const PUBLISHING: usize = 64;

/// How a host keeps its journals.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// Where the files lie; made with mode 0700.
    pub directory: PathBuf,
    /// This host, which forge runners tell how far they are.
    pub host: HostId,
    /// How many days the events of a finished job are kept.
    pub days: u32,
    /// How many bytes the events of finished jobs may take together; the oldest go first.
    pub bytes: u64,
}

/// The journals of one host's jobs. Dropped without [`Journals::close`] it leaves everything as a
/// crash would.
pub struct Journals {
    shared: Arc<Shared>,
    delivered: Mutex<Option<mpsc::Receiver<JobId>>>,
}

/// What the tasks share.
struct Shared {
    settings: JournalSettings,
    keys: KeyRing,
    transport: Option<Arc<dyn Transport>>,
    /// The jobs that are written or published.
    jobs: Mutex<HashMap<JobId, Arc<Job>>>,
    ready: Ready,
    dirty: Dirty,
    /// Bounds the memory of all publishers together.
    publishing: Semaphore,
    /// Addresses that cannot be published to; each is told of once.
    failing: Mutex<HashSet<Address>>,
    delivered: mpsc::Sender<JobId>,
    tasks: TaskTracker,
    /// No more publishing.
    stop: CancellationToken,
    /// The writer ends when it has nothing more to write.
    no_writer: CancellationToken,
    /// The syncer ends when everything is on disk.
    no_syncer: CancellationToken,
    /// Everything ends as it is.
    kill: CancellationToken,
}

/// A journal of an earlier process, or one that was given up in this.
#[derive(Debug)]
pub struct Reopened {
    /// The way on.
    pub sender: JournalSender,
    /// Where the log stands; absent if nothing was recorded.
    pub state: Option<LogState>,
    /// The job's final event, if it is there: then nothing may be added.
    pub finished: Option<Finished>,
}

impl Journals {
    /// Opens the directory, or makes it, and starts the writer and the syncer. Must be called in a
    /// tokio runtime. Without a queue nothing is published.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(
        settings: JournalSettings,
        keys: KeyRing,
        queue: Option<Queue>,
    ) -> io::Result<Arc<Self>> {
        Self::with_transport(settings, keys, queue.map(|queue| Arc::new(queue) as _))
    }

    fn with_transport(
        settings: JournalSettings,
        keys: KeyRing,
        transport: Option<Arc<dyn Transport>>,
    ) -> io::Result<Arc<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&settings.directory)?;
        std::fs::set_permissions(&settings.directory, Permissions::from_mode(0o700))?;
        // A delivery that waits keeps its publisher waiting, so a small number is enough.
        let (delivered, receiver) = mpsc::channel(PUBLISHING);
        let shared = Arc::new(Shared {
            settings,
            keys,
            transport,
            jobs: Mutex::default(),
            ready: Ready::default(),
            dirty: Dirty::default(),
            publishing: Semaphore::new(PUBLISHING),
            failing: Mutex::default(),
            delivered,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            no_writer: CancellationToken::new(),
            no_syncer: CancellationToken::new(),
            kill: CancellationToken::new(),
        });
        shared.tasks.spawn(writer::run(Arc::clone(&shared)));
        shared.tasks.spawn(syncer::run(Arc::clone(&shared)));
        Ok(Arc::new(Self { shared, delivered: Mutex::new(Some(receiver)) }))
    }

    /// Makes the journal of a job and begins to publish what comes, if there is an address.
    ///
    /// # Errors
    /// It exists already, or the file system refuses.
    pub fn create(
        &self,
        job: JobId,
        reply_to: Option<Address>,
    ) -> Result<JournalSender, JournalError> {
        let mut jobs = self.shared.jobs();
        if jobs.contains_key(&job)
            || retention::find(&self.shared.settings.directory, job).is_some()
        {
            return Err(JournalError::Exists { job });
        }
        let path = retention::path(&self.shared.settings.directory, job);
        let segment = Segment::create(&path, job)
            .map_err(|error| JournalError::Segment { path, error: error.into() })?;
        Ok(self.shared.begin(&mut jobs, job, reply_to, segment, ((0, 0), false), None))
    }

    /// Goes on with a journal: of an earlier process, or one of this process whose sender is cut off
    /// by it. Publishing begins again at the start of the file: who has events already drops them.
    /// `None` if there is no journal.
    ///
    /// Reads the whole file, so it takes a while for a large one.
    ///
    /// # Errors
    /// The file is damaged, its key is missing, or it cannot be used.
    pub fn reopen(
        &self,
        job: JobId,
        reply_to: Option<Address>,
    ) -> Result<Option<Reopened>, JournalError> {
        let known = self.shared.jobs().get(&job).cloned();
        if let Some(known) = &known {
            known.cut_off(&self.shared)?;
            self.shared.forget(known);
        }
        let Some(path) = retention::find(&self.shared.settings.directory, job) else {
            return Ok(None);
        };
        let opened = segment::open(&path, job, &self.shared.keys)
            .map_err(|error| JournalError::Segment { path, error })?;
        let Some(Opened { mut segment, state, last }) = opened else { return Ok(None) };
        let finished = state.as_ref().and_then(|state| state.finished.clone());
        if finished.is_some() {
            let path = retention::done(&self.shared.settings.directory, job);
            let renamed = segment.rename(path);
            renamed.map_err(|error| {
                let path = segment.path().to_owned();
                JournalError::Segment { path, error: error.into() }
            })?;
        }
        let mut jobs = self.shared.jobs();
        if jobs.contains_key(&job) {
            return Err(JournalError::Exists { job });
        }
        let before = known.map(|known| known.written_sender());
        let recorded = (last, finished.is_some());
        let sender = self.shared.begin(&mut jobs, job, reply_to, segment, recorded, before);
        Ok(Some(Reopened { sender, state, finished }))
    }

    /// Whether a job's journal is open: its events are written or published.
    #[must_use]
    pub fn is_open(&self, job: JobId) -> bool {
        self.shared.jobs().contains_key(&job)
    }

    /// Puts the file of a job aside that cannot be used, for people to look at: its name gets the
    /// end `damaged`, and it is removed like any other when its time is over.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(&self, job: JobId) -> std::io::Result<()> {
        let directory = &self.shared.settings.directory;
        match retention::find(directory, job) {
            Some(path) => std::fs::rename(path, retention::damaged(directory, job)),
            None => Ok(()),
        }
    }

    /// The forge runner of a job has taken events.
    pub fn progress(&self, progress: Progress) {
        if let Some(job) = self.shared.jobs().get(&progress.job) {
            job.progress(progress);
        }
    }

    /// The events of a job from the first one, for operators; `None` if they are not kept (any
    /// more).
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn follow(&self, job: JobId) -> Result<Option<Follower>, JournalError> {
        let known = self.shared.jobs().get(&job).cloned();
        if let Some(known) = known {
            return Ok(Some(Follower::live(&known, self.shared.keys.clone())));
        }
        match retention::find(&self.shared.settings.directory, job) {
            Some(path) => Follower::kept(path, job, self.shared.keys.clone()),
            None => Ok(None),
        }
    }

    /// The jobs whose final event was taken by their forge runner. There is one receiver; a later
    /// call gets one that is closed.
    #[must_use]
    pub fn delivered(&self) -> mpsc::Receiver<JobId> {
        let receiver = self.delivered.lock().unwrap_or_else(PoisonError::into_inner).take();
        receiver.unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Whether there is a journal of this job.
    #[must_use]
    pub fn has(&self, job: JobId) -> bool {
        self.shared.jobs().contains_key(&job)
            || retention::find(&self.shared.settings.directory, job).is_some()
    }

    /// Removes journals of finished jobs that are too old, and the oldest of those that take too much
    /// room; also those that nobody has gone on with for as long.
    pub async fn sweep(&self, now: Timestamp) {
        let shared = Arc::clone(&self.shared);
        let swept = tokio::task::spawn_blocking(move || retention::sweep(&shared, now)).await;
        if let Err(error) = swept {
            tracing::error!(%error, "the sweep of the journals failed");
        }
    }

    /// Ends publishing, cuts off all senders, and returns when everything that was committed is on
    /// disk.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        let jobs: Vec<_> = self.shared.jobs().values().cloned().collect();
        for job in &jobs {
            job.close();
        }
        self.shared.no_writer.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.jobs().clear();
    }

    /// Ends as a crash would, and returns when nothing is written any more.
    #[cfg(test)]
    async fn crash(&self) {
        self.shared.kill.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Journals {
    fn drop(&mut self) {
        self.shared.kill.cancel();
    }
}

impl fmt::Debug for Journals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journals").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failing(&self) -> MutexGuard<'_, HashSet<Address>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in: its entries are written and its events published from now on.
    fn begin(
        self: &Arc<Self>,
        jobs: &mut HashMap<JobId, Arc<Job>>,
        id: JobId,
        reply_to: Option<Address>,
        segment: Segment,
        recorded: ((u32, u64), bool),
        before: Option<watch::Sender<Written>>,
    ) -> JournalSender {
        let to = reply_to.zip(self.transport.clone());
        let job = Arc::new(Job::new(id, segment, recorded, to.is_some(), before));
        let sender = JournalSender::new(Arc::downgrade(self), Arc::clone(&job));
        if recorded.1 || self.stop.is_cancelled() {
            job.close();
        }
        if let Some((address, transport)) = to {
            self.tasks.spawn(publish::run(Arc::clone(self), Arc::clone(&job), address, transport));
        }
        if !job.is_over() {
            jobs.insert(id, job);
        }
        sender
    }

    /// Lets go of a job that another one takes the place of.
    fn forget(&self, job: &Arc<Job>) {
        let mut jobs = self.jobs();
        if jobs.get(&job.id()).is_some_and(|known| Arc::ptr_eq(known, job)) {
            jobs.remove(&job.id());
        }
    }

    /// Lets go of a job with which nothing more is to be done: its final event is on disk and, where
    /// it goes to a forge runner, was taken there.
    fn retire(&self, job: &Arc<Job>) {
        if job.is_over() {
            self.forget(job);
        }
    }
}

/// What the senders hold, so that journals which are dropped are gone.
type SharedRef = Weak<Shared>;

//! What the orchestrators of an installation remember: jobs, tries, machines, hosts, reservations.
//!
//! The database is the schedule: every host takes its next job from the same table. A host's hold
//! on a job is a lease; what is written about a job must show the current one, so that a host that
//! was given up cannot change anything any more.
//!
//! ```text
//!  Store ── operations (SQL, written once) ── rules (what is decided: pure functions)
//!    │            │
//!    │         Session: one transaction on either database
//!    ├── sqlite:    one writer, whose transactions are shared; four readers
//!    └── postgres:  a transaction for each call; LISTEN and NOTIFY between hosts
//! ```
//!
//! Time is the store's own: the given clock for SQLite, the database's for PostgreSQL. After
//! [`StoreError::Unavailable`] it is not known whether a change was made. Every change can be asked
//! for again; what a lost answer of [`Store::claim`] gave is in [`Store::active`].

mod look;
mod migrations;
mod operations;
mod postgres;
mod rows;
mod rules;
mod session;
mod signal;
mod sqlite;
mod types;
mod value;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::event::{Finished, Phase};
use common::ids::{HostId, JobId, LeaseId, VmId};
use common::time::Timestamp;
use futures_util::future::BoxFuture;
use queue::message::{JobMessage, Release, Reserve, Reserved};
use uuid::Uuid;

use crate::clock::Clock;
use operations::{arriving, boots, claiming, ending, hosts, leased, reading, reservations};
use session::Session;

pub use look::Tables;
pub use types::{
    Accepted, Active, BootTimes, CancelOutcome, Claimed, HostReport, HostRow, Job, JobDetail,
    JobFilter, JobState, LabelOffer, NewJob, Room, Size, StoreError, TryRow,
};

/// How long a host that is not heard of keeps its jobs. Then others may take them over.
pub const LEASE: Duration = Duration::from_secs(60);
/// How long another process must have been silent before one with the same host id takes its place.
/// Three times as long as a host is silent at most, so that one lost heartbeat is no death.
pub const SILENT: Duration = Duration::from_secs(15);
/// How long a host must be gone before another one tells the ends of its jobs that their forge
/// runners have not taken: what it still had of their logs is lost then.
pub const GONE: Duration = Duration::from_secs(10 * 60);
/// How long the unused part of a reservation is held.
pub const RESERVATION: Duration = Duration::from_secs(15);
/// How long a job waits while smaller ones start before it. Then a host that could run it keeps its
/// room for it.
pub const STARVING: Duration = Duration::from_secs(10 * 60);
/// How long the wish to end a job that is not known is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// How long a host may take until it does something with a job that it took.
pub const CLAIMED: Duration = Duration::from_secs(60);

/// The store of an installation, in a SQLite file or a PostgreSQL database. Clones share it.
///
/// Every method but [`Store::changed`] fails with [`StoreError::Unavailable`] while the database
/// cannot be used, and works again afterwards; with [`StoreError::Malformed`] if something is
/// stored that this program did not write. Its own section names only further errors.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Backend,
    /// With which id this process announced each host, so that it takes back only its own word.
    announced: Arc<Mutex<HashMap<HostId, Uuid>>>,
}

#[derive(Clone, Debug)]
enum Backend {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

type Result<T> = std::result::Result<T, StoreError>;

/// Opening, time and the end.
impl Store {
    /// Opens or makes a SQLite file, which only its owner can read. It is for one host.
    ///
    /// # Errors
    /// [`StoreError::Newer`], before anything is written.
    pub async fn sqlite(path: &Path, clock: Clock) -> Result<Self> {
        sqlite::Sqlite::open(path, clock).await.map(|store| Self::new(Backend::Sqlite(store)))
    }

    /// Opens a PostgreSQL database, which any number of hosts share, and makes or changes its
    /// tables where need be.
    ///
    /// # Errors
    /// [`StoreError::Newer`], before anything is written.
    pub async fn postgres(url: &str) -> Result<Self> {
        postgres::Postgres::open(url).await.map(|store| Self::new(Backend::Postgres(store)))
    }

    /// The time by which everything in the store is measured.
    pub async fn now(&self) -> Result<Timestamp> {
        if let Backend::Sqlite(store) = &self.backend {
            return Ok(store.clock().now());
        }
        self.read(|session| Box::pin(session.now())).await
    }

    /// Resolves when there may be something to claim or a reservation may be granted: a hint, which
    /// may come without a reason. One that came while nobody waited is not lost; calls that wait at
    /// the same time all resolve.
    pub async fn changed(&self) {
        match &self.backend {
            Backend::Sqlite(store) => store.signal().wait().await,
            Backend::Postgres(store) => store.signal().wait().await,
        }
    }

    /// Ends the connections after what was asked for is done. Every later call fails.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Sqlite(store) => store.close().await,
            Backend::Postgres(store) => store.close().await,
        }
    }
}

/// Hosts.
impl Store {
    /// A host's report, which is its heartbeat.
    ///
    /// `boot` is the id of the reporting process. A process that holds the lock on the host's state
    /// directory may go on with the id of its predecessor there; with another one it must wait
    /// until the predecessor has been silent for [`SILENT`]. How often others were refused for that
    /// since this process reported last.
    ///
    /// # Errors
    /// [`StoreError::HostIdInUse`] while another process reports for the same host.
    pub async fn announce(&self, report: &HostReport, boot: Uuid) -> Result<u32> {
        let (host, report) = (report.host, report.clone());
        let announced = self
            .write(move |session| {
                Box::pin(async move { hosts::announce(session, &report, boot).await })
            })
            .await;
        if let Err(StoreError::HostIdInUse { .. }) = announced {
            self.write(move |session| Box::pin(hosts::note_refusal(session, host))).await?;
        }
        let refused = announced?;
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).insert(host, boot);
        Ok(refused)
    }

    /// A clean end of the process that announced the host through this store: another may take its
    /// place at once. Jobs that it leaves stay the host's for the rest of [`LEASE`]; a host that
    /// leaves none is gone. Nothing if another process has taken its place already.
    pub async fn depart(&self, host: HostId) -> Result<()> {
        let boot = self.announced.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
        let Some(boot) = boot else { return Ok(()) };
        self.write(move |session| Box::pin(hosts::depart(session, host, boot))).await
    }

    /// Every host that is known, whether alive or not.
    pub async fn hosts(&self) -> Result<Vec<HostRow>> {
        self.read(|session| Box::pin(hosts::hosts(session))).await
    }

    /// Says whether a host takes nothing new, which outlives its process. False: it is not known.
    pub async fn set_draining(&self, host: HostId, draining: bool) -> Result<bool> {
        self.write(move |session| Box::pin(hosts::set_draining(session, host, draining))).await
    }

    /// Takes the jobs of hosts that were not heard of for [`LEASE`], those that only that host may run
    /// after [`GONE`], so that it can go on with them: each has a new lease, and its
    /// state is still the one in which it was lost. A job is given to one caller only.
    pub async fn take_over(&self, host: HostId) -> Result<Vec<Active>> {
        self.write(move |session| Box::pin(hosts::take_over(session, host))).await
    }
}

/// Jobs that wait.
impl Store {
    /// Takes jobs from the queue into the table, all or none; the answers are in the jobs' order.
    /// A job uses up a share of its reservation.
    pub async fn accept(&self, jobs: &[NewJob]) -> Result<Vec<Accepted>> {
        let jobs: Vec<_> = jobs.iter().map(arriving::Arrival::from).collect();
        self.write(move |session| Box::pin(arriving::accept(session, jobs))).await
    }

    /// Takes at most `most` waiting jobs that fit into the room together, by priority, then age. A
    /// job that fits starts before an older one that does not, unless that one has waited longer
    /// than [`STARVING`] and fits into the host's capacity. A host that is not alive or drains gets
    /// none.
    pub async fn claim(
        &self,
        host: HostId,
        room: Room,
        labels: &[LabelOffer],
        most: u32,
    ) -> Result<Vec<Claimed>> {
        let labels = labels.to_vec();
        self.write(move |session| {
            Box::pin(async move { claiming::claim(session, host, room, &labels, most).await })
        })
        .await
    }

    /// Gives the host one waiting job, whatever the room and also if its end was asked for: not to
    /// run it, but to end it, so its state is finishing and it has no size. `None` if it does not
    /// wait any more.
    pub async fn take(&self, job: JobId, host: HostId) -> Result<Option<Claimed>> {
        self.write(move |session| Box::pin(claiming::take(session, job, host))).await
    }

    /// Waiting jobs whose end was asked for.
    pub async fn cancelled_queued(&self) -> Result<Vec<Job>> {
        self.read(|session| Box::pin(reading::cancelled_queued(session))).await
    }

    /// Jobs that wait longer than they may.
    pub async fn overdue_queued(&self) -> Result<Vec<Job>> {
        self.read(|session| Box::pin(reading::overdue_queued(session))).await
    }

    /// Moves the deadlines of all jobs that are not over by so many microseconds, after the clock by
    /// which they were written has jumped.
    pub async fn move_deadlines(&self, micros: i64) -> Result<()> {
        self.write(move |session| Box::pin(leased::move_deadlines(session, micros))).await
    }

    /// Waiting jobs that no live host can ever run, each with the reason as a sentence. Hosts that
    /// drain count. Nothing while no host is alive.
    pub async fn unrunnable(&self) -> Result<Vec<(Job, String)>> {
        self.read(|session| Box::pin(reading::unrunnable(session))).await
    }

    /// Grants a reservation. The same question within [`RESERVATION`] has the same answer.
    pub async fn reserve(&self, question: &Reserve) -> Result<Reserved> {
        let question = question.clone();
        self.write(move |session| {
            Box::pin(async move { reservations::reserve(session, &question).await })
        })
        .await
    }

    /// Takes a part of a reservation back; more than is left of it is what is left.
    pub async fn release(&self, release: Release) -> Result<()> {
        self.write(move |session| Box::pin(reservations::release(session, release))).await
    }
}

/// Jobs that a host has. All of these fail with [`StoreError::LeaseLost`] if `lease` is not the
/// job's.
impl Store {
    /// Moves a job to another leased state, which must be over after `budget`. True: its end was
    /// asked for.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Refused`] for a state that is not leased.
    pub async fn advance(
        &self,
        job: JobId,
        lease: LeaseId,
        to: JobState,
        budget: Duration,
    ) -> Result<bool> {
        self.write(move |session| Box::pin(leased::advance(session, job, lease, to, budget))).await
    }

    /// Notes the machine of the current try.
    pub async fn attach_vm(&self, job: JobId, lease: LeaseId, vm: VmId) -> Result<()> {
        self.write(move |session| Box::pin(leased::attach_vm(session, job, lease, vm))).await
    }

    /// Notes that a step of the user has started: from now on the job is never run again.
    pub async fn step_started(&self, job: JobId, lease: LeaseId) -> Result<()> {
        self.write(move |session| Box::pin(leased::step_started(session, job, lease))).await
    }

    /// Notes how long a phase of the current try took.
    pub async fn phase(
        &self,
        job: JobId,
        lease: LeaseId,
        phase: Phase,
        took: Duration,
    ) -> Result<()> {
        self.write(move |session| Box::pin(leased::phase(session, job, lease, phase, took))).await
    }

    /// Ends the current try, with the stable code of its infrastructure's failure. Further calls
    /// change nothing.
    pub async fn end_try(&self, job: JobId, lease: LeaseId, cause: Option<&str>) -> Result<()> {
        let cause = cause.map(str::to_owned);
        self.write(move |session| {
            Box::pin(async move { leased::end_try(session, job, lease, cause.as_deref()).await })
        })
        .await
    }

    /// Begins a further try on the same host under the same lease; its number.
    pub async fn begin_try(&self, job: JobId, lease: LeaseId) -> Result<u32> {
        self.write(move |session| Box::pin(leased::begin_try(session, job, lease))).await
    }

    /// Puts a job back among those that wait, where its age counts from when it was accepted.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Refused`] if a step of the user has started.
    pub async fn requeue(&self, job: JobId, lease: LeaseId) -> Result<()> {
        self.write(move |session| Box::pin(leased::requeue(session, job, lease))).await
    }

    /// The jobs that a host has, oldest first, for when its process starts again.
    pub async fn active(&self, host: HostId) -> Result<Vec<Active>> {
        self.read(move |session| Box::pin(reading::active(session, host))).await
    }
}

/// The end of jobs.
impl Store {
    /// Ends a job. True for exactly one caller, who owes the final event; false if it was over.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] if the lease is not the job's; without one, if a live host has the
    /// job; if the job is not known.
    pub async fn finish(
        &self,
        job: JobId,
        lease: Option<LeaseId>,
        finished: &Finished,
    ) -> Result<bool> {
        let finished = finished.clone();
        self.write(move |session| {
            Box::pin(async move { ending::finish(session, job, lease, &finished).await })
        })
        .await
    }

    /// Asks for the end of a job, whoever has it. Nothing more happens here: the host that has the
    /// job, or who takes it for that, ends it.
    pub async fn cancel(&self, job: JobId) -> Result<CancelOutcome> {
        self.write(move |session| Box::pin(ending::cancel(session, job))).await
    }

    /// Jobs that this host ended and whose final event their forge runner has not taken, in the
    /// order of their end.
    pub async fn undelivered(&self, host: HostId) -> Result<Vec<Job>> {
        self.read(move |session| Box::pin(ending::undelivered(session, host))).await
    }

    /// Jobs that ended on hosts which are gone for [`GONE`], and whose final event their forge
    /// runners have not taken: from now on it is this host that owes it.
    pub async fn take_over_ends(&self, host: HostId) -> Result<Vec<Job>> {
        self.write(move |session| Box::pin(ending::take_over_ends(session, host))).await
    }

    /// Begins a try in which nothing but the end of a finished job is told; its number.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the job is not finished.
    pub async fn begin_telling(&self, job: JobId) -> Result<u32> {
        self.write(move |session| Box::pin(ending::begin_telling(session, job))).await
    }

    /// Notes that the final event of a job was taken.
    pub async fn delivered(&self, job: JobId) -> Result<()> {
        self.write(move |session| Box::pin(ending::delivered(session, job))).await
    }

    /// Forgets what is over for so long: jobs with their messages, hosts that are gone, and, after
    /// [`REMEMBERED`], wishes to end jobs that never came. How many jobs.
    pub async fn forget(&self, older_than: Duration) -> Result<u64> {
        self.write(move |session| Box::pin(ending::forget_others(session, older_than))).await?;
        let mut forgotten = 0;
        loop {
            let some = self
                .write(move |session| Box::pin(ending::forget_jobs(session, older_than)))
                .await?;
            forgotten += some;
            if some == 0 {
                return Ok(forgotten);
            }
        }
    }
}

/// What is asked.
impl Store {
    /// A job with everything that is known about it.
    pub async fn job(&self, job: JobId) -> Result<Option<JobDetail>> {
        self.read(move |session| Box::pin(reading::job(session, job))).await
    }

    /// The jobs that a filter names, newest first.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>> {
        let filter = filter.clone();
        self.read(move |session| Box::pin(async move { reading::jobs(session, &filter).await }))
            .await
    }

    /// A job's message.
    pub async fn message(&self, job: JobId) -> Result<Option<JobMessage>> {
        self.read(move |session| Box::pin(reading::message(session, job))).await
    }

    /// How many jobs that are not over there are in each state with each label.
    pub async fn counts(&self) -> Result<Vec<(JobState, String, u64)>> {
        self.read(|session| Box::pin(reading::counts(session))).await
    }

    /// What the last 100 boots of a kind of machine say about the next; nothing before the first.
    pub async fn boot_times(
        &self,
        image: &str,
        size: Size,
        acceleration: &str,
    ) -> Result<Option<BootTimes>> {
        let (image, acceleration) = (image.to_owned(), acceleration.to_owned());
        self.read(move |session| {
            Box::pin(async move { boots::boot_times(session, &image, size, &acceleration).await })
        })
        .await
    }

    /// Remembers how long a machine took to boot.
    pub async fn booted(
        &self,
        image: &str,
        size: Size,
        acceleration: &str,
        took: Duration,
    ) -> Result<()> {
        let (image, acceleration) = (image.to_owned(), acceleration.to_owned());
        self.write(move |session| {
            Box::pin(async move { boots::booted(session, &image, size, &acceleration, took).await })
        })
        .await
    }

    fn new(backend: Backend) -> Self {
        Self { backend, announced: Arc::default() }
    }

    async fn read<T, F>(&self, question: F) -> Result<T>
    where
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T>>,
    {
        session::in_time(async {
            let mut session = match &self.backend {
                Backend::Sqlite(store) => store.read().await?,
                Backend::Postgres(store) => store.read().await?,
            };
            question(&mut session).await
        })
        .await
    }

    async fn write<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T>> + Send + 'static,
    {
        session::in_time(async {
            match &self.backend {
                Backend::Sqlite(store) => store.write(change).await,
                Backend::Postgres(store) => store.write(change).await,
            }
        })
        .await
    }
}

//! What goes into the store and comes out of it.

use std::time::Duration;

use common::event::{Finished, Phase};
use common::ids::{HostId, JobId, LeaseId, VmId};
use common::request::{Envelope, Forge};
use common::size::ByteSize;
use common::time::Timestamp;
use queue::message::JobMessage;
use serde::{Deserialize, Serialize};

/// Where a job stands.
///
/// ```text
///  queued ─▶ claimed ─▶ preparing ─▶ booting ─▶ ready ─▶ running ─▶ finishing ─▶ done
///     ▲          └──────────┴───────────┴─────────┴─── try again ──┐      ▲
///     └───────────────────────────────────────────────────────────-┘      │
///  any of them ─▶ cancelling ──────────────────────────────────────────── ┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits in the table.
    Queued,
    /// A host has it and has done nothing yet.
    Claimed,
    /// The image is fetched, room is waited for, the machine is made.
    Preparing,
    /// The guest boots.
    Booting,
    /// The guest is reached; the guest program and the tree are placed.
    Ready,
    /// The steps run.
    Running,
    /// The steps are over; the machine goes, the last events are written.
    Finishing,
    /// Its end was asked for.
    Cancelling,
    /// It is over and has its final event.
    Done,
}

impl JobState {
    /// Every state, in order.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Claimed,
        Self::Preparing,
        Self::Booting,
        Self::Ready,
        Self::Running,
        Self::Finishing,
        Self::Cancelling,
        Self::Done,
    ];

    /// The name in the database and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Preparing => "preparing",
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Cancelling => "cancelling",
            Self::Done => "done",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether the job's steps may have begun on a host that said this last.
    #[must_use]
    pub fn may_have_begun(self) -> bool {
        matches!(self, Self::Running | Self::Finishing | Self::Cancelling)
    }

    /// Whether a host has the job and its machine counts against that host's room.
    #[must_use]
    pub fn is_leased(self) -> bool {
        !matches!(self, Self::Queued | Self::Done)
    }
}

/// A machine's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory of the guest.
    pub memory: ByteSize,
}

/// A label that a host can run, and the size of a machine that asks for none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelOffer {
    /// The label.
    pub label: String,
    /// The size by default.
    pub size: Size,
}

/// What a host says about itself every few seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// Which host.
    pub host: HostId,
    /// Its name for people.
    pub name: String,
    /// What it can run.
    pub labels: Vec<LabelOffer>,
    /// Everything that jobs of this installation may use on it together, whether in use now or not.
    pub capacity: Size,
    /// What of that other programs' machines on the host leave to its jobs now.
    pub usable: Size,
    /// `kvm` or `tcg`.
    pub acceleration: String,
    /// Load average of the last minute, in hundredths.
    pub load: u32,
    /// Whether it takes nothing new. Counts only in a host's first report; afterwards operators say
    /// it with [`crate::store::Store::set_draining`].
    pub draining: bool,
    /// The program's version.
    pub version: String,
}

/// A host as the installation sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostRow {
    /// What it said last.
    pub report: HostReport,
    /// When, by the database's clock.
    pub heartbeat: Timestamp,
    /// Whether its jobs are still its own.
    pub alive: bool,
    /// Jobs that it has.
    pub jobs: u32,
    /// What their machines use together.
    pub used: Size,
}

/// Room for machines on one host, at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What is free.
    pub free: Size,
    /// What the host has in all, for jobs that must wait until it is empty.
    pub capacity: Size,
}

/// A job that came from the queue.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The message, decoded and checked.
    pub message: JobMessage,
    /// The machine's size, as far as the accepting host knows the label.
    pub size: Option<Size>,
    /// The only host that may run it: that of the user who waits for it there. `None` for any.
    pub only: Option<HostId>,
}

/// What became of a job that came from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is in the table.
    New,
    /// It is in the table, but its reservation is not valid: it waits like any other.
    WithoutReservation,
    /// It was there already, with the same content.
    Known,
    /// Its id was there already with another content: refused.
    Conflict,
    /// Its end was asked for before it came: it is in the table, but no host starts it; whoever
    /// accepted it ends it with [`crate::store::Store::take`].
    Cancelled,
}

/// A job that a host took.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The job.
    pub message: JobMessage,
    /// The hold on it.
    pub lease: LeaseId,
    /// Which try begins: 1 for the first.
    pub try_number: u32,
    /// The machine's size.
    pub size: Size,
    /// Tries that a failure of the infrastructure ended.
    pub failures: u32,
    /// When it was accepted.
    pub created: Timestamp,
    /// Whether it was claimed from its forge without a valid reservation.
    pub unreserved: bool,
}

/// A job as operators see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Where it comes from.
    pub forge: Forge,
    /// Its repository.
    pub repository: String,
    /// Its label.
    pub label: String,
    /// Its priority.
    pub priority: i32,
    /// Where it stands.
    pub state: JobState,
    /// Since when.
    pub since: Timestamp,
    /// When this state must be over.
    pub deadline: Option<Timestamp>,
    /// The machine's size, once known.
    pub size: Option<Size>,
    /// The only host that may run it; `None` for any.
    #[serde(default)]
    pub only: Option<HostId>,
    /// The host that has or had it.
    pub host: Option<HostId>,
    /// That host's hold on it.
    pub lease: Option<LeaseId>,
    /// Tries that were begun.
    pub tries: u32,
    /// Whether a step of the user has started: then it is never run again.
    pub user_step_started: bool,
    /// Whether its end was asked for.
    pub cancel_requested: bool,
    /// When it was accepted.
    pub created: Timestamp,
    /// When a host took it first.
    pub claimed: Option<Timestamp>,
    /// How it ended.
    pub finished: Option<Finished>,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// A job with everything that is known about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobDetail {
    /// The job.
    pub job: Job,
    /// Its tries.
    pub tries: Vec<TryRow>,
    /// What schedulers read of its request.
    pub envelope: Envelope,
}

/// One try of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TryRow {
    /// From 1.
    pub number: u32,
    /// The host.
    pub host: HostId,
    /// The machine, once there is one.
    pub vm: Option<VmId>,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The stable code of the infrastructure's failure, if it ended by one.
    pub cause: Option<String>,
    /// How long each phase took.
    pub phases: Vec<(Phase, Duration)>,
}

/// A job with its message, for whoever has to go on with it.
#[derive(Clone, Debug)]
pub struct Active {
    /// The job.
    pub job: Job,
    /// Its message.
    pub message: JobMessage,
    /// The machine of its current try.
    pub vm: Option<VmId>,
    /// Tries that a failure of the infrastructure ended.
    pub failures: u32,
}

/// What became of a request to end a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The job is not known; the request is remembered for a day.
    Remembered,
    /// It waits in the table, and no host starts it any more: whoever asked ends it with
    /// [`crate::store::Store::take`].
    WasQueued,
    /// This host has it and must end it.
    Leased(HostId),
    /// It is over already.
    WasDone,
}

/// Which jobs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct JobFilter {
    /// Only in these states; empty means all.
    pub states: Vec<JobState>,
    /// Only of this repository.
    pub repository: Option<String>,
    /// Only with this label.
    pub label: Option<String>,
    /// At most so many, newest first; 0 means 1000.
    pub most: u32,
}

/// How long boots of one kind of machine took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootTimes {
    /// Successes that are remembered.
    pub count: u32,
    /// Their median.
    pub median: Duration,
    /// The longest.
    pub longest: Duration,
}

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be used now; the caller may try again.
    #[error("the database cannot be used: {reason}")]
    Unavailable {
        /// What failed.
        reason: String,
    },
    /// The database is from a newer program.
    #[error(
        "the database has version {found}, this program knows up to {known}; start the newer program again, or restore a backup"
    )]
    Newer {
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The job is not this lease's any more: another host has it, or it is over.
    #[error("job {job} is not held by this host any more")]
    LeaseLost {
        /// The job.
        job: JobId,
    },
    /// The job must not get where the caller wants it; a defect of the program.
    #[error("job {job} cannot do that: {reason}")]
    Refused {
        /// The job.
        job: JobId,
        /// The rule.
        reason: &'static str,
    },
    /// A live orchestrator announces itself with the same host id.
    #[error(
        "another orchestrator runs with host id {host} (it calls itself {name:?}); remove the copied `host-id` file on one of them"
    )]
    HostIdInUse {
        /// The id.
        host: HostId,
        /// The other's name.
        name: String,
    },
    /// What is stored cannot be understood.
    #[error("the database holds something that cannot be read: {reason}")]
    Malformed {
        /// What.
        reason: String,
    },
}

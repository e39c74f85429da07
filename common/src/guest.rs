//! The conversation between the orchestrator and the guest program.
//!
//! ```text
//!  orchestrator                                  guest
//!      │ exec `workflow-runner start`, job document on stdin
//!      │──────────────────────────────────────────▶│ detaches, keeps the document in memory
//!      │ exec `workflow-runner attach`             │
//!      │── ToGuest::Attach {from} ────────────────▶│
//!      │◀───────────── FromGuest::Attached {..} ───│
//!      │◀───────────── FromGuest::Event {seq, ..} ─│  every event from `from` on, in order
//!      │── ToGuest::Ack {seq} ────────────────────▶│  the spool forgets up to seq
//!      │── ToGuest::Cancel ───────────────────────▶│
//! ```
//!
//! Frames are described in [`crate::frame`]. A lost connection costs nothing: the next attach says
//! from which sequence number it wants the events, and the guest sends them again. An attach that
//! was answered replaces the connection before it, which the guest closes without a word.
//!
//! Beside the events the guest program makes calls, which are described in [`crate::call`]. They came
//! later than this version of the conversation: a guest program that knows none makes none.
//!
//! After the host has acknowledged [`GuestEvent::Finished`] the guest closes the connection,
//! removes its run directory and ends. A later attach is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::call::{Ask, Reply};
use crate::event::{Annotation, JobResult, LogBatch, StepFinished, StepStarted, Summary};
use crate::ids::JobId;
use crate::plan::Plan;
use crate::request::{Contexts, Secret};

/// The version of this conversation that this program speaks.
pub const ATTACH_VERSION: u16 = 1;

/// The first word of the one line that `workflow-runner start` prints when the job runs; the version
/// of the conversation and the job's id follow, each after a space.
pub const START_WORD: &str = "solstice-guest";

/// The exit code of the guest program when the file system that it writes to has no room: sysexits'
/// `EX_CANTCREAT`.
pub const EXIT_DISK_FULL: u8 = 73;

/// Where the guest program keeps a directory for each job, with its socket, on every system.
pub const RUN_DIRECTORY: &str = "/var/tmp/solstice";

/// Everything that the guest program must know about a job. JSON, on the standard input of
/// `workflow-runner start`; never a file in the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobDocument {
    /// [`ATTACH_VERSION`] when written by this program.
    pub version: u16,
    /// The job.
    pub job: JobId,
    /// What to do.
    pub plan: Plan,
    /// The contexts that the forge delivered.
    pub contexts: Contexts,
    /// The job's secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Facts about the machine that stand in the `runner` context and in `RUNNER_*`.
    pub runner: RunnerFacts,
    /// The directory below which the workspace, temporary and tool directories lie.
    pub work_directory: String,
    /// The user that the steps run as, by name; absent means the user of the guest program.
    pub run_as: Option<String>,
    /// The label by which the job found this machine; absent where nobody chose by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether the tree is placed in the workspace before the first step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkout_first: bool,
    /// The directory with the local tree that `actions/checkout` places in the workspace, where
    /// there is one.
    pub tree: Option<String>,
    /// The services that the job reaches through the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<GuestService>,
    /// When the guest program stands for an action whose version is a commit.
    #[serde(default, skip_serializing_if = "NativeCommits::is_default")]
    pub native_commits: NativeCommits,
}

/// When the guest program does what an action does whose version is a commit, which may be of any
/// version: whoever writes one trusts that commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NativeCommits {
    /// Always.
    Always,
    /// Where the machine has no node, and so cannot run the original.
    #[default]
    WithoutNode,
    /// Never: the original runs, or the step fails.
    Never,
}

impl NativeCommits {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A service that the job reaches through the host, as the guest program knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestService {
    /// By what the host is asked for it.
    pub name: String,
    /// Where it is; empty for one of the host's own.
    pub base_url: String,
    /// By what programs show whose they are; the host adds it where they do not.
    pub token: Option<Secret>,
    /// What stands before the paths that may be asked for.
    pub paths: Vec<String>,
}

/// Facts about the machine, from the image catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerFacts {
    /// `runner.os`: Linux, FreeBSD, NetBSD, OpenBSD, illumos.
    pub os: String,
    /// `runner.arch`: X64, ARM64, ...
    pub arch: String,
    /// `runner.name`.
    pub name: String,
    /// `runner.tool_cache`.
    pub tool_cache: String,
}

/// What the guest program reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestEvent {
    /// A step began.
    StepStarted(StepStarted),
    /// A step ended or was skipped.
    StepFinished(StepFinished),
    /// Lines of the log.
    Log(LogBatch),
    /// A value that must not be seen in any later event of the job.
    Mask(Secret),
    /// The job's outputs.
    Outputs(BTreeMap<String, String>),
    /// The summary that a step wrote.
    Summary(Summary),
    /// A finding at a place.
    Annotation(Annotation),
    /// The guest program could not write what the job needs, because the disk is full: the sentence
    /// says what and where. The job fails for it; only [`GuestEvent::Finished`] follows.
    DiskFull(String),
    /// The job is over. Nothing follows.
    Finished(JobResult),
}

/// A frame to the guest program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGuest {
    /// The first frame: what the host speaks, and the first event that it has not got.
    Attach {
        /// [`ATTACH_VERSION`].
        version: u16,
        /// The next event wanted, from 1.
        from: u64,
    },
    /// The host has every event up to and with this one. An event that was never sent cannot be
    /// acknowledged: the connection is refused.
    Ack {
        /// Sequence number.
        seq: u64,
    },
    /// About a call that the guest has made.
    Call {
        /// Its number.
        call: u32,
        /// What there is to say.
        reply: Reply,
    },
    /// End the job: the running step by the dialect's ladder, then the steps whose condition asks
    /// to run after a cancel.
    Cancel,
}

/// A frame from the guest program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGuest {
    /// The answer to [`ToGuest::Attach`].
    Attached {
        /// [`ATTACH_VERSION`].
        version: u16,
        /// The job that runs.
        job: JobId,
        /// The first event that will be sent: `from`, or later if earlier ones were acknowledged
        /// and are gone.
        next: u64,
    },
    /// One event. Numbers start at 1 and have no holes.
    Event {
        /// Sequence number.
        seq: u64,
        /// What happened.
        event: GuestEvent,
    },
    /// About a call to the host.
    Call {
        /// Its number. Those of one connection rise.
        call: u32,
        /// What there is to say.
        ask: Ask,
    },
    /// The guest program cannot serve this connection and closes it; the reason is for people.
    Refused {
        /// A sentence.
        reason: String,
    },
}

#[cfg(test)]
mod recorded;

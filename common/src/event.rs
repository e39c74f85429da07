//! JobEvent: what happens to a job, in the order in which it happened.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::JobId;
use crate::infrastructure::Infrastructure;
use crate::text::LogText;
use crate::time::Timestamp;

/// One event of one job.
///
/// `seq` starts at 1 in each try and has no holes. Each job has exactly one
/// [`EventBody::Finished`], as the last event of its last try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    /// The job.
    pub job: JobId,
    /// Our own count from 1: a retry after an infrastructure failure is a new try.
    #[serde(rename = "try")]
    pub try_number: u32,
    /// The place of this event in its try, from 1.
    pub seq: u64,
    /// When the host recorded it.
    pub time: Timestamp,
    /// What happened.
    pub event: EventBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventBody {
    /// A phase of the job began or ended.
    Phase(PhaseEvent),
    /// A step began.
    StepStarted(StepStarted),
    /// A step ended or was skipped. A skipped step has no [`EventBody::StepStarted`].
    StepFinished(StepFinished),
    /// Lines of the log.
    Log(LogBatch),
    /// The job's outputs.
    Outputs(BTreeMap<String, String>),
    /// The summary that a step wrote.
    Summary(Summary),
    /// A finding at a place, made by a workflow command or problem matcher.
    Annotation(Annotation),
    /// A failed machine is kept for its user.
    Kept(Kept),
    /// A person may look into the failed machine, or may no longer.
    Debug(DebugSession),
    /// The job is over. Nothing follows.
    Finished(Finished),
}

/// The phases of a job before, around and after its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for room on a host.
    Queue,
    /// Fetching or building the image.
    Image,
    /// From starting QEMU to an answer of the guest's SSH server.
    Boot,
    /// From the first answer to an authenticated connection.
    Ready,
    /// Placing the guest program and the local tree.
    Upload,
    /// The steps.
    Steps,
    /// Removing the machine.
    Cleanup,
}

impl Phase {
    /// The name as people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Image => "image",
            Self::Boot => "boot",
            Self::Ready => "ready",
            Self::Upload => "upload",
            Self::Steps => "steps",
            Self::Cleanup => "cleanup",
        }
    }
}

/// A phase began or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseEvent {
    /// Which one.
    pub phase: Phase,
    /// Absent when the phase began, else how long it took.
    pub took: Option<Duration>,
    /// A sentence for people, such as the image and its size.
    pub detail: Option<String>,
}

/// A step began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepStarted {
    /// The step in the forge's numbering.
    pub step: u32,
    /// Its name, evaluated.
    pub name: String,
    /// When, by the guest's clock.
    pub time: Timestamp,
}

/// A step ended or was skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepFinished {
    /// The step in the forge's numbering.
    pub step: u32,
    /// Its name, evaluated as far as possible.
    pub name: String,
    /// The result before `continue-on-error`.
    pub outcome: Conclusion,
    /// The result after `continue-on-error`.
    pub conclusion: Conclusion,
    /// How long it took.
    pub took: Duration,
    /// When it ended, by the guest's clock.
    pub time: Timestamp,
}

/// The result of a step or of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// It passed; a job, when every step did.
    Success,
    /// It failed; a job also when the infrastructure did.
    Failure,
    /// It was cancelled.
    Cancelled,
    /// Its condition was false.
    Skipped,
}

impl Conclusion {
    /// The name as the `steps`, `needs` and `job` contexts have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// Lines of the log, of one step or of the set-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogBatch {
    /// The step; absent for lines before the first or after the last step.
    pub step: Option<u32>,
    /// The lines in order.
    pub lines: Vec<LogLine>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the line was read, by the clock of who wrote it.
    pub time: Timestamp,
    /// Where it was written.
    pub stream: Stream,
    /// The bytes without the line end.
    pub text: LogText,
}

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output of a step.
    Stdout,
    /// Standard error of a step.
    Stderr,
    /// Solstice itself: headers, notices, errors of the engine.
    Runner,
    /// The machine's console.
    Console,
}

/// The summary that a step wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The step.
    pub step: u32,
    /// Markdown.
    pub markdown: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnotationLevel {
    /// `::notice::`.
    Notice,
    /// `::warning::`.
    Warning,
    /// `::error::`.
    Error,
}

/// A finding at a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Annotation {
    /// The step.
    pub step: u32,
    /// How bad it is.
    pub level: AnnotationLevel,
    /// What it says.
    pub message: String,
    /// Its title.
    pub title: Option<String>,
    /// The file, relative to the repository.
    pub file: Option<String>,
    /// First line, from 1.
    pub line: Option<u32>,
    /// Last line.
    pub end_line: Option<u32>,
    /// First column, from 1.
    pub column: Option<u32>,
    /// Last column.
    pub end_column: Option<u32>,
}

/// A failed machine is kept for its user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The name by which `solstice shell` and `solstice cp` find it.
    pub machine: String,
    /// When it is destroyed.
    pub until: Timestamp,
    /// Whether it was frozen to files, from which `solstice thaw` continues it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
}

/// A session in the machine of a failed job, for the person who triggered it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DebugSession {
    /// It is open.
    Opened {
        /// The command that leads into the machine. It lets nobody else in.
        command: String,
        /// When the machine is destroyed.
        until: Timestamp,
    },
    /// It is over, and the machine is gone.
    Closed,
}

/// The job is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The result.
    pub result: JobResult,
    /// The cause, where the infrastructure and not the job is to blame.
    pub infrastructure: Option<Infrastructure>,
}

/// The result of a job: the four results that a step has, under the same names.
pub type JobResult = Conclusion;

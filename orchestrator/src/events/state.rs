//! What must be remembered of a job's log so that another process can go on with it.

use std::time::{Duration, Instant};

use common::event::{Finished, JobResult, Phase};
use common::request::Secret;
use common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::masking::HeldLines;

/// Where the log of a job stands after an entry: with it and the job's request an
/// [`EventLog`](super::EventLog) goes on as if nothing had happened.
///
/// It holds values to mask and lines that are not masked yet, so it is sealed wherever it lies.
/// Fields that a program does not know are ignored, and those that are missing are as at the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogState {
    /// The current try, from 1; 0 before the first.
    #[serde(rename = "try")]
    pub try_number: u32,
    /// The last event of the try.
    pub seq: u64,
    /// Every event of the guest up to and with this one is in the log.
    pub guest_seq: u64,
    /// What the guest said of the whole job, once it did.
    pub result: Option<JobResult>,
    /// What the guest could not write for want of room, if it said so in this try.
    pub(super) disk_full: Option<String>,
    /// Whether a step of the user has started in any try.
    pub user_step_started: bool,
    /// The job's final event, once it is recorded. Nothing follows it.
    pub finished: Option<Finished>,
    pub(super) running: Option<RunningStep>,
    pub(super) phase: Option<(Phase, Begun)>,
    /// The step whose lines are held or were written last.
    pub(super) lines_of: Option<u32>,
    pub(super) counts: Counts,
    /// Lines that wait for the rest of a masked value.
    pub(super) held: HeldLines,
    /// The values to mask that were added since the entry before.
    pub(super) masks: Vec<Secret>,
}

impl LogState {
    /// Forgets the lines that wait to be masked, for a log whose job's secrets are unknown.
    #[must_use]
    pub(crate) fn without_held_lines(self) -> Self {
        Self { held: HeldLines::default(), ..self }
    }
}

/// How much of the limits is used up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) log_bytes: u64,
    pub(super) log_lines: u64,
    pub(super) log_full: bool,
    pub(super) own_lines: u64,
    pub(super) masks_full: bool,
    /// Of the running step.
    pub(super) annotations: u64,
    /// Events that are no lines and came from the guest.
    pub(super) others: u64,
    /// Bytes of summaries.
    pub(super) summaries: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunningStep {
    pub(super) step: u32,
    pub(super) name: String,
    pub(super) begun: Begun,
}

/// When something began: by a clock that cannot jump while this process lives, and by the wall clock
/// for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Begun {
    time: Timestamp,
    #[serde(skip)]
    instant: Option<Instant>,
}

impl Begun {
    pub(super) fn now() -> Self {
        Self { time: Timestamp::now(), instant: Some(Instant::now()) }
    }

    pub(super) fn elapsed(&self) -> Duration {
        match self.instant {
            Some(instant) => instant.elapsed(),
            None => Timestamp::now().since(self.time),
        }
    }
}

impl LogState {
    /// Takes the state of the next entry.
    pub(crate) fn advance(&mut self, next: Self) {
        let mut masks = std::mem::take(&mut self.masks);
        *self = next;
        masks.append(&mut self.masks);
        self.masks = masks;
    }

    /// The bytes of the values to mask that it brings along.
    pub(crate) fn mask_bytes(&self) -> usize {
        self.masks.iter().map(|mask| mask.expose().len()).sum()
    }
}

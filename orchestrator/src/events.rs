//! The events of one job on their way out: numbered, masked, bounded.
//!
//! Everything that leaves the orchestrator about a job goes through [`EventLog`]. It trusts nothing
//! that comes from the guest: a guest event that breaks the rules of the conversation is a
//! [`Violation`], and what is over a limit is cut with one notice.
//!
//! Recording never waits. [`EventLog::commit`] hands over what was recorded, together with the
//! [`LogState`] behind it, so that another process can go on exactly there.

mod outlet;
mod record;
mod state;

pub use outlet::{Entry, Outlet};
pub use state::LogState;

pub(crate) use outlet::raise;

use std::collections::VecDeque;
use std::time::Duration;

use common::JobId;
use common::event::{
    Conclusion, DebugSession, EventBody, Finished, JobEvent, JobResult, Kept, LogBatch, LogLine,
    Phase, PhaseEvent, StepFinished, Stream,
};
use common::infrastructure::{Cause, Infrastructure};
use common::time::Timestamp;
use tokio::sync::{oneshot, watch};

use crate::masking::{LineMasker, Masker};
use state::Begun;

/// How long a line may wait for the rest of a masked value before it is given out.
pub const HOLD_LINES: Duration = Duration::from_millis(200);

/// What an event takes in memory and in messages beside its texts, roughly, in bytes.
const EVENT_BYTES: usize = 128;

/// What a line takes beside its text, roughly, in bytes.
const LINE_BYTES: usize = 48;

/// A guest event that breaks the rules of the conversation, in a sentence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(String);

/// Nobody takes the events any more: their consumer is gone, or the journal is closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiver of the job's events is gone")]
pub struct ReceiverGone;

/// The events of one job on their way out.
#[derive(Debug)]
pub struct EventLog {
    job: JobId,
    steps: usize,
    outlet: Outlet,
    masker: Masker,
    lines: LineMasker,
    /// Lines that are masked and not in an event yet.
    ready: Vec<LogLine>,
    /// Everything else that is remembered; `held` in it is current only in a commit.
    state: LogState,
    /// Events that were not handed over yet.
    pending: VecDeque<JobEvent>,
    pending_bytes: usize,
    /// Whether the state changed since the last commit.
    is_changed: bool,
    /// Whether somebody will wait until what is pending is on disk.
    urgent: bool,
    /// Goes with the next entry.
    written: Option<oneshot::Sender<()>>,
    synced: watch::Sender<u64>,
}

impl EventLog {
    /// The log of a job with this many steps, whose secrets the masker knows.
    #[must_use]
    pub fn new(job: JobId, steps: usize, masker: Masker, outlet: Outlet) -> Self {
        Self::resume(job, steps, masker, outlet, LogState::default())
    }

    /// Goes on where the last entry ended. The masker knows the job's secrets; values that were
    /// added while it ran are in the state.
    #[must_use]
    pub fn resume(
        job: JobId,
        steps: usize,
        mut masker: Masker,
        outlet: Outlet,
        mut state: LogState,
    ) -> Self {
        for mask in std::mem::take(&mut state.masks) {
            masker.add(mask.expose());
        }
        let lines = LineMasker::resume(std::mem::take(&mut state.held));
        let synced = watch::Sender::new(state.guest_seq);
        Self {
            job,
            steps,
            outlet,
            masker,
            lines,
            ready: Vec::new(),
            state,
            pending: VecDeque::new(),
            pending_bytes: 0,
            is_changed: false,
            urgent: false,
            written: None,
            synced,
        }
    }

    /// Begins a try: its events and the guest's are numbered from 1 again.
    pub fn begin_try(&mut self, number: u32) {
        self.flush_lines();
        self.close_phase();
        self.state.try_number = number;
        self.state.seq = 0;
        self.state.guest_seq = 0;
        self.state.result = None;
        self.state.disk_full = None;
        self.state.running = None;
        self.state.phase = None;
        // What is still on its way to the disk is about another guest.
        self.synced = watch::Sender::new(0);
        self.is_changed = true;
        if self.masker.is_full() {
            self.warn_of_masks();
        }
    }

    /// Goes on in this try. A process that was killed may have lost its begin, which was on its way to
    /// the disk; no guest does anything before that is there.
    pub fn go_on_in_try(&mut self, number: u32) {
        if self.state.try_number < number {
            self.begin_try(number);
        }
    }

    /// The number of the current try, from 1.
    #[must_use]
    pub fn try_number(&self) -> u32 {
        self.state.try_number
    }

    /// The first event of the guest that was not recorded yet.
    #[must_use]
    pub fn next_guest_event(&self) -> u64 {
        self.state.guest_seq + 1
    }

    /// What the guest said of the whole job, once it did: then it has nothing more to say.
    #[must_use]
    pub fn result(&self) -> Option<JobResult> {
        self.state.result
    }

    /// Why the guest could not do its part of a job that failed, once it said how the job ended.
    #[must_use]
    pub fn failure(&self) -> Option<Infrastructure> {
        let message = self.state.disk_full.as_ref()?;
        (self.state.result == Some(JobResult::Failure))
            .then(|| Infrastructure::new(Cause::GuestDiskFull, message))
    }

    /// The last event of the guest of this try that is on disk, or with [`Outlet::Direct`] was handed
    /// over. Only such events may be acknowledged to the guest. Each try has a watch of its own.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<u64> {
        self.synced.subscribe()
    }

    /// Whether events wait for a commit.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether anything waits for a commit, be it only that a guest's event was taken.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.is_changed || self.has_events()
    }

    /// About how many bytes wait for a commit.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether a step of the user has started in any try: then nothing is ever run again.
    #[must_use]
    pub fn user_step_started(&self) -> bool {
        self.state.user_step_started
    }

    /// Notes that steps of the user may have run where nobody saw it, with the next event.
    pub(crate) fn set_user_step_started(&mut self) {
        self.state.user_step_started = true;
        self.is_changed = true;
    }

    /// Whether log lines are held back that [`EventLog::flush_lines`] would give out.
    #[must_use]
    pub fn is_holding_lines(&self) -> bool {
        self.lines.is_holding()
    }

    /// Ends the phase before, if there is one, and begins this one.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn phase(
        &mut self,
        phase: Phase,
        detail: Option<String>,
    ) -> Result<(), ReceiverGone> {
        self.close_phase();
        self.state.phase = Some((phase, Begun::now()));
        self.emit(EventBody::Phase(PhaseEvent { phase, took: None, detail }));
        self.commit().await
    }

    /// Ends the phase that runs, if one does.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn end_phase(&mut self) -> Result<(), ReceiverGone> {
        self.close_phase();
        self.commit().await
    }

    /// Reports a phase that is over already.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn phase_was(
        &mut self,
        phase: Phase,
        took: Duration,
        detail: Option<String>,
    ) -> Result<(), ReceiverGone> {
        self.close_phase();
        self.emit(EventBody::Phase(PhaseEvent { phase, took: None, detail: None }));
        self.emit(EventBody::Phase(PhaseEvent { phase, took: Some(took), detail }));
        self.commit().await
    }

    fn close_phase(&mut self) {
        let Some((phase, begun)) = self.state.phase.take() else { return };
        let took = Some(begun.elapsed());
        self.emit(EventBody::Phase(PhaseEvent { phase, took, detail: None }));
    }

    /// Writes lines of our own into the log: of the running step, else of the set-up.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn notice(&mut self, text: &str) -> Result<(), ReceiverGone> {
        self.write(Stream::Runner, text);
        self.commit().await
    }

    /// Writes lines of the machine's console into the log.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn console(&mut self, text: &str) -> Result<(), ReceiverGone> {
        self.write(Stream::Console, text);
        self.commit().await
    }

    fn write(&mut self, stream: Stream, text: &str) {
        let time = Timestamp::now();
        let lines = text.lines().map(|line| LogLine { time, stream, text: line.into() }).collect();
        let step = self.state.running.as_ref().map(|running| running.step);
        self.log(LogBatch { step, lines });
    }

    /// Ends the running step, if there is one, as failed or cancelled for a reason outside of it.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn abandon_step(
        &mut self,
        conclusion: Conclusion,
        reason: &str,
    ) -> Result<(), ReceiverGone> {
        self.flush_lines();
        self.write(Stream::Runner, reason);
        if let Some(running) = self.state.running.take() {
            self.emit(EventBody::StepFinished(StepFinished {
                step: running.step,
                name: running.name,
                outcome: conclusion,
                conclusion,
                took: running.begun.elapsed(),
                time: Timestamp::now(),
            }));
        }
        self.commit().await
    }

    /// Says that a failed machine is kept.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn kept(&mut self, kept: Kept) -> Result<(), ReceiverGone> {
        self.emit(EventBody::Kept(kept));
        self.commit().await
    }

    /// The last event of the job. Returns when it is in the segment file, or with
    /// [`Outlet::Direct`] was handed over; a receiver that is gone misses it there.
    ///
    /// # Errors
    /// It is not in the segment file and never comes there: the job has no end yet.
    pub async fn finish(
        mut self,
        result: JobResult,
        infrastructure: Option<Infrastructure>,
    ) -> Result<Finished, ReceiverGone> {
        let infrastructure = infrastructure.map(|cause| Infrastructure {
            message: self.masker.mask_text(&cause.message).into_owned(),
            ..cause
        });
        let finished = Finished { result, infrastructure };
        self.flush_lines();
        self.close_phase();
        self.state.finished = Some(finished.clone());
        self.emit(EventBody::Finished(finished.clone()));
        self.urgent = true;
        let (sender, written) = oneshot::channel();
        self.written = Some(sender);
        let committed = self.commit().await;
        match &self.outlet {
            Outlet::Journal(_) => {
                committed?;
                written.await.map_err(|_| ReceiverGone)?;
            }
            Outlet::Direct(_) if committed.is_err() => {
                tracing::warn!(job.id = %self.job, "nobody received the result of the job");
            }
            Outlet::Direct(_) => {}
        }
        Ok(finished)
    }

    /// Gives out lines that wait for the rest of a masked value.
    pub fn flush_lines(&mut self) {
        self.lines.flush(&self.masker, &mut self.ready);
        self.emit_lines();
    }

    /// Numbers an event.
    fn emit(&mut self, event: EventBody) {
        self.state.seq += 1;
        self.pending_bytes += event_bytes(&event);
        self.pending.push_back(JobEvent {
            job: self.job,
            try_number: self.state.try_number,
            seq: self.state.seq,
            time: Timestamp::now(),
            event,
        });
    }
}

/// What an event takes in memory and in messages, roughly, in bytes.
pub(crate) fn event_bytes(event: &EventBody) -> usize {
    EVENT_BYTES + text_bytes(event)
}

fn text_bytes(event: &EventBody) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    match event {
        EventBody::Log(batch) => batch.lines.iter().map(line_bytes).sum(),
        EventBody::Outputs(outputs) => {
            outputs.iter().map(|(name, value)| LINE_BYTES + name.len() + value.len()).sum()
        }
        EventBody::Summary(summary) => summary.markdown.len(),
        EventBody::Annotation(annotation) => {
            annotation.message.len() + text(&annotation.title) + text(&annotation.file)
        }
        EventBody::StepStarted(step) => step.name.len(),
        EventBody::StepFinished(step) => step.name.len(),
        EventBody::Phase(phase) => text(&phase.detail),
        EventBody::Finished(finished) => {
            finished.infrastructure.as_ref().map_or(0, |cause| cause.message.len())
        }
        EventBody::Debug(DebugSession::Opened { command, .. }) => command.len(),
        EventBody::Kept(_) | EventBody::Debug(DebugSession::Closed) => 0,
    }
}

fn line_bytes(line: &LogLine) -> usize {
    LINE_BYTES + line.text.as_bytes().len()
}

#[cfg(test)]
mod tests;

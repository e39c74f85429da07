//! The events of one job on their way out: numbered, masked, bounded.
//!
//! Everything that leaves the orchestrator about a job goes through [`EventLog`]. It trusts nothing
//! that comes from the guest: a guest event that breaks the rules of the conversation is a
//! [`Violation`], and what is over a limit is cut with one notice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::JobId;
use common::event::{
    Annotation, Conclusion, EventBody, Finished, JobEvent, JobResult, Kept, LogBatch, LogLine,
    Phase, PhaseEvent, StepFinished, StepStarted, Stream, Summary,
};
use common::guest::GuestEvent;
use common::infrastructure::Infrastructure;
use common::limits;
use common::time::Timestamp;
use tokio::sync::mpsc::{self, OwnedPermit};

use crate::masking::{Added, LineMasker, Masker};

/// The longest name of a step; the rest is cut. Forgejo keeps 255 bytes
/// (forgejo-runner-protocol 8.1).
const NAME_CHARACTERS: usize = 255;

/// Lines of Solstice itself that do not count towards a full log: what ends a job must be readable.
const OWN_LINES: u64 = 10_000;

/// A guest event that breaks the rules of the conversation, in a sentence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(String);

/// The consumer of the events is gone, so nobody can see the job any more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiver of the job's events is gone")]
pub struct ReceiverGone;

/// Why an event could not be recorded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// See [`Violation`].
    #[error(transparent)]
    Violation(#[from] Violation),
    /// See [`ReceiverGone`].
    #[error(transparent)]
    ReceiverGone(#[from] ReceiverGone),
}

/// The events of one job on their way out.
#[derive(Debug)]
pub struct EventLog {
    job: JobId,
    steps: usize,
    sender: mpsc::Sender<JobEvent>,
    masker: Masker,
    lines: LineMasker,
    /// Lines that are masked and not sent yet.
    ready: Vec<LogLine>,
    /// The step whose lines are in `lines` and `ready`.
    lines_of: Option<u32>,
    try_number: u32,
    seq: u64,
    running: Option<RunningStep>,
    user_step_started: bool,
    log_bytes: u64,
    log_lines: u64,
    log_full: bool,
    own_lines: u64,
    masks_full: bool,
    annotations: usize,
    phase: Option<(Phase, Instant)>,
}

#[derive(Debug)]
struct RunningStep {
    step: u32,
    name: String,
    since: Instant,
}

impl EventLog {
    /// The log of a job with this many steps, whose secrets the masker knows.
    pub fn new(job: JobId, steps: usize, masker: Masker, sender: mpsc::Sender<JobEvent>) -> Self {
        Self {
            job,
            steps,
            sender,
            masker,
            lines: LineMasker::default(),
            ready: Vec::new(),
            lines_of: None,
            try_number: 0,
            seq: 0,
            running: None,
            user_step_started: false,
            log_bytes: 0,
            log_lines: 0,
            log_full: false,
            own_lines: 0,
            masks_full: false,
            annotations: 0,
            phase: None,
        }
    }

    /// Begins the next try: numbers start at 1 again.
    pub fn begin_try(&mut self) {
        self.try_number += 1;
        self.seq = 0;
        self.running = None;
        self.phase = None;
    }

    /// The number of the current try, from 1.
    #[must_use]
    pub fn try_number(&self) -> u32 {
        self.try_number
    }

    /// Whether a step of the user has started in any try: then nothing is ever run again.
    #[must_use]
    pub fn user_step_started(&self) -> bool {
        self.user_step_started
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
        self.end_phase().await?;
        self.phase = Some((phase, Instant::now()));
        self.send(EventBody::Phase(PhaseEvent { phase, took: None, detail })).await
    }

    /// Ends the phase that runs, if one does.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn end_phase(&mut self) -> Result<(), ReceiverGone> {
        let Some((phase, since)) = self.phase.take() else { return Ok(()) };
        let took = Some(since.elapsed());
        self.send(EventBody::Phase(PhaseEvent { phase, took, detail: None })).await
    }

    /// Reports a phase that is over already.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn phase_was(&mut self, phase: Phase, took: Duration) -> Result<(), ReceiverGone> {
        self.end_phase().await?;
        self.send(EventBody::Phase(PhaseEvent { phase, took: None, detail: None })).await?;
        self.send(EventBody::Phase(PhaseEvent { phase, took: Some(took), detail: None })).await
    }

    /// Writes lines of our own into the log: of the running step, else of the set-up.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn notice(&mut self, text: &str) -> Result<(), ReceiverGone> {
        self.write(Stream::Runner, text).await
    }

    /// Writes lines of the machine's console into the log.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn console(&mut self, text: &str) -> Result<(), ReceiverGone> {
        self.write(Stream::Console, text).await
    }

    async fn write(&mut self, stream: Stream, text: &str) -> Result<(), ReceiverGone> {
        let time = Timestamp::now();
        let lines = text.lines().map(|line| LogLine { time, stream, text: line.into() }).collect();
        let step = self.running.as_ref().map(|running| running.step);
        self.log(LogBatch { step, lines }).await
    }

    /// Records an event of the guest. `Finished` is not passed on: it is the caller's to decide.
    ///
    /// # Errors
    /// The event breaks the rules, or the receiver is gone.
    pub async fn record(&mut self, event: GuestEvent) -> Result<Option<JobResult>, RecordError> {
        match event {
            GuestEvent::StepStarted(started) => self.step_started(started).await?,
            GuestEvent::StepFinished(finished) => self.step_finished(finished).await?,
            GuestEvent::Log(batch) => {
                self.check_batch(&batch)?;
                self.log(batch).await?;
            }
            GuestEvent::Mask(value) => self.add_mask(value.expose()).await?,
            GuestEvent::Outputs(outputs) => self.outputs(outputs).await?,
            GuestEvent::Summary(summary) => self.summary(summary).await?,
            GuestEvent::Annotation(annotation) => self.annotation(annotation).await?,
            GuestEvent::Finished(result) => {
                if let Some(running) = &self.running {
                    return Err(violation(format!(
                        "the job finished while step {} was running",
                        running.step
                    )));
                }
                self.flush_lines().await?;
                return Ok(Some(result));
            }
        }
        Ok(None)
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
        self.flush_lines().await?;
        self.notice(reason).await?;
        let slot = self.slot().await?;
        let Some(running) = self.running.take() else { return Ok(()) };
        let finished = StepFinished {
            step: running.step,
            name: running.name,
            outcome: conclusion,
            conclusion,
            took: running.since.elapsed(),
            time: Timestamp::now(),
        };
        self.emit(slot, EventBody::StepFinished(finished));
        Ok(())
    }

    /// Says that a failed machine is kept.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn kept(&mut self, kept: Kept) -> Result<(), ReceiverGone> {
        self.send(EventBody::Kept(kept)).await
    }

    /// The last event of the job. A receiver that is gone misses it.
    pub async fn finish(
        mut self,
        result: JobResult,
        infrastructure: Option<Infrastructure>,
    ) -> Finished {
        let infrastructure = infrastructure.map(|cause| Infrastructure {
            message: self.masker.mask_text(&cause.message).into_owned(),
            ..cause
        });
        let finished = Finished { result, infrastructure };
        let event = EventBody::Finished(finished.clone());
        let gone = match self.flush_lines().await {
            Ok(()) => self.send(event).await.is_err(),
            Err(ReceiverGone) => true,
        };
        if gone {
            tracing::warn!(job.id = %self.job, "nobody received the result of the job");
        }
        finished
    }

    /// Gives out lines that wait for the rest of a masked value.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn flush_lines(&mut self) -> Result<(), ReceiverGone> {
        self.lines.flush(&self.masker, &mut self.ready);
        self.send_lines().await
    }

    async fn step_started(&mut self, started: StepStarted) -> Result<(), RecordError> {
        self.check_step(started.step)?;
        if let Some(running) = &self.running {
            return Err(violation(format!(
                "step {} started while step {} was running",
                started.step, running.step
            )));
        }
        self.flush_lines().await?;
        let name = self.clean_name(&started.name);
        let slot = self.slot().await?;
        self.user_step_started = true;
        self.annotations = 0;
        self.running =
            Some(RunningStep { step: started.step, name: name.clone(), since: Instant::now() });
        self.emit(slot, EventBody::StepStarted(StepStarted { name, ..started }));
        Ok(())
    }

    async fn step_finished(&mut self, finished: StepFinished) -> Result<(), RecordError> {
        self.check_step(finished.step)?;
        self.flush_lines().await?;
        let skipped = finished.conclusion == Conclusion::Skipped;
        match &self.running {
            Some(running) if running.step == finished.step => {}
            None if skipped => {}
            _ => {
                return Err(violation(format!(
                    "step {} finished without having started",
                    finished.step
                )));
            }
        }
        let name = self.clean_name(&finished.name);
        let slot = self.slot().await?;
        self.running = None;
        self.emit(slot, EventBody::StepFinished(StepFinished { name, ..finished }));
        Ok(())
    }

    fn check_batch(&self, batch: &LogBatch) -> Result<(), Violation> {
        if let Some(step) = batch.step {
            self.check_step(step)?;
        }
        if batch.lines.iter().any(|line| line.text.as_bytes().contains(&b'\n')) {
            return Err(Violation("a log line contains a line end".to_owned()));
        }
        Ok(())
    }

    async fn log(&mut self, batch: LogBatch) -> Result<(), ReceiverGone> {
        if batch.step != self.lines_of {
            self.flush_lines().await?;
            self.lines_of = batch.step;
        }
        for mut line in batch.lines {
            if self.is_log_full(&line) {
                if self.log_full {
                    continue;
                }
                self.log_full = true;
                line.stream = Stream::Runner;
                line.text = log_full_notice().into();
            }
            self.hide_cut_value(&mut line);
            self.lines.push(&mut self.masker, line, &mut self.ready);
        }
        self.send_lines().await
    }

    /// A line that the guest cut may end in the beginning of a masked value, and one that it did not
    /// cut although it had to is cut here.
    fn hide_cut_value(&self, line: &mut LogLine) {
        let bytes = line.text.as_bytes();
        if bytes.len() < limits::LOG_LINE_BYTES - limits::CUT_NOTICE_BYTES {
            return;
        }
        let end = bytes[..bytes.len().min(limits::LOG_LINE_BYTES)]
            .windows(limits::CUT_NOTICE.len())
            .rposition(|window| window == limits::CUT_NOTICE.as_bytes())
            .unwrap_or(bytes.len().min(limits::LOG_LINE_BYTES));
        let begun = self.masker.reach().min(end);
        let mut kept = bytes[..end - begun].to_vec();
        if begun > 0 {
            kept.extend_from_slice(crate::masking::REPLACEMENT.as_bytes());
        }
        kept.extend_from_slice(&bytes[end..bytes.len().min(limits::LOG_LINE_BYTES)]);
        line.text = kept.into();
    }

    fn is_log_full(&mut self, line: &LogLine) -> bool {
        if line.stream == Stream::Runner && self.own_lines < OWN_LINES {
            self.own_lines += 1;
            return false;
        }
        self.log_lines += 1;
        self.log_bytes += line.text.as_bytes().len() as u64 + 1;
        self.log_lines > limits::LOG_LINES || self.log_bytes > limits::LOG_BYTES
    }

    async fn send_lines(&mut self) -> Result<(), ReceiverGone> {
        while !self.ready.is_empty() {
            let slot = self.slot().await?;
            let mut bytes = 0;
            let fits = |line: &&LogLine| {
                bytes += line.text.as_bytes().len();
                bytes <= limits::LOG_BATCH_BYTES
            };
            let count = self.ready.iter().take_while(fits).count().max(1);
            let rest = self.ready.split_off(count);
            let lines = std::mem::replace(&mut self.ready, rest);
            self.emit(slot, EventBody::Log(LogBatch { step: self.lines_of, lines }));
        }
        Ok(())
    }

    async fn add_mask(&mut self, value: &str) -> Result<(), ReceiverGone> {
        if self.masker.add(value) == Added::TooMany && !self.masks_full {
            self.masks_full = true;
            let text = format!(
                "##[warning]More than {} values to mask: further ones are not masked.",
                limits::MASKS
            );
            self.notice(&text).await?;
        }
        Ok(())
    }

    async fn outputs(&mut self, outputs: BTreeMap<String, String>) -> Result<(), RecordError> {
        let bytes: usize = outputs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > limits::OUTPUT_BYTES {
            return Err(violation(format!("the job's outputs are {bytes} bytes")));
        }
        let mut shown = BTreeMap::new();
        for (name, value) in outputs {
            if self.masker.contains_masked(&value) || self.masker.contains_masked(&name) {
                let name = self.masker.mask_text(&name).into_owned();
                self.notice(&format!(
                    "##[warning]The output '{name}' is withheld: it may contain a secret."
                ))
                .await?;
            } else {
                shown.insert(name, value);
            }
        }
        self.send(EventBody::Outputs(shown)).await?;
        Ok(())
    }

    async fn summary(&mut self, summary: Summary) -> Result<(), RecordError> {
        self.check_step(summary.step)?;
        if summary.markdown.len() > limits::SUMMARY_BYTES {
            return Err(violation(format!("a summary of {} bytes", summary.markdown.len())));
        }
        let markdown = self.masker.mask_text(&summary.markdown).into_owned();
        self.send(EventBody::Summary(Summary { markdown, ..summary })).await?;
        Ok(())
    }

    async fn annotation(&mut self, annotation: Annotation) -> Result<(), RecordError> {
        self.check_step(annotation.step)?;
        self.annotations += 1;
        if self.annotations > 3 * limits::ANNOTATIONS_PER_STEP {
            return Ok(());
        }
        let mut clean = |text: &str| {
            cut_text(&self.masker.mask_text(text), limits::ANNOTATION_BYTES).to_owned()
        };
        let annotation = Annotation {
            message: clean(&annotation.message),
            title: annotation.title.as_deref().map(&mut clean),
            file: annotation.file.as_deref().map(&mut clean),
            ..annotation
        };
        self.send(EventBody::Annotation(annotation)).await?;
        Ok(())
    }

    fn check_step(&self, step: u32) -> Result<(), Violation> {
        if (step as usize) < self.steps {
            return Ok(());
        }
        Err(Violation(format!("step {step} is not one of the {} steps of the job", self.steps)))
    }

    fn clean_name(&mut self, name: &str) -> String {
        let masked = self.masker.mask_text(name);
        masked.chars().filter(|c| !c.is_control()).take(NAME_CHARACTERS).collect()
    }

    /// Waits for room for one event. Nothing has changed yet when this is given up.
    async fn slot(&self) -> Result<OwnedPermit<JobEvent>, ReceiverGone> {
        self.sender.clone().reserve_owned().await.map_err(|_| ReceiverGone)
    }

    async fn send(&mut self, event: EventBody) -> Result<(), ReceiverGone> {
        let slot = self.slot().await?;
        self.emit(slot, event);
        Ok(())
    }

    /// Numbers an event and lets it go, without waiting.
    fn emit(&mut self, slot: OwnedPermit<JobEvent>, event: EventBody) {
        self.seq += 1;
        slot.send(JobEvent {
            job: self.job,
            try_number: self.try_number,
            seq: self.seq,
            time: Timestamp::now(),
            event,
        });
    }
}

/// How long a line may wait for the rest of a masked value before it is given out.
pub const HOLD_LINES: Duration = Duration::from_millis(200);

fn violation(text: String) -> RecordError {
    Violation(text).into()
}

fn log_full_notice() -> String {
    format!(
        "##[warning]The log is full ({} lines or {} MiB): the job goes on without it.",
        limits::LOG_LINES,
        limits::LOG_BYTES / limits::MIB
    )
}

fn cut_text(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests;

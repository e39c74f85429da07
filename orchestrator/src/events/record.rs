//! What a guest says, checked, masked and cut to the limits.

use std::collections::BTreeMap;

use common::event::{
    Annotation, Conclusion, EventBody, JobResult, LogBatch, LogLine, StepFinished, StepStarted,
    Stream, Summary,
};
use common::guest::GuestEvent;
use common::limits;
use common::request::Secret;
use common::size::ByteSize;
use common::text::cut;

use super::state::{Begun, RunningStep};
use super::{EventLog, Violation, line_bytes};
use crate::masking::{Added, REPLACEMENT};

/// The longest name of a step; the rest is cut. Forgejo keeps 255 bytes
/// (forgejo-runner-protocol 8.1).
const NAME_CHARACTERS: usize = 255;

/// Lines of Solstice itself that do not count towards a full log: what ends a job must be readable.
const OWN_LINES: u64 = 10_000;

/// Events other than lines that a guest may cause for each step of its job, the annotations of all
/// levels included, and beside those. No honest guest comes near.
const OTHERS_PER_STEP: u64 = 100;
/// See [`OTHERS_PER_STEP`].
const OTHERS: u64 = 1_000;

impl EventLog {
    /// Records the next event of the guest, for the next [`EventLog::commit`]. The guest's result is
    /// not passed on: what becomes of it is the caller's to decide.
    ///
    /// # Errors
    /// The event breaks the rules. It counts as not taken, and nothing that the guest says later can
    /// be used.
    pub fn record(&mut self, event: GuestEvent) -> Result<Option<JobResult>, Violation> {
        if self.state.result.is_some() {
            return Err(Violation("the guest went on after the job's end".to_owned()));
        }
        match event {
            GuestEvent::StepStarted(started) => self.step_started(&started)?,
            GuestEvent::StepFinished(finished) => self.step_finished(&finished)?,
            GuestEvent::Log(batch) => {
                self.check_batch(&batch)?;
                self.log(batch);
            }
            GuestEvent::Mask(value) => self.add_mask(value),
            GuestEvent::Outputs(outputs) => self.outputs(outputs)?,
            GuestEvent::Summary(summary) => self.summary(&summary)?,
            GuestEvent::Annotation(annotation) => self.annotation(&annotation)?,
            GuestEvent::DiskFull(message) => self.disk_full(&message)?,
            GuestEvent::Finished(result) => self.finished(result)?,
        }
        self.state.guest_seq += 1;
        self.is_changed = true;
        Ok(self.state.result)
    }

    fn finished(&mut self, result: JobResult) -> Result<(), Violation> {
        if let Some(running) = &self.state.running {
            let step = running.step;
            return Err(Violation(format!("the job finished while step {step} was running")));
        }
        self.flush_lines();
        self.state.result = Some(result);
        self.urgent = true;
        Ok(())
    }

    /// It is masked where it goes out, with the job's end.
    fn disk_full(&mut self, message: &str) -> Result<(), Violation> {
        self.count_other()?;
        self.state.disk_full = Some(cut(message, limits::ANNOTATION_CHARACTERS).to_owned());
        Ok(())
    }

    fn step_started(&mut self, started: &StepStarted) -> Result<(), Violation> {
        self.check_step(started.step)?;
        if let Some(running) = &self.state.running {
            return Err(Violation(format!(
                "step {} started while step {} was running",
                started.step, running.step
            )));
        }
        self.count_other()?;
        self.flush_lines();
        let name = self.clean_name(&started.name);
        // The guest starts its first process when this is on the host's disk.
        self.urgent |= !self.state.user_step_started;
        self.state.user_step_started = true;
        self.state.counts.annotations = 0;
        self.state.running =
            Some(RunningStep { step: started.step, name: name.clone(), begun: Begun::now() });
        self.emit(EventBody::StepStarted(StepStarted { name, ..*started }));
        Ok(())
    }

    fn step_finished(&mut self, finished: &StepFinished) -> Result<(), Violation> {
        self.check_step(finished.step)?;
        let skipped = finished.conclusion == Conclusion::Skipped;
        match &self.state.running {
            Some(running) if running.step == finished.step => {}
            None if skipped => {}
            _ => {
                return Err(Violation(format!(
                    "step {} finished without having started",
                    finished.step
                )));
            }
        }
        self.count_other()?;
        self.flush_lines();
        let name = self.clean_name(&finished.name);
        self.state.running = None;
        self.emit(EventBody::StepFinished(StepFinished { name, ..*finished }));
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

    pub(super) fn log(&mut self, batch: LogBatch) {
        if batch.step != self.state.lines_of {
            self.flush_lines();
            self.state.lines_of = batch.step;
        }
        for mut line in batch.lines {
            if self.is_log_full(&line) {
                if self.state.counts.log_full {
                    continue;
                }
                self.state.counts.log_full = true;
                line.stream = Stream::Runner;
                line.text = log_full_notice().into();
            }
            self.hide_cut_value(&mut line);
            self.lines.push(&mut self.masker, line, &mut self.ready);
        }
        self.emit_lines();
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
            kept.extend_from_slice(REPLACEMENT.as_bytes());
        }
        kept.extend_from_slice(&bytes[end..bytes.len().min(limits::LOG_LINE_BYTES)]);
        line.text = kept.into();
    }

    fn is_log_full(&mut self, line: &LogLine) -> bool {
        let counts = &mut self.state.counts;
        if line.stream == Stream::Runner && counts.own_lines < OWN_LINES {
            counts.own_lines += 1;
            return false;
        }
        counts.log_lines += 1;
        counts.log_bytes += line.text.as_bytes().len() as u64 + 1;
        counts.log_lines > limits::LOG_LINES || counts.log_bytes > limits::LOG_BYTES
    }

    /// Puts the lines that are ready into events.
    pub(super) fn emit_lines(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        crate::metrics::log_lines(self.ready.len() as u64);
        let step = self.state.lines_of;
        let mut lines = Vec::new();
        let mut bytes = 0;
        for line in std::mem::take(&mut self.ready) {
            bytes += line_bytes(&line);
            if bytes > limits::LOG_BATCH_BYTES && !lines.is_empty() {
                bytes = line_bytes(&line);
                let lines = std::mem::take(&mut lines);
                self.emit(EventBody::Log(LogBatch { step, lines }));
            }
            lines.push(line);
        }
        self.emit(EventBody::Log(LogBatch { step, lines }));
    }

    fn add_mask(&mut self, value: Secret) {
        match self.masker.add(value.expose()) {
            Added::Taken => self.state.masks.push(value),
            Added::TooMany => self.warn_of_masks(),
            Added::Known | Added::Empty => {}
        }
    }

    /// Says once that a value could not be masked.
    pub(super) fn warn_of_masks(&mut self) {
        if std::mem::replace(&mut self.state.counts.masks_full, true) {
            return;
        }
        self.write(
            Stream::Runner,
            &format!(
                "##[warning]Not every value can be masked: at most {} values, each of at most {}, \
                 and with all their encodings at most {}. What is beyond that appears in the log as \
                 it is.",
                limits::MASKS,
                ByteSize(limits::MASK_BYTES as u64),
                ByteSize(limits::ALL_MASK_BYTES as u64),
            ),
        );
    }

    fn outputs(&mut self, outputs: BTreeMap<String, String>) -> Result<(), Violation> {
        let bytes: usize = outputs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > limits::OUTPUT_BYTES {
            return Err(Violation(format!("the job's outputs are {bytes} bytes")));
        }
        self.count_other()?;
        let mut shown = BTreeMap::new();
        for (name, value) in outputs {
            if self.masker.contains_masked(&value) || self.masker.contains_masked(&name) {
                let name = self.masker.mask_text(&name).into_owned();
                self.write(
                    Stream::Runner,
                    &format!(
                        "##[warning]The output '{name}' is withheld: it may contain a secret."
                    ),
                );
            } else {
                shown.insert(name, value);
            }
        }
        self.emit(EventBody::Outputs(shown));
        Ok(())
    }

    fn summary(&mut self, summary: &Summary) -> Result<(), Violation> {
        self.check_step(summary.step)?;
        if summary.markdown.len() > limits::SUMMARY_BYTES {
            return Err(Violation(format!("a summary of {} bytes", summary.markdown.len())));
        }
        self.count_other()?;
        self.state.counts.summaries += summary.markdown.len() as u64;
        if self.state.counts.summaries > (self.steps * limits::SUMMARY_BYTES) as u64 {
            return Err(Violation("more summaries than the steps of the job may write".to_owned()));
        }
        let markdown = self.masker.mask_text(&summary.markdown).into_owned();
        self.emit(EventBody::Summary(Summary { markdown, ..*summary }));
        Ok(())
    }

    fn annotation(&mut self, annotation: &Annotation) -> Result<(), Violation> {
        self.check_step(annotation.step)?;
        self.state.counts.annotations += 1;
        if self.state.counts.annotations > 3 * limits::ANNOTATIONS_PER_STEP as u64 {
            return Ok(());
        }
        self.count_other()?;
        let mut clean = |text: &str| {
            cut(&self.masker.mask_text(text), limits::ANNOTATION_CHARACTERS).to_owned()
        };
        let annotation = Annotation {
            message: clean(&annotation.message),
            title: annotation.title.as_deref().map(&mut clean),
            file: annotation.file.as_deref().map(&mut clean),
            ..*annotation
        };
        self.emit(EventBody::Annotation(annotation));
        Ok(())
    }

    fn check_step(&self, step: u32) -> Result<(), Violation> {
        if (step as usize) < self.steps {
            return Ok(());
        }
        Err(Violation(format!("step {step} is not one of the {} steps of the job", self.steps)))
    }

    /// Counts an event that is no line.
    fn count_other(&mut self) -> Result<(), Violation> {
        self.state.counts.others += 1;
        if self.state.counts.others > OTHERS + OTHERS_PER_STEP * self.steps as u64 {
            return Err(Violation("more events than a job of its size can have".to_owned()));
        }
        Ok(())
    }

    fn clean_name(&mut self, name: &str) -> String {
        let masked = self.masker.mask_text(name);
        masked.chars().filter(|c| !c.is_control()).take(NAME_CHARACTERS).collect()
    }
}

fn log_full_notice() -> String {
    format!(
        "##[warning]The log is full ({} lines or {} MiB): the job goes on without it.",
        limits::LOG_LINES,
        limits::LOG_BYTES / limits::MIB
    )
}

//! What a forge shows of a task, made from the events of its job: rows, and the state of each step.
//!
//! Everything here is pure: the same events give the same rows, so that a report which was kept on
//! disk goes on where it was. The rows of a task are one sequence: those of the set-up, those of each
//! step without gaps, then those of the completion (forgejo-runner-protocol 8.1).

mod row;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use common::event::{
    Conclusion, DebugSession, EventBody, Finished, JobEvent, LogBatch, Phase, PhaseEvent,
    StepFinished, StepStarted, Stream,
};
use common::time::Timestamp;
use forgejo_proto::runner::{StepState, TaskResult, TaskState};
use serde::{Deserialize, Serialize};

pub(crate) use row::wire_time;
pub use row::{ROW_BYTES, Row};

/// The longest name of an output that servers keep, in bytes (forgejo-runner-protocol 6.2).
const OUTPUT_NAME_BYTES: usize = 255;
/// The longest value (forgejo-runner-protocol 6.2).
const OUTPUT_VALUE_BYTES: usize = 1_048_576;

/// Rows that wait between two steps at most.
const HELD_ROWS: usize = 1_000;

/// The report of one task so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    steps: Vec<Step>,
    /// How many rows there are.
    rows: u64,
    part: Part,
    /// Whether the lines of the machine's console stand in a fold that is open.
    in_console: bool,
    /// Rows that came between two steps: they belong to the one that follows, if one does.
    held: Vec<Row>,
    try_number: u32,
    outputs: BTreeMap<String, String>,
    /// Notes for the completion.
    notes: Vec<String>,
    began: Option<Timestamp>,
    end: Option<End>,
}

/// Which rows come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Part {
    /// Before the first step; whether a fold is open.
    SetUp { folded: bool },
    /// A step runs.
    Step(u32),
    /// This step is over, and another may follow.
    Between(u32),
    /// No step follows.
    Completion,
}

/// A step as the server has a row for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Step {
    started: Option<Timestamp>,
    stopped: Option<Timestamp>,
    first_row: u64,
    rows: u64,
    conclusion: Option<Conclusion>,
}

/// How the task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    conclusion: Conclusion,
    time: Timestamp,
}

impl Report {
    /// Of a task with so many steps of which nothing was reported.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        Self {
            steps: vec![Step::default(); steps],
            rows: 0,
            part: Part::SetUp { folded: false },
            in_console: false,
            held: Vec::new(),
            try_number: 0,
            outputs: BTreeMap::new(),
            notes: Vec::new(),
            began: None,
            end: None,
        }
    }

    /// The first rows: a fold with what is known before anything happens.
    pub fn open(&mut self, time: Timestamp, lines: &[String]) -> Vec<Row> {
        let mut rows = vec![Row::new(time, "##[group]Set up the machine")];
        rows.extend(lines.iter().map(|line| Row::new(time, line)));
        self.part = Part::SetUp { folded: true };
        self.began = Some(time);
        self.counted(rows)
    }

    /// What an event adds to the rows. The state of the steps changes with it.
    pub fn take(&mut self, event: &JobEvent) -> Vec<Row> {
        if self.end.is_some() {
            return Vec::new();
        }
        let mut rows = Vec::new();
        if !matches!(event.event, EventBody::Log(_)) {
            rows.extend(self.leave_console(event.time));
        }
        rows.extend(self.new_try(event));
        rows.extend(match &event.event {
            EventBody::Phase(phase) => self.phase(event.time, phase),
            EventBody::StepStarted(step) => self.step_started(step),
            EventBody::StepFinished(step) => self.step_finished(step),
            EventBody::Log(batch) => self.log(batch),
            EventBody::Outputs(outputs) => self.outputs(outputs),
            EventBody::Summary(summary) => {
                let bytes = summary.markdown.len();
                self.note(format!(
                    "A step wrote a summary of {bytes} bytes; this forge has no place for it."
                ))
            }
            // The line that made it stands in the log; this forge shows no more.
            EventBody::Annotation(_) => Vec::new(),
            EventBody::Kept(kept) if kept.frozen => self.note(format!(
                "The machine is frozen until {}: solstice thaw {}",
                kept.until, kept.machine
            )),
            EventBody::Kept(kept) => self.note(format!(
                "The machine is kept until {}: solstice shell {}",
                kept.until, kept.machine
            )),
            EventBody::Debug(DebugSession::Opened { command, until }) => {
                self.note(format!("The machine can be looked into until {until}: {command}"))
            }
            EventBody::Debug(DebugSession::Closed) => Vec::new(),
            EventBody::Finished(finished) => self.finished(event.time, finished),
        });
        rows
    }

    /// Ends a task that has no job: nothing runs for it.
    pub fn end_without_job(
        &mut self,
        time: Timestamp,
        conclusion: Conclusion,
        lines: &[String],
    ) -> Vec<Row> {
        self.began.get_or_insert(time);
        let mut folded = self.leave_console(time);
        let rows = lines.iter().map(|line| Row::new(time, line)).collect();
        folded.extend(self.counted(rows));
        folded.extend(self.close(time, conclusion, None));
        folded
    }

    fn new_try(&mut self, event: &JobEvent) -> Vec<Row> {
        let before = std::mem::replace(&mut self.try_number, event.try_number);
        if before == 0 || before == event.try_number || !matches!(self.part, Part::SetUp { .. }) {
            return Vec::new();
        }
        let line = format!("Try {} on a fresh machine", event.try_number);
        self.counted(vec![Row::new(event.time, line)])
    }

    fn phase(&mut self, time: Timestamp, event: &PhaseEvent) -> Vec<Row> {
        let name = event.phase.name();
        let detail = event.detail.as_deref().map(|detail| format!(" ({detail})"));
        let detail = detail.unwrap_or_default();
        let line = match event.took {
            None if event.phase == Phase::Steps => return self.unfold(time),
            None if detail.is_empty() => return Vec::new(),
            None => format!("{name} ...{detail}"),
            Some(_) if event.phase == Phase::Steps => {
                self.complete();
                return self.release();
            }
            Some(took) => format!("{name}: {}{detail}", shown(took)),
        };
        if event.phase == Phase::Cleanup {
            self.complete();
        }
        let mut rows = self.release();
        rows.extend(self.place(vec![Row::new(time, line)]));
        rows
    }

    fn step_started(&mut self, event: &StepStarted) -> Vec<Row> {
        let mut rows = self.unfold(event.time);
        let first_row = self.rows;
        let Some(step) = self.steps.get_mut(event.step as usize) else { return rows };
        if step.started.is_some() {
            return rows;
        }
        step.started = Some(event.time);
        step.first_row = first_row;
        self.part = Part::Step(event.step);
        rows.extend(self.release());
        rows
    }

    fn step_finished(&mut self, event: &StepFinished) -> Vec<Row> {
        let first_row = self.rows;
        let is_current = self.part == Part::Step(event.step);
        let Some(step) = self.steps.get_mut(event.step as usize) else { return Vec::new() };
        if step.started.is_none() {
            step.started = Some(event.time);
            step.first_row = first_row;
        }
        step.stopped = Some(event.time);
        step.conclusion = Some(event.conclusion);
        if is_current {
            self.part = Part::Between(event.step);
        }
        Vec::new()
    }

    fn log(&mut self, batch: &LogBatch) -> Vec<Row> {
        let mut rows = Vec::new();
        for line in &batch.lines {
            let folds = line.stream == Stream::Console && matches!(self.part, Part::SetUp { .. });
            if folds && !self.in_console {
                self.in_console = true;
                rows.extend(self.counted(vec![Row::new(line.time, "##[group]Console")]));
            } else if !folds {
                rows.extend(self.leave_console(line.time));
            }
            rows.extend(self.place(vec![Row::of_line(line, folds)]));
        }
        rows
    }

    /// Ends the fold of the console.
    fn leave_console(&mut self, time: Timestamp) -> Vec<Row> {
        if !std::mem::take(&mut self.in_console) {
            return Vec::new();
        }
        self.counted(vec![Row::new(time, "##[endgroup]")])
    }

    fn outputs(&mut self, outputs: &BTreeMap<String, String>) -> Vec<Row> {
        for (name, value) in outputs {
            if name.len() > OUTPUT_NAME_BYTES || value.len() > OUTPUT_VALUE_BYTES {
                let name: String = name.chars().take(100).collect();
                self.notes.push(format!(
                    "The output {name:?} is too large for this forge and was dropped: a name has \
                     {OUTPUT_NAME_BYTES} bytes at most, a value {OUTPUT_VALUE_BYTES}."
                ));
            } else {
                // Databases of servers take no NUL.
                self.outputs.insert(name.replace('\0', ""), value.replace('\0', ""));
            }
        }
        Vec::new()
    }

    fn note(&mut self, line: String) -> Vec<Row> {
        self.notes.push(line);
        Vec::new()
    }

    fn finished(&mut self, time: Timestamp, finished: &Finished) -> Vec<Row> {
        let cause = finished.infrastructure.as_ref().map(|found| found.cause.code());
        self.close(time, finished.result, cause)
    }

    /// The last rows, and the end of every step that has none.
    fn close(&mut self, time: Timestamp, conclusion: Conclusion, cause: Option<&str>) -> Vec<Row> {
        let mut rows = self.unfold(time);
        self.part = Part::Completion;
        rows.extend(self.release());
        let mut lines = std::mem::take(&mut self.notes);
        lines.push(match (conclusion, cause) {
            (_, Some(code)) => format!("The infrastructure failed, not the job: {code}"),
            (Conclusion::Success, None) => "The job succeeded".to_owned(),
            (Conclusion::Failure, None) => "The job failed".to_owned(),
            (Conclusion::Cancelled, None) => "The job was cancelled".to_owned(),
            (Conclusion::Skipped, None) => "The job was skipped: its condition is false".to_owned(),
        });
        let last = lines.into_iter().map(|line| Row::new(time, line)).collect();
        let first_row = self.rows;
        rows.extend(self.counted(last));
        for step in self.steps.iter_mut().filter(|step| step.conclusion.is_none()) {
            // A step without an end is open on the server until somebody says otherwise.
            step.conclusion = Some(match conclusion {
                Conclusion::Skipped => Conclusion::Skipped,
                // It ran: its rows are shown under it.
                Conclusion::Failure if step.started.is_some() => Conclusion::Failure,
                _ => Conclusion::Cancelled,
            });
            if step.started.is_none() {
                step.started = Some(time);
                step.first_row = first_row;
            }
            step.stopped = Some(time);
        }
        self.end = Some(End { conclusion, time });
        rows
    }

    /// Ends the fold of the set-up.
    fn unfold(&mut self, time: Timestamp) -> Vec<Row> {
        if self.part != (Part::SetUp { folded: true }) {
            return Vec::new();
        }
        self.part = Part::SetUp { folded: false };
        self.counted(vec![Row::new(time, "##[endgroup]")])
    }

    /// No step follows. Before the first one there may be another try.
    fn complete(&mut self) {
        if !matches!(self.part, Part::SetUp { .. }) {
            self.part = Part::Completion;
        }
    }

    /// Rows where they belong by what is going on; between two steps they wait for what comes.
    fn place(&mut self, rows: Vec<Row>) -> Vec<Row> {
        let Part::Between(step) = self.part else { return self.counted(rows) };
        self.held.extend(rows);
        if self.held.len() <= HELD_ROWS {
            return Vec::new();
        }
        // So many say more about what was than about what comes.
        let held = std::mem::take(&mut self.held);
        self.part = Part::Step(step);
        let rows = self.counted(held);
        self.part = Part::Between(step);
        rows
    }

    /// The rows that waited.
    fn release(&mut self) -> Vec<Row> {
        if matches!(self.part, Part::Between(_)) {
            return Vec::new();
        }
        let held = std::mem::take(&mut self.held);
        self.counted(held)
    }

    /// Counts rows that are sent as what comes next.
    fn counted(&mut self, rows: Vec<Row>) -> Vec<Row> {
        self.rows += rows.len() as u64;
        if let Part::Step(index) = self.part
            && let Some(step) = self.steps.get_mut(index as usize)
        {
            step.rows += rows.len() as u64;
        }
        rows
    }

    /// How many rows there are so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How the task ended, once it has.
    #[must_use]
    pub fn conclusion(&self) -> Option<Conclusion> {
        self.end.map(|end| end.conclusion)
    }

    /// The outputs, which are reported with success only (forgejo-runner-protocol 6.6).
    #[must_use]
    pub fn sent_outputs(&self) -> &BTreeMap<String, String> {
        &self.outputs
    }

    /// The state to report while the server has so many rows. Before all of them are there it is that
    /// of a running task, unless the server takes no more.
    #[must_use]
    pub fn state(&self, task: i64, acknowledged: u64, log_closed: bool) -> TaskState {
        let end = self.end.filter(|_| log_closed || acknowledged >= self.rows);
        // A step is shown when the server has every row before it, so that none is announced at a
        // place that its log never gets to.
        let shown =
            |step: &Step| step.started.is_some() && (log_closed || step.first_row <= acknowledged);
        let steps = self.steps.iter().zip(0..).filter(|(step, _)| shown(step));
        TaskState {
            id: task,
            result: end.map_or(TaskResult::RESULT_UNSPECIFIED, |end| wire(end.conclusion)).into(),
            started_at: self.began.map(wire_time).into(),
            stopped_at: end.map(|end| wire_time(end.time)).into(),
            steps: steps.map(|(step, id)| step.state(id, acknowledged, log_closed)).collect(),
            ..TaskState::default()
        }
    }
}

impl Step {
    fn state(&self, id: i64, acknowledged: u64, log_closed: bool) -> StepState {
        let number = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
        let there = acknowledged.saturating_sub(self.first_row).min(self.rows);
        // Its last rows come before its end, so that the server never shows an end without them.
        let is_over = log_closed || there == self.rows;
        let result = self.conclusion.filter(|_| is_over);
        StepState {
            id,
            result: result.map_or(TaskResult::RESULT_UNSPECIFIED, wire).into(),
            started_at: self.started.map(wire_time).into(),
            stopped_at: self.stopped.filter(|_| is_over).map(wire_time).into(),
            log_index: number(self.first_row.min(acknowledged)),
            log_length: number(there),
            ..StepState::default()
        }
    }
}

fn wire(conclusion: Conclusion) -> TaskResult {
    match conclusion {
        Conclusion::Success => TaskResult::RESULT_SUCCESS,
        Conclusion::Failure => TaskResult::RESULT_FAILURE,
        Conclusion::Cancelled => TaskResult::RESULT_CANCELLED,
        Conclusion::Skipped => TaskResult::RESULT_SKIPPED,
    }
}

fn shown(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

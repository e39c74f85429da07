//! The step engine: the steps of the plan in order, as the real one reports them.
//!
//! Nothing is evaluated. A step is skipped after a failed or cancelled one unless its `if` is
//! `always()`; names, scripts and `continue-on-error` are taken as they are written.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use common::Timestamp;
use common::event::{Conclusion, JobResult, StepFinished, StepStarted, Stream};
use common::guest::{GuestEvent, JobDocument};
use common::infrastructure::Cause;
use common::limits::{OUTPUT_BYTES, STEPS};
use common::plan::{Step, StepAction, Value};
use common::request::Secret;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::job::Job;
use crate::log::Log;
use crate::machine::Machine;
use crate::program::NO_SPACE;
use crate::script::{self, Ended, Output};

/// The characters of a name that is made from a script.
const NAME_CHARACTERS: usize = 120;

/// Runs a job to its end, or until the guest program is killed.
pub(crate) async fn run(machine: Arc<Machine>, job: Arc<Job>, document: JobDocument) {
    let engine = Engine {
        machine: &machine,
        job: &job,
        log: Log::new(&job),
        outputs: BTreeMap::new(),
        failed: false,
        disk_full: None,
        cancelled: false,
        heard: false,
    };
    tokio::select! {
        biased;
        () = job.killed.cancelled() => {}
        () = engine.run(&document) => {}
    }
}

struct Engine<'a> {
    machine: &'a Arc<Machine>,
    job: &'a Job,
    log: Log<'a>,
    outputs: BTreeMap<String, String>,
    failed: bool,
    /// What could not be written for want of room.
    disk_full: Option<String>,
    cancelled: bool,
    /// Whether the host knows that a step began.
    heard: bool,
}

/// What is wrong with a step.
enum Wrong {
    /// This, in a sentence.
    Error(String),
    Cancelled,
}

impl Engine<'_> {
    async fn run(mut self, document: &JobDocument) {
        for step in document.plan.steps.iter().take(STEPS) {
            self.machine.clock.running().await;
            if !self.cancelled && self.job.cancel.is_cancelled() {
                self.cancelled = true;
                self.log.say("##[error]The operation was canceled.").await;
            }
            self.step(step, document).await;
        }
        let outputs = std::mem::take(&mut self.outputs);
        if !outputs.is_empty() {
            self.log.event(GuestEvent::Outputs(outputs)).await;
        }
        let result = match (self.cancelled, self.failed) {
            (true, _) => JobResult::Cancelled,
            (false, true) => JobResult::Failure,
            (false, false) => JobResult::Success,
        };
        if let (Some(message), JobResult::Failure) = (self.disk_full.take(), result) {
            self.log.event(GuestEvent::DiskFull(message)).await;
        }
        self.log.event(GuestEvent::Finished(result)).await;
    }

    async fn step(&mut self, step: &Step, document: &JobDocument) {
        let begun = Instant::now();
        let name = name(step);
        let mut conclusions = [Conclusion::Skipped; 2];
        if !(self.failed || self.cancelled) || is_always(step.condition.as_deref()) {
            self.log.enter(Some(step.index)).await;
            let started =
                StepStarted { step: step.index, name: name.clone(), time: Timestamp::now() };
            self.log.event(GuestEvent::StepStarted(started)).await;
            if !std::mem::replace(&mut self.heard, true) {
                self.job.until_heard().await;
            }
            conclusions = self.outcome(step, document).await;
        }
        let [outcome, conclusion] = conclusions;
        self.failed |= conclusion == Conclusion::Failure;
        let (took, time) = (begun.elapsed(), Timestamp::now());
        let finished = StepFinished { step: step.index, name, outcome, conclusion, took, time };
        self.log.event(GuestEvent::StepFinished(finished)).await;
        self.log.enter(None).await;
    }

    async fn outcome(&mut self, step: &Step, document: &JobDocument) -> [Conclusion; 2] {
        match self.perform(step, document).await {
            Ok(()) => [Conclusion::Success; 2],
            Err(Wrong::Cancelled) => {
                self.cancelled = true;
                self.log.error("The operation was canceled.").await;
                [Conclusion::Cancelled; 2]
            }
            Err(Wrong::Error(message)) => {
                self.log.error(&message).await;
                if is_true(step.continue_on_error.as_ref()) {
                    [Conclusion::Failure, Conclusion::Success]
                } else {
                    [Conclusion::Failure; 2]
                }
            }
        }
    }

    async fn perform(&mut self, step: &Step, document: &JobDocument) -> Result<(), Wrong> {
        match &step.action {
            StepAction::Run { script, .. } => self.script(text(script)).await,
            StepAction::Uses { reference, .. } if reference.starts_with("actions/checkout@") => {
                self.log.say(&format!("##[group]{}\n##[endgroup]", run_name(reference))).await;
                if document.tree.is_none() {
                    return Err(Wrong::Error(format!("There is no tree for {reference}.")));
                }
                let notice = format!("native checkout (for {reference}): local working tree");
                self.log.say(&notice).await;
                Ok(())
            }
            StepAction::Uses { reference, .. } => {
                Err(Wrong::Error(format!("The scripted guest cannot run {reference}.")))
            }
            StepAction::Unsupported { reason } => Err(Wrong::Error(reason.clone())),
        }
    }

    async fn script(&mut self, script: &str) -> Result<(), Wrong> {
        self.log.say(&format!("##[group]{}", run_name(script))).await;
        for line in script.lines() {
            self.log.say(&format!("\x1b[36;1m{line}\x1b[0m")).await;
        }
        self.log.say("shell: scripted\n##[endgroup]").await;
        // A step that began after a cancel is not ended by it.
        let cancel =
            if self.cancelled { CancellationToken::new() } else { self.job.cancel.clone() };
        let machine = self.machine;
        match script::run(script, machine, self, &cancel).await {
            Ended::Exit(0) if self.output_bytes() > OUTPUT_BYTES => {
                self.outputs.clear();
                let limit = OUTPUT_BYTES / 1024;
                Err(Wrong::Error(format!("The outputs are larger than {limit} KiB together.")))
            }
            Ended::Exit(0) => Ok(()),
            Ended::Exit(code) => {
                Err(Wrong::Error(format!("Process completed with exit code {code}.")))
            }
            Ended::Cancelled => Err(Wrong::Cancelled),
            Ended::NoSpace => {
                let message = format!("cannot write the script of this step: {NO_SPACE}");
                let text = format!("{}: {message}.", Cause::GuestDiskFull.code());
                self.disk_full = Some(message);
                Err(Wrong::Error(text))
            }
        }
    }

    fn output_bytes(&self) -> usize {
        self.outputs.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl Output for Engine<'_> {
    async fn line(&mut self, stream: Stream, text: String) {
        self.log.line(stream, text).await;
        self.log.flush_due().await;
    }

    async fn mask(&mut self, value: &str) {
        self.log.event(GuestEvent::Mask(Secret::new(value))).await;
    }

    fn output(&mut self, name: String, value: String) {
        self.outputs.insert(name, value);
    }

    async fn idle(&mut self) -> Infallible {
        self.log.idle().await
    }
}

/// The name of a step, as far as it can be read without evaluating it.
fn name(step: &Step) -> String {
    match (&step.name, &step.action) {
        (Some(name), _) if !text(name).trim().is_empty() => text(name).trim().replace('\n', " "),
        (_, StepAction::Run { script, .. }) => run_name(text(script)),
        (_, StepAction::Uses { reference, .. }) => run_name(reference),
        (_, StepAction::Unsupported { .. }) => format!("Step {}", step.index + 1),
    }
}

fn run_name(what: &str) -> String {
    let first = what.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let name = format!("Run {first}");
    match name.char_indices().nth(NAME_CHARACTERS) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name,
    }
}

/// A value as it was written.
fn text(value: &Value) -> &str {
    match value {
        Value::Literal(text) | Value::Template(text) | Value::Expression(text) => text,
        Value::Sequence(_) | Value::Mapping(_) | Value::Insert => "",
    }
}

fn is_true(value: Option<&Value>) -> bool {
    value.is_some_and(|value| text(value).trim() == "true")
}

/// Whether a step runs whatever came before it.
fn is_always(condition: Option<&str>) -> bool {
    let condition = condition.unwrap_or_default().trim();
    let inner = condition.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}"));
    inner.unwrap_or(condition).trim() == "always()"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_literal_always_counts() {
        assert!(is_always(Some("always()")) && is_always(Some(" ${{ always() }} ")));
        assert!(!is_always(None) && !is_always(Some("always() && false")));
    }

    #[test]
    fn names_are_those_of_the_real_engine() {
        assert_eq!(run_name("\n  make test \nmore"), "Run make test");
        assert_eq!(run_name(&"é".repeat(500)).chars().count(), NAME_CHARACTERS + 3);
    }
}

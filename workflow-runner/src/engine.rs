//! The step engine: runs the plan of one job and reports what happens.
//!
//! ```text
//!  JobDocument ─▶ Job::set_up ─▶ step ─▶ step ─▶ ... ─▶ outputs ─▶ clean up ─▶ Finished
//!                                 │
//!     env ─▶ condition ─▶ script ─▶ process ─▶ command files ─▶ outcome, conclusion
//!                                    │ supervise: limits, cancel, ladder
//!                                    └ pump: lines, workflow commands, batches of log
//! ```
//!
//! The engine reaches the world through [`System`] alone and knows no forge: what differs between
//! them stands in one table, `dialect`. It is driven by one task and needs nothing but tokio's
//! clock, so that it behaves the same in a guest, on the host, and in tests with a paused clock.
//!
//! Steps follow github-runner-protocol 7 and forgejo-runner-protocol 8; where they differ, the
//! plan's dialect decides.

mod action;
mod checkout;
mod command;
mod container;
mod contexts;
mod deep;
mod dialect;
mod environment;
mod events;
mod fault;
mod files;
mod header;
mod interpreter;
mod job;
mod left;
mod lines;
mod matcher;
mod native;
mod pump;
mod room;
mod script;
mod shell;
mod step;
mod supervise;
mod text;
mod variables;
mod within;
mod workspace;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use common::event::JobResult;
use common::guest::{GuestEvent, JobDocument};
use common::plan::Dialect;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::system::System;

use dialect::DialectRules;
use events::{Events, LogLimits};
use job::Job;
use lines::LineSplitter;
use matcher::Matchers;

/// Runs a job to its end.
///
/// Everything that happens goes to `events` in order; the last is [`GuestEvent::Finished`] with the
/// result that is also returned. The channel's bound is the back-pressure: while it is full, the
/// running step's output is not read. `cancel` ends the running step by the dialect's ladder, then
/// the steps run whose condition asks for a cancelled job.
///
/// A job that cannot be set up, such as one whose directories cannot be made, fails with its cause
/// in the log and all steps skipped. A job that fails because the disk has no room for what the
/// engine must write says so with [`GuestEvent::DiskFull`]. Dropping the future kills the process group of the running
/// step.
pub async fn run(
    document: JobDocument,
    system: Arc<dyn System>,
    host: Arc<dyn Host>,
    events: mpsc::Sender<GuestEvent>,
    cancel: CancellationToken,
) -> JobResult {
    let masks = document.secrets.values().map(|secret| secret.expose().to_owned());
    let mut events = Events::new(events, LogLimits::JOB, masks);
    let result = match Job::set_up(&document, (&*system, &*host), &mut events, cancel).await {
        Ok(job) => job.run().await,
        Err(fault) => {
            // The host says what a failure of the machine is.
            if fault.disk_full().is_none() {
                events.error(system.now(), &fault.sentence()).await;
            }
            job::skip_all(&document, &*system, &mut events).await;
            if let Some(message) = fault.disk_full() {
                events.event(GuestEvent::DiskFull(message.to_owned())).await;
            }
            JobResult::Failure
        }
    };
    events.event(GuestEvent::Finished(result)).await;
    result
}

/// Reads bytes as a step's output and as each of the files that a step can leave, for fuzzing.
pub(crate) fn read_anything(bytes: &[u8], dialect: Dialect) {
    /// Lines that matchers are asked about.
    const LINES: usize = 50;
    let rules = DialectRules::of(dialect);
    let mut splitter = LineSplitter::default();
    let mut chunk = bytes;
    while let Some(line) = splitter.next(&mut chunk).or_else(|| splitter.rest()) {
        if command::may_be_command(&line.bytes, rules) {
            drop(command::parse(&String::from_utf8_lossy(&line.bytes), rules));
        }
    }
    let text = files::decode(bytes);
    drop(files::parse_pairs(&text, "GITHUB_ENV"));
    drop(files::parse_paths(&text));
    if let Ok(read) = matcher::file::read(bytes) {
        let mut matchers = Matchers::default();
        drop(matchers.add(read));
        for line in text.lines().take(LINES) {
            drop(matchers.line(line));
        }
    }
}

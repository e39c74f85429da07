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

mod checkout;
mod command;
mod contexts;
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
mod pump;
mod room;
mod script;
mod shell;
mod step;
mod supervise;
mod text;
mod variables;
mod workspace;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use common::event::JobResult;
use common::guest::{GuestEvent, JobDocument};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::system::System;

use events::{Events, LogLimits};
use job::Job;

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
    events: mpsc::Sender<GuestEvent>,
    cancel: CancellationToken,
) -> JobResult {
    let masks = document.secrets.values().map(|secret| secret.expose().to_owned());
    let mut events = Events::new(events, LogLimits::JOB, masks);
    let result = match Job::set_up(&document, &*system, &mut events, cancel).await {
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

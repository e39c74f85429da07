//! One job from its request to its final event.
//!
//! ```text
//!  begin try ─▶ image ─▶ queue ─▶ boot ─▶ ready ─▶ upload ─▶ steps ─▶ cleanup ─▶ finished
//!      ▲          └────────┴───────┴────────┴────────┴─ infrastructure failure ──────▲
//!      └─ a cause that may pass, no step of the user has started, tries are left ────┘
//! ```
//!
//! A cancel is passed to the guest program once the steps run, and ends the job at once before. The
//! machine is removed on every path; [`Machine`]'s own drop does it when this future is dropped.

use std::time::{Duration, SystemTime};

use common::event::{Conclusion, Finished, JobEvent, JobResult, Kept, Phase};
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use common::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use vm_manager::machine::Machine;

use crate::Orchestrator;
use crate::events::{EventLog, ReceiverGone};
use crate::masking::Masker;
use crate::steps::{self, StepsEnd};

/// How often a job is tried on a fresh machine, the first time included.
const TRIES: u32 = 2;
/// How long the guest program gives steps that ask to run after a cancel or at the job's limit
/// (`if: always()`), and the ladder on top of it.
const AFTER_END: Duration = Duration::from_secs(5 * 60 + 10);
/// How long after a cancel the machine is destroyed.
const CANCEL: Duration = AFTER_END.saturating_add(Duration::from_secs(60));
/// What the host allows beyond the job's own limit before it ends a job that the guest program did
/// not end.
const DEADLINE_MARGIN: Duration = AFTER_END.saturating_add(Duration::from_secs(2 * 60));
/// The longest that any job may run, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How a job is ended from outside.
#[derive(Clone, Debug, Default)]
pub struct JobControl {
    /// Ends the job by the dialect's ladder.
    pub cancel: CancellationToken,
    /// Destroys the job's machine at once.
    pub destroy: CancellationToken,
}

/// Why a try ended without a result of the job's own.
#[derive(Debug)]
pub(crate) enum TryError {
    /// The infrastructure is to blame.
    Infrastructure(Infrastructure),
    /// The job was cancelled before or while it ran.
    Cancelled,
}

impl From<Infrastructure> for TryError {
    fn from(cause: Infrastructure) -> Self {
        Self::Infrastructure(cause)
    }
}

impl From<ReceiverGone> for TryError {
    fn from(_: ReceiverGone) -> Self {
        Self::Cancelled
    }
}

/// Runs a job; its last event is the final one.
pub(crate) async fn run(
    orchestrator: &Orchestrator,
    request: JobRequest,
    events: mpsc::Sender<JobEvent>,
    control: JobControl,
) -> Finished {
    let body = &request.body;
    let secrets = body.secrets.values().chain(&body.masks).map(|secret| secret.expose());
    let steps = body.plan.steps.len();
    let mut log = EventLog::new(request.envelope.job, steps, Masker::new(secrets), events);
    loop {
        log.begin_try();
        let tried = tokio::select! {
            tried = one_try(orchestrator, &request, &mut log, &control) => tried,
            () = control.destroy.cancelled() => Err(TryError::Cancelled),
        };
        match tried {
            Ok(result) => return log.finish(result, None).await,
            Err(TryError::Cancelled) => {
                let reason = "The job was cancelled.";
                // Who cancelled may not be listening any more.
                drop(log.abandon_step(Conclusion::Cancelled, reason).await);
                return log.finish(JobResult::Cancelled, None).await;
            }
            Err(TryError::Infrastructure(cause)) => {
                // The message may have bytes of the guest in it: it goes through the masker only.
                tracing::warn!(job.id = %request.envelope.job, code = cause.cause.code(), "try failed");
                let again = cause.cause.is_transient()
                    && !log.user_step_started()
                    && log.try_number() < TRIES
                    && !control.cancel.is_cancelled();
                let text = error_lines(&cause);
                drop(log.abandon_step(Conclusion::Failure, &text).await);
                if !again {
                    return log.finish(JobResult::Failure, Some(cause)).await;
                }
                drop(log.notice("Trying once more on a fresh machine.").await);
            }
        }
    }
}

/// An infrastructure failure as lines of the log: the first line is the error, the rest explains.
fn error_lines(cause: &Infrastructure) -> String {
    let mut lines = cause.message.lines();
    let first = lines.next().unwrap_or_default();
    let mut text = format!("##[error]{}: {first}", cause.cause.code());
    for line in lines {
        text.push('\n');
        text.push_str(line);
    }
    text.push_str("\nWhat to do: ");
    text.push_str(cause.cause.cure());
    text.push('.');
    text
}

async fn one_try(
    orchestrator: &Orchestrator,
    request: &JobRequest,
    log: &mut EventLog,
    control: &JobControl,
) -> Result<JobResult, TryError> {
    let cancelled = control.cancel.cancelled();
    let machine = tokio::select! {
        machine = orchestrator.prepare_machine(request, log) => machine?,
        () = cancelled => return Err(TryError::Cancelled),
    };
    let ended = run_in_machine(orchestrator, request, &machine, log, control).await;
    let failed = match &ended {
        Ok(result) => *result == JobResult::Failure,
        Err(TryError::Infrastructure(cause)) => {
            !cause.cause.is_transient() || log.user_step_started()
        }
        Err(TryError::Cancelled) => false,
    };
    let running = machine.ended().borrow().is_none();
    if let (true, Some(keep)) = (failed && running, request.body.keep) {
        keep_machine(machine, keep, log).await?;
    } else {
        // The machine goes first: whoever receives the events may be slow.
        let begun = Instant::now();
        machine.destroy().await;
        log.phase_was(Phase::Cleanup, begun.elapsed()).await?;
    }
    ended
}

async fn keep_machine(
    machine: Machine,
    keep: Duration,
    log: &mut EventLog,
) -> Result<(), TryError> {
    let until = Timestamp::from(SystemTime::now() + keep);
    let name = machine.id().short();
    machine.keep(&name, until).map_err(|error| error.infrastructure())?;
    log.kept(Kept { machine: name, until }).await?;
    Ok(())
}

async fn run_in_machine(
    orchestrator: &Orchestrator,
    request: &JobRequest,
    machine: &Machine,
    log: &mut EventLog,
    control: &JobControl,
) -> Result<JobResult, TryError> {
    let cancelled = control.cancel.cancelled();
    let guest = tokio::select! {
        guest = orchestrator.boot(request, machine, log) => guest?,
        () = cancelled => return Err(TryError::Cancelled),
    };
    log.phase(Phase::Steps, None).await?;
    let steps = steps::run(request, machine, guest, log, &control.cancel);
    let end = tokio::select! {
        end = steps => end?,
        () = deadline(request, control) => StepsEnd::Late,
    };
    match end {
        StepsEnd::Finished(result) => Ok(result),
        StepsEnd::Late if control.cancel.is_cancelled() => Err(TryError::Cancelled),
        StepsEnd::Late => Err(Infrastructure::new(
            Cause::Deadline,
            format!(
                "the job did not end within its limit of {} s and the time that steps have after it",
                request.envelope.deadlines.running.as_secs()
            ),
        )
        .into()),
    }
}

/// Waits until the job must be over: its own deadline, or the ladder's after a cancel.
async fn deadline(request: &JobRequest, control: &JobControl) {
    let limit = request.envelope.deadlines.running.min(LONGEST);
    let latest = Instant::now() + limit + DEADLINE_MARGIN;
    if timeout(latest - Instant::now(), control.cancel.cancelled()).await.is_ok() {
        sleep_until(latest.min(Instant::now() + CANCEL)).await;
    }
}

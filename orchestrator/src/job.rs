//! One job from its claim to its final event.
//!
//! ```text
//!  begin try ─▶ image ─▶ queue ─▶ boot ─▶ ready ─▶ upload ─▶ steps ─▶ cleanup ─▶ finished
//!      ▲          └────────┴───────┴────────┴────────┴─ infrastructure failure ──────▲
//!      └─ a cause that may pass, no step of the user has started, tries are left ────┘
//! ```
//!
//! A cancel is passed to the guest program once the steps run, and ends the job at once before. The
//! machine is removed on every path, except that it is [left](Words::leave) for the orchestrator's
//! next start; [`Machine`]'s own drop does it when this future is dropped.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::event::{Conclusion, Finished, JobResult, Kept, Phase};
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use common::time::Timestamp;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use vm_manager::image::Image;
use vm_manager::machine::Machine;
use vm_manager::ssh::Guest;

use crate::events::{EventLog, ReceiverGone};
use crate::lifecycle::RETRIES;
use crate::machines::{Machines, Patience, Started};
use crate::record::{LeaseLost, Recorder};
use crate::steps::{self, StepsEnd};
use crate::store::JobState;

/// How long the guest program gives steps that ask to run after a cancel or at the job's limit
/// (`if: always()`), and the ladder on top of it.
const AFTER_END: Duration = Duration::from_secs(5 * 60 + 10);
/// How long after a cancel the machine is destroyed.
pub(crate) const CANCEL: Duration = AFTER_END.saturating_add(Duration::from_secs(60));
/// What the host allows beyond the job's own limit before it ends a job that the guest program did
/// not end.
pub(crate) const AFTER_LIMIT: Duration = AFTER_END.saturating_add(Duration::from_secs(2 * 60));
/// The longest that any job may run, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// What the sweeper allows beyond a wait that the job ends itself.
const SWEEPER_MARGIN: Duration = Duration::from_secs(60);
/// How long an image may be fetched or built and room be waited for.
const PREPARING: Duration = Duration::from_secs(6 * 3600);
/// How long it may take to log in and to place the guest program and the tree.
const READY: Duration = Duration::from_secs(45 * 60);
/// How long the machine may take to go, or to be frozen, and the last events to be written.
const FINISHING: Duration = Duration::from_secs(20 * 60);

/// How long a machine is kept that runs.
const UNFROZEN: Duration = Duration::from_secs(2 * 3600);

/// How a job is ended from outside.
#[derive(Clone, Debug, Default)]
pub struct JobControl {
    /// Ends the job by the dialect's ladder.
    pub cancel: CancellationToken,
    /// Destroys the job's machine at once.
    pub destroy: CancellationToken,
}

/// What the service says to the worker of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    /// How its user ends it.
    pub(crate) control: JobControl,
    /// Its state took too long.
    pub(crate) expire: CancellationToken,
    /// Another host has the job: end without another word.
    pub(crate) abandon: CancellationToken,
    /// The service ends and comes back: leave the machine as it is.
    pub(crate) leave: CancellationToken,
}

/// Why a try ended without a result of the job's own.
#[derive(Debug)]
pub(crate) enum TryError {
    /// The infrastructure is to blame.
    Infrastructure(Infrastructure),
    /// The job was cancelled before or while it ran.
    Cancelled,
    /// The job is not ours any more.
    Abandoned,
    /// The machine is left for the next start of the service.
    Left,
    /// Nobody takes the job's events any more.
    ReceiverGone,
}

impl From<Infrastructure> for TryError {
    fn from(cause: Infrastructure) -> Self {
        Self::Infrastructure(cause)
    }
}

impl From<ReceiverGone> for TryError {
    fn from(_: ReceiverGone) -> Self {
        Self::ReceiverGone
    }
}

impl From<LeaseLost> for TryError {
    fn from(_: LeaseLost) -> Self {
        Self::Abandoned
    }
}

/// How the work on a job ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It has its final event.
    Finished(Finished),
    /// It goes on elsewhere or later; nothing was said about its end.
    Dropped,
}

impl From<Result<Finished, ReceiverGone>> for Ended {
    fn from(finished: Result<Finished, ReceiverGone>) -> Self {
        finished.map_or(Self::Dropped, Self::Finished)
    }
}

/// What a job is worked on with.
pub(crate) struct Work<'a> {
    pub(crate) machines: &'a Machines,
    pub(crate) request: &'a JobRequest,
    pub(crate) words: &'a Words,
    pub(crate) record: Recorder,
    /// Failures of the infrastructure before.
    pub(crate) failures: u32,
}

/// Where the work begins.
pub(crate) enum Begin {
    /// With a new machine, in the try that the log has begun.
    Fresh,
    /// With a machine in which the steps may run already, for so long at most; the log goes on.
    Adopted(Box<Machine>, Duration),
}

impl Work<'_> {
    /// Works on the job until its end; its last event is the final one.
    pub(crate) async fn run(mut self, mut log: EventLog, begin: Begin) -> Ended {
        let mut begin = Some(begin);
        loop {
            let tried = {
                let attempt = self.attempt(&mut log, begin.take());
                let words = self.words;
                tokio::select! {
                    tried = attempt => tried,
                    () = words.control.destroy.cancelled() => Err(TryError::Cancelled),
                    () = words.abandon.cancelled() => Err(TryError::Abandoned),
                    () = words.expire.cancelled() => Err(self.expired().into()),
                }
            };
            match tried {
                Err(TryError::Abandoned | TryError::Left) => return Ended::Dropped,
                // Without a log a service knows of no end: whoever has the journal next goes on.
                Err(TryError::ReceiverGone) if self.record.is_durable() => return Ended::Dropped,
                Ok(result) => return log.finish(result, None).await.into(),
                Err(TryError::Cancelled | TryError::ReceiverGone) => {
                    return finish_cancelled(log).await.into();
                }
                Err(TryError::Infrastructure(cause)) => {
                    let again = self.is_worth_another(&cause, &log);
                    if !again {
                        return finish_failed(log, cause).await.into();
                    }
                    self.failures += 1;
                    if self.record.end_try(Some(cause.cause)).await.is_err() {
                        return Ended::Dropped;
                    }
                    drop(log.abandon_step(Conclusion::Failure, &error_lines(&cause)).await);
                    drop(log.notice("Trying once more on a fresh machine.").await);
                }
            }
        }
    }

    fn is_worth_another(&self, cause: &Infrastructure, log: &EventLog) -> bool {
        // The message may have bytes of the guest in it: it goes through the masker only.
        let code = cause.cause.code();
        tracing::warn!(job.id = %self.request.envelope.job, code, "try failed");
        let again = cause.cause.is_transient()
            && !log.user_step_started()
            && self.failures < RETRIES
            && !self.words.control.cancel.is_cancelled()
            && !self.words.expire.is_cancelled();
        if again {
            crate::metrics::retried(cause.cause);
        }
        again
    }

    fn expired(&self) -> Infrastructure {
        let state = self.record.state_now();
        Infrastructure::new(
            Cause::Deadline,
            format!("the job was {} for longer than that may take", state.name()),
        )
    }

    async fn attempt(
        &self,
        log: &mut EventLog,
        begin: Option<Begin>,
    ) -> Result<JobResult, TryError> {
        match begin {
            Some(Begin::Adopted(machine, left)) => return self.go_on(*machine, left, log).await,
            Some(Begin::Fresh) => {}
            None => log.begin_try(self.record.begin_try().await?),
        }
        let cancelled = self.words.control.cancel.cancelled();
        self.record.enter(JobState::Preparing, PREPARING).await?;
        let started = tokio::select! {
            prepared = self.machines.prepare(self.request, &self.record, log) => prepared?,
            () = cancelled => return Err(TryError::Cancelled),
            // The next start begins anew.
            () = self.words.leave.cancelled() => return Err(TryError::Abandoned),
        };
        let Started { machine, image, guest } = started;
        let ended = self.boot_and_run(&machine, guest, &image, log).await;
        self.close(machine, ended, log).await
    }

    /// Goes on with a machine that runs since before this process.
    async fn go_on(
        &self,
        machine: Machine,
        left: Duration,
        log: &mut EventLog,
    ) -> Result<JobResult, TryError> {
        let text = "The orchestrator was restarted; going on with the same machine.";
        let ended = match log.notice(text).await {
            Ok(()) => self.run_steps(&machine, None, left, log).await,
            Err(gone) => Err(gone.into()),
        };
        self.close(machine, ended, log).await
    }

    /// Removes the machine, keeps it for its user, or leaves it.
    async fn close(
        &self,
        machine: Machine,
        ended: Result<JobResult, TryError>,
        log: &mut EventLog,
    ) -> Result<JobResult, TryError> {
        let failed = match &ended {
            Err(TryError::ReceiverGone) if self.record.is_durable() => {
                machine.leave();
                return ended;
            }
            Err(TryError::Left) => {
                machine.leave();
                return ended;
            }
            Err(TryError::Abandoned) => {
                machine.destroy().await;
                return ended;
            }
            Ok(result) => *result == JobResult::Failure,
            Err(TryError::Infrastructure(cause)) => {
                !cause.cause.is_transient() || log.user_step_started()
            }
            Err(TryError::Cancelled | TryError::ReceiverGone) => false,
        };
        if log.user_step_started() {
            self.record.step_started();
        }
        self.record.enter(JobState::Finishing, FINISHING).await?;
        let running = machine.ended().borrow().is_none();
        if let (true, Some(keep)) = (failed && running, self.machines.keep(self.request)) {
            self.keep(machine, keep, log).await?;
        } else {
            // The machine goes first: whoever receives the events may be slow.
            let begun = Instant::now();
            machine.destroy().await;
            let took = begun.elapsed();
            log.phase_was(Phase::Cleanup, took, None).await?;
            self.record.phase_took(Phase::Cleanup, took);
        }
        ended
    }

    /// Keeps the machine for its user: as it is, or frozen.
    async fn keep(
        &self,
        machine: Machine,
        (time, frozen): (Duration, bool),
        log: &mut EventLog,
    ) -> Result<(), TryError> {
        let now = SystemTime::now();
        let until = Timestamp::from(now + time);
        let name = machine.id().short();
        // A guest that cannot be frozen holds its memory, and so not for days.
        let running = Timestamp::from(now + time.min(UNFROZEN));
        machine.keep(&name, running).map_err(|error| error.infrastructure())?;
        let mut kept = Kept { machine: name, until: running, frozen: false };
        if frozen {
            match self.machines.freeze(&kept.machine, until).await {
                Ok(()) => kept = Kept { until, frozen: true, ..kept },
                Err(reason) => {
                    log.notice(&format!("The machine runs on, for it cannot be frozen: {reason}"))
                        .await?;
                }
            }
        }
        log.kept(kept).await?;
        Ok(())
    }

    async fn boot_and_run(
        &self,
        machine: &Machine,
        guest: Option<Guest>,
        image: &Image,
        log: &mut EventLog,
    ) -> Result<JobResult, TryError> {
        let cancelled = self.words.control.cancel.cancelled();
        let leave = self.words.leave.cancelled();
        let guest = tokio::select! {
            guest = self.boot(machine, guest, image, log) => guest?,
            () = cancelled => return Err(TryError::Cancelled),
            // Nothing of the job is in it: the next start begins with a fresh one.
            () = leave => return Err(TryError::Abandoned),
        };
        tokio::select! {
            started = self.start(machine, image, &guest) => started?,
            () = self.words.control.cancel.cancelled() => return Err(TryError::Cancelled),
        }
        self.run_steps(machine, Some(guest), self.limit(), log).await
    }

    /// From a started machine to one in which the job can be started.
    async fn boot(
        &self,
        machine: &Machine,
        guest: Option<Guest>,
        image: &Image,
        log: &mut EventLog,
    ) -> Result<Guest, TryError> {
        let entry = &image.entry;
        let preparation = entry.prepare.as_ref().map_or(Duration::ZERO, |prepare| prepare.deadline);
        let guest = if let Some(guest) = guest {
            self.record.enter(JobState::Ready, READY).await?;
            guest
        } else {
            let ceiling = self.record.boot_ceiling(machine, image).await;
            self.record.enter(JobState::Booting, ceiling + SWEEPER_MARGIN).await?;
            let begun = Instant::now();
            self.machines.follow_boot(machine, ceiling, log).await?;
            self.record.booted(machine, image, begun.elapsed());
            self.record.enter(JobState::Ready, READY + preparation).await?;
            self.machines.login(machine, &self.record, log).await?
        };
        self.machines.place(self.request, machine, entry, &guest, &self.record, log).await?;
        Ok(guest)
    }

    /// Starts the job in its machine. A service that ends waits for this: a machine that it removed
    /// now, or left without the job, would cost the job, which may have begun.
    async fn start(&self, machine: &Machine, image: &Image, guest: &Guest) -> Result<(), TryError> {
        // Recorded before the job can begin: what may have begun is never begun again.
        let budget = self.limit() + SWEEPER_MARGIN;
        self.record.enter(JobState::Running, budget).await?;
        self.machines.start_job(self.request, machine, &image.entry, guest).await
    }

    fn limit(&self) -> Duration {
        limit(self.request, self.machines.patience())
    }

    async fn run_steps(
        &self,
        machine: &Machine,
        guest: Option<Guest>,
        limit: Duration,
        log: &mut EventLog,
    ) -> Result<JobResult, TryError> {
        if guest.is_some() {
            log.phase(Phase::Steps, None).await?;
        }
        let begun = Instant::now();
        let control = &self.words.control;
        let services = self.machines.services(self.request);
        let end = {
            let steps = steps::run(
                self.request,
                machine,
                guest,
                log,
                &control.cancel,
                (Arc::clone(&services), self.machines.patience().ssh_lost),
            );
            tokio::select! {
                end = steps => end,
                () = deadline(limit, control) => Ok(StepsEnd::Late),
                () = self.words.leave.cancelled() => return Err(TryError::Left),
            }
        };
        services.end().await;
        let end = end?;
        self.record.phase_took(Phase::Steps, begun.elapsed());
        log.end_phase().await?;
        match end {
            StepsEnd::Finished(result) => match log.failure() {
                Some(cause) => Err(cause.into()),
                None => Ok(result),
            },
            StepsEnd::Late if control.cancel.is_cancelled() => Err(TryError::Cancelled),
            StepsEnd::Late => Err(Infrastructure::new(
                Cause::Deadline,
                format!(
                    "the job did not end within its limit of {} s and the time that steps have \
                     after it",
                    self.request.envelope.deadlines.running.as_secs()
                ),
            )
            .into()),
        }
    }
}

/// Ends a job as cancelled.
pub(crate) async fn finish_cancelled(mut log: EventLog) -> Result<Finished, ReceiverGone> {
    // Who cancelled may not be listening any more.
    drop(log.abandon_step(Conclusion::Cancelled, "The job was cancelled.").await);
    log.finish(JobResult::Cancelled, None).await
}

/// Ends a job by a failure of the infrastructure.
pub(crate) async fn finish_failed(
    mut log: EventLog,
    cause: Infrastructure,
) -> Result<Finished, ReceiverGone> {
    drop(log.abandon_step(Conclusion::Failure, &error_lines(&cause)).await);
    log.finish(JobResult::Failure, Some(cause)).await
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

/// How long the host lets the steps of a job run.
pub(crate) fn limit(request: &JobRequest, patience: Patience) -> Duration {
    request.envelope.deadlines.running.min(LONGEST) + patience.after_limit
}

/// Waits until the job must be over: its own deadline, or the ladder's after a cancel.
async fn deadline(limit: Duration, control: &JobControl) {
    let latest = Instant::now() + limit;
    if timeout(latest - Instant::now(), control.cancel.cancelled()).await.is_ok() {
        sleep_until(latest.min(Instant::now() + CANCEL)).await;
    }
}

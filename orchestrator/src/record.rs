//! What a worker writes down about its job while it goes on.
//!
//! A change of state is written before what it announces is done; it waits out a database that is
//! away. What is only for people and statistics goes through a bounded queue beside the work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::event::Phase;
use common::ids::{JobId, LeaseId, VmId};
use common::infrastructure::Cause;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vm_manager::image::Image;
use vm_manager::machine::Machine;

use crate::clock::Clock;
use crate::job::CANCEL;
use crate::store::{BootTimes, JobState, Size, Store, StoreError};

/// The first pause after the database could not be used; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the end of a job waits for what is noted beside the work.
const NOTES: Duration = Duration::from_secs(2);
/// Boots of one kind before their times count instead of the image's ceiling.
const BOOTS_KNOWN: u32 = 20;
/// The shortest ceiling for a boot, however fast boots were.
const SHORTEST_CEILING: Duration = Duration::from_secs(30);

/// The job is another host's now.
#[derive(Debug)]
pub(crate) struct LeaseLost;

/// What is written beside the work.
#[derive(Debug)]
pub(crate) enum Note {
    /// A phase is over.
    Phase(JobId, LeaseId, Phase, Duration),
    /// A step of the user has started.
    StepStarted(JobId, LeaseId),
    /// A machine has booted.
    Booted(String, Size, &'static str, Duration),
    /// Nothing: whoever waits here learns that all before it is written.
    All(oneshot::Sender<()>),
}

/// What the sweeper sees of a job that has a worker.
#[derive(Debug)]
pub(crate) struct Stage {
    clock: Clock,
    now: Mutex<(JobState, Duration)>,
}

impl Stage {
    /// A stage that must be left within a time.
    pub(crate) fn new(clock: Clock, state: JobState, budget: Duration) -> Self {
        let until = clock.since_boot().saturating_add(budget);
        Self { clock, now: Mutex::new((state, until)) }
    }

    /// Enters a state for at most a time.
    pub(crate) fn enter(&self, state: JobState, budget: Duration) {
        let until = self.clock.since_boot().saturating_add(budget);
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = (state, until);
    }

    /// The state, and whether its time is over.
    pub(crate) fn look(&self) -> (JobState, bool) {
        let (state, until) = *self.now.lock().unwrap_or_else(PoisonError::into_inner);
        (state, self.clock.since_boot() > until)
    }
}

/// Where a worker writes down how far its job is.
#[derive(Clone, Debug)]
pub(crate) enum Recorder {
    /// Nowhere: a job of `solstice run` without a service. Counts the tries.
    Nowhere(Arc<Mutex<u32>>),
    /// In the database, by a lease.
    Store(Hold),
}

/// One worker's hold on its job.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) store: Store,
    pub(crate) job: JobId,
    pub(crate) lease: LeaseId,
    pub(crate) stage: Arc<Stage>,
    pub(crate) notes: mpsc::Sender<Note>,
    /// What its worker hears when the job's end was asked for.
    pub(crate) cancel: CancellationToken,
    /// The image's label, for metrics.
    pub(crate) label: String,
    /// The machine's size.
    pub(crate) size: Size,
}

impl Recorder {
    /// Enters a state, which must be left within a time.
    pub(crate) async fn enter(&self, state: JobState, budget: Duration) -> Result<(), LeaseLost> {
        let Self::Store(hold) = self else { return Ok(()) };
        // Cancelling lasts until the end, whatever the worker still does.
        if hold.stage.look().0 == JobState::Cancelling && state != JobState::Finishing {
            return Ok(());
        }
        hold.stage.enter(state, budget);
        let advance = || hold.store.advance(hold.job, hold.lease, state, budget);
        let is_cancelled = hold.insist(advance).await?;
        // It was asked for before there was a worker to hear it, or on another host.
        if is_cancelled && state != JobState::Finishing && !hold.cancel.is_cancelled() {
            hold.cancel.cancel();
            hold.stage.enter(JobState::Cancelling, CANCEL);
        }
        Ok(())
    }

    /// The state that was entered last.
    pub(crate) fn state_now(&self) -> JobState {
        match self {
            Self::Nowhere(_) => JobState::Running,
            Self::Store(hold) => hold.stage.look().0,
        }
    }

    /// Begins a further try; its number.
    pub(crate) async fn begin_try(&self) -> Result<u32, LeaseLost> {
        match self {
            Self::Nowhere(tries) => {
                let mut tries = tries.lock().unwrap_or_else(PoisonError::into_inner);
                *tries += 1;
                Ok(*tries)
            }
            Self::Store(hold) => hold.insist(|| hold.store.begin_try(hold.job, hold.lease)).await,
        }
    }

    /// Ends the current try.
    pub(crate) async fn end_try(&self, cause: Option<Cause>) -> Result<(), LeaseLost> {
        let Self::Store(hold) = self else { return Ok(()) };
        let cause = cause.map(Cause::code);
        hold.insist(|| hold.store.end_try(hold.job, hold.lease, cause)).await
    }

    /// Names the machine of the current try, before it starts.
    pub(crate) async fn attach_vm(&self, vm: VmId) -> Result<(), LeaseLost> {
        let Self::Store(hold) = self else { return Ok(()) };
        hold.insist(|| hold.store.attach_vm(hold.job, hold.lease, vm)).await
    }

    /// Whether the machine shall be adoptable.
    pub(crate) fn is_durable(&self) -> bool {
        matches!(self, Self::Store(_))
    }

    /// A phase is over.
    pub(crate) fn phase_took(&self, phase: Phase, took: Duration) {
        let Self::Store(hold) = self else { return };
        crate::metrics::phase(&hold.label, phase, took);
        hold.note(Note::Phase(hold.job, hold.lease, phase, took));
    }

    /// A step of the user has started. For people, and for who takes the job over without its log;
    /// nothing rests on it alone: that the job may have begun is recorded by its state, before it
    /// begins.
    pub(crate) fn step_started(&self) {
        let Self::Store(hold) = self else { return };
        hold.note(Note::StepStarted(hold.job, hold.lease));
    }

    /// A machine has booted.
    pub(crate) fn booted(&self, machine: &Machine, image: &Image, took: Duration) {
        self.phase_took(Phase::Boot, took);
        let Self::Store(hold) = self else { return };
        let (image, acceleration) = kind(machine, image);
        hold.note(Note::Booted(image, hold.size, acceleration, took));
    }

    /// How long a machine may take to boot: the image's ceiling, or less once enough boots of its
    /// kind are known.
    pub(crate) async fn boot_ceiling(&self, machine: &Machine, image: &Image) -> Duration {
        let ceiling = image.entry.boot_ceiling;
        let Self::Store(hold) = self else { return ceiling };
        let (image, acceleration) = kind(machine, image);
        match hold.store.boot_times(&image, hold.size, acceleration).await {
            Ok(Some(times)) => shorter_ceiling(times, ceiling),
            // Without the database the image's own ceiling is right, if generous.
            Ok(None) | Err(_) => ceiling,
        }
    }
}

impl Hold {
    /// Does something in the database, however long that is away. The sweeper ends the job when its
    /// state takes too long.
    pub(crate) async fn insist<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, LeaseLost>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = PAUSE;
        loop {
            match call().await {
                Ok(done) => return Ok(done),
                Err(StoreError::LeaseLost { .. }) => return Err(LeaseLost),
                Err(error) => {
                    crate::metrics::error("store");
                    tracing::warn!(job.id = %self.job, %error, "cannot record a job's state; trying again");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for a short while until what was noted of the job is written: a job that is over takes
    /// no further notes.
    pub(crate) async fn notes_written(&self) {
        let (sender, written) = oneshot::channel();
        let all = async {
            if self.notes.send(Note::All(sender)).await.is_ok() {
                drop(written.await);
            }
        };
        drop(timeout(NOTES, all).await);
    }

    /// Statistics that nobody takes in time are dropped.
    fn note(&self, note: Note) {
        drop(self.notes.try_send(note));
    }
}

/// What boots of machines are compared by, beside their size.
fn kind(machine: &Machine, image: &Image) -> (String, &'static str) {
    (image.digest.clone(), machine.accelerator().acceleration.name())
}

/// The rule of design section 5: four medians or twice the longest, never above the ceiling.
fn shorter_ceiling(times: BootTimes, ceiling: Duration) -> Duration {
    if times.count < BOOTS_KNOWN {
        return ceiling;
    }
    (times.median * 4).max(times.longest * 2).max(SHORTEST_CEILING).min(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_follows_the_boots_that_were_seen() {
        let check = |count, median, longest, expected| {
            let seconds = Duration::from_secs;
            let times = BootTimes { count, median: seconds(median), longest: seconds(longest) };
            assert_eq!(shorter_ceiling(times, seconds(300)), seconds(expected), "{times:?}");
        };
        check(19, 1, 1, 300);
        check(20, 1, 1, 30);
        check(20, 10, 11, 40);
        check(20, 10, 30, 60);
        check(20, 100, 100, 300);
    }

    #[test]
    fn a_stage_is_over_when_its_time_is() {
        let stage = Stage::new(Clock::system(), JobState::Claimed, Duration::from_secs(3600));
        assert_eq!(stage.look(), (JobState::Claimed, false));
        stage.enter(JobState::Booting, Duration::ZERO);
        std::thread::yield_now();
        assert_eq!(stage.look().0, JobState::Booting);
        while !stage.look().1 {
            std::thread::yield_now();
        }
    }
}

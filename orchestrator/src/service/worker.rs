//! A worker carries one job through.

use std::sync::Arc;
use std::time::Duration;

use common::event::{Finished, Phase};
use common::ids::{JobId, LeaseId};
use common::infrastructure::Infrastructure;
use common::request::JobRequest;
use queue::Address;
use queue::message::JobMessage;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, unreadable};
use super::{Inner, journal_failure};
use crate::events::{EventLog, LogState, Outlet};
use crate::job::{self, Begin, Ended, Words, Work};
use crate::journal::{JournalError, JournalSender};
use crate::masking::Masker;
use crate::metrics;
use crate::record::{Hold, Recorder, Stage};
use crate::standalone::{masker, new_log};
use crate::store::{Claimed, JobState, Size};

/// How long a job may be claimed before its worker does anything.
const CLAIMED: Duration = Duration::from_secs(60);

/// A job that this process works on.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) words: Words,
    pub(super) stage: Arc<Stage>,
    pub(super) size: Size,
}

impl Worker {
    /// Tells it, once, that the job's end was asked for.
    pub(super) fn pass_cancel(&self) {
        if !self.words.control.cancel.is_cancelled() {
            self.words.control.cancel.cancel();
            self.stage.enter(JobState::Cancelling, job::CANCEL);
        }
    }
}

/// A job that this host holds.
pub(super) struct Held {
    pub(super) message: JobMessage,
    pub(super) lease: LeaseId,
    pub(super) size: Size,
    pub(super) failures: u32,
}

/// What the log says of a job without a valid reservation (design, section 4).
const UNRESERVED: &str =
    "No room was reserved for this job when it was taken from its forge, so it may have waited.";

impl Inner {
    /// Starts the worker of a job that was just taken from the table.
    pub(super) fn start_claimed(self: &Arc<Self>, claimed: Claimed) {
        if let Err(error) = claimed.message.open(&self.keys) {
            metrics::error("recorded job");
            tracing::error!(job.id = %claimed.message.envelope().job, %error, "a recorded job cannot be read");
            return self.answer_taken(claimed, Answer::Failed(unreadable(&error)));
        }
        let waited = self.clock.now().since(claimed.created);
        metrics::queue_wait(waited);
        let (number, unreserved) = (claimed.try_number, claimed.unreserved);
        let held = Held {
            message: claimed.message,
            lease: claimed.lease,
            size: claimed.size,
            failures: claimed.failures,
        };
        self.start_worker(held, move |inner, held, request| async move {
            let mut log = inner
                .begin_log(&held.message, Some(&request))
                .map_err(|error| journal_failure(&error))?;
            log.begin_try(number);
            if number == 1 {
                let host = format!("on {}", inner.name);
                drop(log.phase_was(Phase::Queue, waited, Some(host)).await);
            }
            if number == 1 && unreserved {
                drop(log.notice(UNRESERVED).await);
            }
            Ok((log, Begin::Fresh))
        });
    }

    /// Starts a worker, whose log and beginning `open` provides.
    pub(super) fn start_worker<F, O>(self: &Arc<Self>, held: Held, open: O)
    where
        O: FnOnce(Arc<Self>, Arc<Held>, Arc<JobRequest>) -> F + Send + 'static,
        F: Future<Output = Result<(EventLog, Begin), Infrastructure>> + Send,
    {
        let job = held.message.envelope().job;
        let stage = Arc::new(Stage::new(self.clock.clone(), JobState::Claimed, CLAIMED));
        let words = Words::default();
        let worker = Worker { words: words.clone(), stage: Arc::clone(&stage), size: held.size };
        if self.workers().insert(job, worker).is_some() {
            tracing::error!(job.id = %job, "a job has two workers; the first is ended");
        }
        // One that comes while the service ends was not there when all were told.
        if self.stop.is_cancelled() {
            words.leave.cancel();
        }
        let inner = Arc::clone(self);
        let held = Arc::new(held);
        self.working.spawn(async move {
            // However this ends, the next look at the table finds the room that was used.
            let _leave = LeaveWorkers { inner: Arc::clone(&inner), job, stage: Arc::clone(&stage) };
            inner.carry(held, &words, stage, open).await;
        });
    }

    async fn carry<F, O>(
        self: &Arc<Self>,
        held: Arc<Held>,
        words: &Words,
        stage: Arc<Stage>,
        open: O,
    ) where
        O: FnOnce(Arc<Self>, Arc<Held>, Arc<JobRequest>) -> F + Send,
        F: Future<Output = Result<(EventLog, Begin), Infrastructure>> + Send,
    {
        let job = held.message.envelope().job;
        let mut hold = self.hold(&held, stage);
        hold.cancel = words.control.cancel.clone();
        let request = match held.message.open(&self.keys) {
            Ok(request) => Arc::new(request),
            Err(error) => {
                // Whoever started this worker has opened it before.
                return self.end_without_log(&hold, unreadable(&error)).await;
            }
        };
        let opened = open(Arc::clone(self), Arc::clone(&held), Arc::clone(&request)).await;
        let (log, begin) = match opened {
            Ok(opened) => opened,
            Err(cause) => return self.end_without_log(&hold, cause).await,
        };
        let work = Work {
            machines: &self.machines,
            request: &request,
            words,
            record: Recorder::Store(hold.clone()),
            failures: held.failures,
        };
        match work.run(log, begin).await {
            Ended::Finished(finished) => self.conclude(&hold, &finished).await,
            Ended::Dropped => tracing::info!(job.id = %job, "left"),
        }
    }

    /// A hold on a job.
    pub(super) fn hold(&self, held: &Held, stage: Arc<Stage>) -> Hold {
        Hold {
            store: self.store.clone(),
            job: held.message.envelope().job,
            lease: held.lease,
            stage,
            notes: self.notes.clone(),
            cancel: CancellationToken::new(),
            label: held.message.envelope().label.clone(),
            size: held.size,
        }
    }

    /// Records the end of a job whose final event is in its journal.
    pub(super) async fn conclude(&self, hold: &Hold, finished: &Finished) {
        hold.notes_written().await;
        let recorded =
            hold.insist(|| hold.store.finish(hold.job, Some(hold.lease), finished)).await;
        if let Ok(true) = recorded {
            metrics::finished(finished);
            let code = finished.infrastructure.as_ref().map(|cause| cause.cause.code());
            tracing::info!(job.id = %hold.job, result = finished.result.name(), code, "done");
        }
    }

    /// Ends a job that cannot have a log now: operators see the cause, and its forge runner is told
    /// the end as one that is owed.
    pub(super) async fn end_without_log(&self, hold: &Hold, cause: Infrastructure) {
        metrics::error("journal");
        tracing::error!(job.id = %hold.job, code = cause.cause.code(), "{}", cause.message);
        let result = common::event::JobResult::Failure;
        self.conclude(hold, &Finished { result, infrastructure: Some(cause) }).await;
    }

    /// The log of a job that has none here, or goes on with the one that it has. Without the request
    /// nothing of the job itself may be written into it: nobody knows its secrets.
    pub(super) fn begin_log(
        &self,
        message: &JobMessage,
        request: Option<&JobRequest>,
    ) -> Result<EventLog, JournalError> {
        let job = message.envelope().job;
        let address = reply_address(message);
        let earlier = self.journals.reopen(job, address.clone())?;
        match earlier {
            Some(earlier) => {
                let state = earlier.state.unwrap_or_default();
                Ok(match request {
                    Some(request) => resume(request, earlier.sender, Some(state)),
                    None => without_request(job, earlier.sender, state),
                })
            }
            None => {
                let sender = self.journals.create(job, address)?;
                Ok(match request {
                    Some(request) => new_log(request, Outlet::Journal(sender)),
                    None => without_request(job, sender, LogState::default()),
                })
            }
        }
    }

    /// Tells the worker of a job that its end was asked for.
    pub(super) fn pass_cancel(&self, job: JobId) {
        if let Some(worker) = self.workers().get(&job) {
            worker.pass_cancel();
        }
    }

    /// Destroys the machine of a job at once.
    pub(super) fn destroy(&self, job: JobId) {
        if let Some(worker) = self.workers().get(&job) {
            worker.words.control.destroy.cancel();
        }
    }
}

/// A log that goes on.
pub(super) fn resume(
    request: &JobRequest,
    sender: JournalSender,
    state: Option<LogState>,
) -> EventLog {
    match state {
        Some(state) => {
            let job = request.envelope.job;
            let steps = request.body.plan.steps.len();
            EventLog::resume(job, steps, masker(request), Outlet::Journal(sender), state)
        }
        None => new_log(request, Outlet::Journal(sender)),
    }
}

/// A log that goes on without what its job's request says.
fn without_request(job: JobId, sender: JournalSender, state: LogState) -> EventLog {
    let state = state.without_held_lines();
    EventLog::resume(job, 0, Masker::new([]), Outlet::Journal(sender), state)
}

/// Where a job's events go; nowhere for a local one.
pub(super) fn reply_address(message: &JobMessage) -> Option<Address> {
    let text = &message.envelope().reply_to;
    // Decoding a message checks it.
    if text.is_empty() { None } else { text.parse().ok() }
}

/// Takes a worker off the list when it ends, also by a panic.
struct LeaveWorkers {
    inner: Arc<Inner>,
    job: JobId,
    stage: Arc<Stage>,
}

impl Drop for LeaveWorkers {
    fn drop(&mut self) {
        let mut workers = self.inner.workers();
        // Not another one that has begun since.
        if workers.get(&self.job).is_some_and(|worker| Arc::ptr_eq(&worker.stage, &self.stage)) {
            workers.remove(&self.job);
        }
        drop(workers);
        self.inner.wake.notify_one();
    }
}

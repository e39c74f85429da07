//! Going on with what an earlier process, a worker that failed, or a dead host left.

use std::sync::Arc;
use std::time::Duration;

use common::event::{Finished, JobResult};
use common::ids::{JobId, LeaseId, VmId};
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use queue::message::{JobMessage, MessageError};
use vm_manager::host::FoundMachine;
use vm_manager::machine::Machine;

use super::answer::{Answer, NONE, unreadable};
use super::worker::{Held, reply_address, resume};
use super::{Inner, StartError, journal_failure};
use crate::events::EventLog;
use crate::job::{Begin, finish_failed, limit};
use crate::journal::Reopened;
use crate::lifecycle::{Action, LogSeen, MachineSeen, Observed, RETRIES, decide};
use crate::record::Stage;
use crate::store::{Active, Job, JobState, Size};

/// What an adopted job may still run, at least: enough to hear of an end that has come already.
const LEAST_LEFT: Duration = Duration::from_secs(30);

impl Inner {
    /// Goes on with everything that is recorded for this host, in the background: a large log or a
    /// disk without room must not keep the host from saying that it lives.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), StartError> {
        let machines: Arc<[FoundMachine]> = self.found().await?.into();
        let active = self.store.active(self.host).await?;
        if !active.is_empty() {
            tracing::info!(jobs = active.len(), "going on with jobs of an earlier process");
        }
        for left in active {
            self.look_after(left, Arc::clone(&machines));
        }
        self.tell_owed();
        Ok(())
    }

    /// Publishes what the forge runners of finished jobs have not got, in the background, unless that
    /// goes on already.
    pub(super) fn tell_owed(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        self.working.spawn(async move {
            let Ok(_turn) = inner.telling.try_acquire() else { return };
            match inner.store.undelivered(inner.host).await {
                Ok(undelivered) => inner.tell_rest(undelivered).await,
                Err(error) => {
                    crate::metrics::error("store");
                    tracing::warn!(%error, "cannot list the ends that are owed; trying again");
                }
            }
        });
    }

    async fn tell_rest(&self, undelivered: Vec<Job>) {
        for job in undelivered {
            if self.stop.is_cancelled() {
                return;
            }
            if self.journals.is_open(job.id) {
                continue;
            }
            let Some(_in_hand) = self.hands.take(job.id, NONE) else { continue };
            self.publish_rest(&job).await;
        }
    }

    /// Does what is to be done about a job without a worker, in the background, unless that goes on
    /// already.
    pub(super) fn look_after(self: &Arc<Self>, left: Active, machines: Arc<[FoundMachine]>) {
        let size = left.job.size.unwrap_or(NONE);
        let Some(in_hand) = self.hands.take(left.job.id, size) else { return };
        let inner = Arc::clone(self);
        self.working.spawn(async move {
            let _in_hand = in_hand;
            inner.settle_left(left, &machines).await;
        });
    }

    /// The machines of this host, with and without an owner in this process.
    pub(super) async fn found(&self) -> Result<Vec<FoundMachine>, vm_manager::host::HostError> {
        self.machines.instance().await?.machines()
    }

    /// Looks at a job without a worker, and does what is to be done about it.
    async fn settle_left(self: &Arc<Self>, left: Active, machines: &[FoundMachine]) {
        // Closed only with the process.
        let Ok(turn) = self.settling.acquire().await else { return };
        // The next process finds it as it is.
        if self.stop.is_cancelled() {
            return;
        }
        let found = left.vm.and_then(|vm| machines.iter().find(|found| found.vm == vm));
        let mut machine = match found {
            None => MachineSeen::None,
            Some(found) if found.running => MachineSeen::Running,
            Some(_) => MachineSeen::Gone,
        };
        let job = left.job.id;
        let request = match left.message.open(&self.keys) {
            Ok(request) => Arc::new(request),
            Err(error) => return self.end_unreadable(left, &error).await,
        };
        let late = self.is_late(&left).await;
        let (reopened, log) = match self.journals.reopen(job, reply_address(&left.message)) {
            Ok(reopened) => {
                let log = match seen_of(reopened.as_ref()) {
                    // That of a dead host; the table knows something as well.
                    LogSeen::None if left.job.user_step_started => LogSeen::StepStarted,
                    log => log,
                };
                (reopened, log)
            }
            Err(error) => {
                crate::metrics::error("journal");
                tracing::error!(job.id = %job, %error, "a job's journal cannot be read");
                // A key may yet be added, and the disk come back.
                let is_lost = error.is_final() || late && error.is_for_want_of_a_key();
                if !is_lost || !self.set_aside(job) {
                    return;
                }
                // Nobody can go on with a guest without knowing what it has said.
                machine = MachineSeen::Gone;
                let may_have_begun = left.job.user_step_started || left.job.state.may_have_begun();
                (None, if may_have_begun { LogSeen::StepStarted } else { LogSeen::None })
            }
        };
        let mut adopted = None;
        let action = loop {
            let seen = Observed {
                ours: true,
                worker: false,
                machine,
                log,
                cancel: left.job.cancel_requested,
                late,
                tries_left: left.failures <= RETRIES,
            };
            let action = decide(left.job.state, &seen);
            tracing::info!(job.id = %job, state = left.job.state.name(), ?action, "a job was left");
            if action == Action::Adopt && adopted.is_none() {
                let Some(vm) = left.vm else { return };
                match self.machines.adopt(vm).await {
                    Ok(machine) => adopted = Some(machine),
                    Err(reason) => {
                        tracing::warn!(job.id = %job, vm.id = %vm, reason, "cannot go on with a machine");
                        self.remove_machine(vm).await;
                        machine = MachineSeen::Gone;
                        continue;
                    }
                }
            }
            break action;
        };
        // What follows may wait for the disk or the database.
        drop(turn);
        self.act(left, request, reopened, action, adopted).await;
    }

    async fn is_late(&self, left: &Active) -> bool {
        let now = self.store.now().await.unwrap_or_else(|_| self.clock.now());
        left.job.deadline.is_some_and(|deadline| deadline < now)
    }

    /// Puts a job's journal aside that cannot be used. Says whether it is out of the way.
    fn set_aside(&self, job: JobId) -> bool {
        let moved = self.journals.set_aside(job);
        if let Err(error) = &moved {
            tracing::error!(job.id = %job, %error, "a journal cannot be put aside");
        }
        moved.is_ok()
    }

    /// A job that cannot be opened. Its key may yet be added, so it has its time.
    async fn end_unreadable(self: &Arc<Self>, left: Active, error: &MessageError) {
        crate::metrics::error("recorded job");
        let job = left.job.id;
        tracing::error!(job.id = %job, %error, "a recorded job cannot be read");
        let Some(lease) = left.job.lease else { return };
        // Its log is sealed with this host's own key, and may have the end already.
        let reopened = self.journals.reopen(job, reply_address(&left.message)).ok().flatten();
        let finished = reopened.and_then(|reopened| reopened.finished);
        let late = self.is_late(&left).await;
        if finished.is_none() && !late && !left.job.cancel_requested {
            return;
        }
        if let Some(vm) = left.vm {
            self.remove_machine(vm).await;
        }
        let held = held(left, lease);
        match finished {
            Some(finished) => self.record_end(&held, Some(finished)).await,
            None => self.end_left(&held, Answer::Failed(unreadable(error))).await,
        }
    }

    async fn act(
        self: &Arc<Self>,
        left: Active,
        request: Arc<JobRequest>,
        reopened: Option<Reopened>,
        action: Action,
        adopted: Option<Machine>,
    ) {
        let job = left.job.id;
        let Some(lease) = left.job.lease else { return };
        if !matches!(action, Action::Adopt | Action::Leave)
            && let Some(vm) = left.vm
        {
            self.remove_machine(vm).await;
        }
        let (state, only, tries) = (left.job.state, left.job.only, left.job.tries);
        let (deadline, cancel) = (left.job.deadline, left.job.cancel_requested);
        let held = held(left, lease);
        match action {
            Action::Adopt => {
                let (Some(machine), Some(reopened)) = (adopted, reopened) else { return };
                // By the clock that the deadline was written with, which is not always this host's.
                let now = self.store.now().await.unwrap_or_else(|_| self.clock.now());
                let remaining = deadline.map(|until| until.since(now));
                // Never more than it had at its start, whatever the clocks say.
                let most = limit(&request, self.machines.patience());
                let remaining = remaining.unwrap_or_default().min(most).max(LEAST_LEFT);
                let mut log = resume(&request, reopened.sender, reopened.state);
                log.go_on_in_try(tries);
                self.go_on(held, state, cancel, machine, remaining, log);
            }
            Action::TryAgain if only.is_some_and(|only| only != self.host) => {
                self.give_back(&held).await;
            }
            Action::TryAgain => self.try_again(held).await,
            Action::RecordEnd => {
                let finished = reopened.and_then(|reopened| reopened.finished);
                self.record_end(&held, finished).await;
            }
            Action::FinishAsSaid => self.finish_as_said(&held, &request, reopened).await,
            Action::FinishCancelled => self.end_left(&held, Answer::Cancelled).await,
            Action::Fail(cause) => {
                let message = sentence(cause, state);
                self.end_left(&held, Answer::Failed(Infrastructure::new(cause, message))).await;
            }
            Action::Leave | Action::RemoveMachine | Action::Abandon => {}
            Action::PassCancel | Action::Expire => {
                tracing::error!(job.id = %job, ?action, "a job without a worker");
            }
        }
    }

    fn go_on(
        self: &Arc<Self>,
        held: Held,
        state: JobState,
        cancel: bool,
        machine: Machine,
        remaining: Duration,
        log: EventLog,
    ) {
        let job = held.message.envelope().job;
        let begin = Begin::Adopted(Box::new(machine), remaining);
        self.start_worker(held, move |_, _, _| async move { Ok((log, begin)) });
        if let Some(worker) = self.workers().get(&job) {
            worker.stage.enter(state, remaining);
        }
        if cancel || state == JobState::Cancelling {
            self.pass_cancel(job);
        }
    }

    /// A job that was taken over and that only its own host may run waits for that.
    async fn give_back(&self, held: &Held) {
        let job = held.message.envelope().job;
        if let Err(error) = self.store.requeue(job, held.lease).await {
            tracing::warn!(job.id = %job, %error, "cannot give a job back");
        }
    }

    /// A fresh machine for a job of which only a boot was lost. That counts as no failure.
    async fn try_again(self: &Arc<Self>, held: Held) {
        let job = held.message.envelope().job;
        let begun = async {
            self.store.end_try(job, held.lease, None).await?;
            self.store.begin_try(job, held.lease).await
        };
        match begun.await {
            Ok(number) => self.start_worker(held, move |inner, held, request| async move {
                let mut log = inner
                    .begin_log(&held.message, Some(&request))
                    .map_err(|error| journal_failure(&error))?;
                log.begin_try(number);
                drop(log.notice("The orchestrator was restarted; beginning again.").await);
                Ok((log, Begin::Fresh))
            }),
            // The sweep finds it again.
            Err(error) => tracing::warn!(job.id = %job, %error, "cannot begin a job again"),
        }
    }

    /// What the log lost with its host is unknown, so the end stands in a try of its own.
    async fn end_left(self: &Arc<Self>, held: &Held, answer: Answer) {
        self.end_held(held, None, answer).await;
    }

    async fn finish_as_said(&self, held: &Held, request: &JobRequest, reopened: Option<Reopened>) {
        let Some(Reopened { sender, state: Some(state), .. }) = reopened else { return };
        let result = state.result.unwrap_or(JobResult::Failure);
        let log = resume(request, sender, Some(state));
        let finished = match log.failure() {
            Some(cause) => finish_failed(log, cause).await,
            None => log.finish(result, None).await,
        };
        self.record_end(held, finished.ok()).await;
    }

    async fn record_end(&self, held: &Held, finished: Option<Finished>) {
        let Some(finished) = finished else { return };
        let stage = Stage::new(self.clock.clone(), JobState::Finishing, super::LEAVE);
        self.conclude(&self.hold(held, Arc::new(stage)), &finished).await;
    }

    /// Goes on publishing what a finished job's forge runner has not got yet.
    async fn publish_rest(&self, job: &Job) {
        let message = match self.store.message(job.id).await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                return tracing::warn!(job.id = %job.id, %error, "cannot publish a job's end");
            }
        };
        match self.journals.reopen(job.id, reply_address(&message)) {
            // The sender may go: the journal publishes what is there.
            Ok(Some(reopened)) if reopened.finished.is_some() => {}
            // It was another host's, or its file was removed.
            Ok(_) => self.tell_end(job, &message).await,
            Err(error) => {
                crate::metrics::error("journal");
                tracing::error!(job.id = %job.id, %error, "a finished job's journal cannot be read");
                if error.is_final() && self.set_aside(job.id) {
                    self.tell_end(job, &message).await;
                }
            }
        }
    }

    /// Tells a job's end, as the table has it, in a try of its own.
    async fn tell_end(&self, job: &Job, message: &JobMessage) {
        let Some(finished) = &job.finished else { return };
        let request = message.open(&self.keys).ok();
        let began = async {
            let number =
                self.store.begin_telling(job.id).await.map_err(|error| error.to_string())?;
            let log =
                self.begin_log(message, request.as_ref()).map_err(|error| error.to_string())?;
            Ok::<_, String>((number, log))
        };
        let told = match began.await {
            Ok((number, mut log)) => {
                log.begin_try(number.max(log.try_number() + 1));
                let lost = "The rest of the job's log is lost with the host that it ran on.";
                drop(log.notice(lost).await);
                let told = match &finished.infrastructure {
                    Some(cause) => finish_failed(log, cause.clone()).await,
                    None => log.finish(finished.result, None).await,
                };
                told.map(drop).map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        // Such as a full disk. The sweep tries it again.
        if let Err(error) = told {
            crate::metrics::error("journal");
            tracing::error!(job.id = %job.id, error, "cannot tell a job's end");
        }
    }

    /// Ends a machine that nobody needs.
    pub(super) async fn remove_machine(&self, vm: VmId) {
        let removed = match self.machines.instance().await {
            // Processes are waited for and files removed.
            Ok(instance) => tokio::task::spawn_blocking(move || instance.destroy(vm)).await,
            Err(error) => Ok(Err(error)),
        };
        match removed {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(vm.id = %vm, %error, "cannot remove a machine"),
            Err(error) => tracing::warn!(vm.id = %vm, %error, "cannot remove a machine"),
        }
    }
}

/// A recorded job under the lease that this host holds.
fn held(left: Active, lease: LeaseId) -> Held {
    let size = left.job.size.unwrap_or(Size { cpus: 1, memory: common::size::ByteSize(0) });
    Held { message: left.message, lease, size, failures: left.failures }
}

fn seen_of(reopened: Option<&Reopened>) -> LogSeen {
    let Some(reopened) = reopened else { return LogSeen::None };
    if reopened.finished.is_some() {
        return LogSeen::Final;
    }
    match &reopened.state {
        None => LogSeen::None,
        Some(state) if state.result.is_some() => LogSeen::Ended,
        Some(state) if state.user_step_started => LogSeen::StepStarted,
        Some(_) => LogSeen::Open,
    }
}

fn sentence(cause: Cause, state: JobState) -> String {
    match cause {
        Cause::Deadline => {
            format!("the job was {} for longer than that may take", state.name())
        }
        _ => format!(
            "the machine was lost while the job was {}; its steps may have begun, so it is not run \
             again",
            state.name()
        ),
    }
}

//! The sweeper: it enforces every deadline, and settles what contradicts the records.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::ids::{HostId, JobId};
use common::infrastructure::{Cause, Infrastructure};
use common::time::Timestamp;
use queue::message::REFUSED_LABEL;
use tokio::time::Instant;
use vm_manager::host::FoundMachine;

use super::Inner;
use super::answer::{Answer, unreadable};
use crate::lifecycle::{Action, LogSeen, MachineSeen, Observed, decide};
use crate::metrics;
use crate::store::{Job, JobState, StoreError};

/// How often the deadlines of the workers are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often waiting jobs are looked at that may wait for nothing.
const WAITING: Duration = Duration::from_secs(2);
/// How long the host that took a refused job in has to answer it; then it is lost.
const TURN_DOWN: Duration = Duration::from_secs(10);
/// How often records and machines are compared.
const RECONCILE: Duration = Duration::from_secs(30);
/// How often what is old is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// How long a job may be settled or ended before it is told of: the database, the broker or the disk
/// is waited for as long as it takes.
const SETTLED: Duration = Duration::from_secs(10 * 60);
/// For how long this host must have announced itself without a gap before it takes jobs of hosts
/// that seem dead: after the database was away, everybody seems dead to the first who is back.
const STEADY: Duration = Duration::from_secs(70);

/// A host that was not heard of in time, and when it was heard of last.
type Dead = (HostId, Timestamp);

impl Inner {
    /// Sweeps until the service ends.
    pub(super) async fn sweep(self: &Arc<Self>) {
        let started = Instant::now();
        let (mut waiting, mut reconcile, mut forget) = (started, started + RECONCILE, started);
        // The last moment at which the database did not answer.
        let mut trouble = started;
        let mut dead = Vec::new();
        while !self.stop.is_cancelled() {
            self.look_at_workers();
            self.look_at_hands();
            let now = Instant::now();
            let done = async {
                if now >= waiting {
                    waiting = now + WAITING;
                    self.look_at_waiting().await?;
                }
                if now >= reconcile {
                    reconcile = now + RECONCILE;
                    self.reconcile().await?;
                    if now.duration_since(trouble) > STEADY {
                        self.take_over(&mut dead).await?;
                    }
                    self.tell_owed();
                }
                if now >= forget {
                    forget = now + FORGET;
                    self.forget().await?;
                }
                Ok::<_, StoreError>(())
            };
            if let Err(error) = done.await {
                trouble = Instant::now();
                metrics::error("store");
                tracing::warn!(%error, "cannot sweep; trying again");
            }
            self.pause(LOOK).await;
        }
    }

    /// Enforces the deadlines of jobs that have a worker.
    fn look_at_workers(&self) {
        for (job, worker) in self.workers().iter() {
            let (state, late) = worker.stage.look();
            let seen = Observed {
                ours: true,
                worker: true,
                machine: MachineSeen::Running,
                log: LogSeen::Open,
                cancel: worker.words.control.cancel.is_cancelled(),
                late,
                tries_left: true,
            };
            if decide(state, &seen) == Action::Expire && !worker.words.expire.is_cancelled() {
                tracing::warn!(job.id = %job, state = state.name(), "its deadline has passed");
                metrics::error("deadline");
                if state == JobState::Cancelling {
                    worker.words.control.destroy.cancel();
                }
                worker.words.expire.cancel();
            }
        }
    }

    /// Tells of jobs without a worker whose end takes long.
    fn look_at_hands(&self) {
        for job in self.hands.slow(SETTLED) {
            metrics::error("deadline");
            tracing::warn!(job.id = %job, "settling the job takes long; see what else is wrong");
        }
    }

    /// Ends waiting jobs that wait for nothing: too long, or for what no host has.
    async fn look_at_waiting(self: &Arc<Self>) -> Result<(), StoreError> {
        self.follow_clock().await?;
        // The clock that the jobs' times were written by.
        let now = self.store.now().await?;
        let overdue = self.store.overdue_queued().await?;
        let unrunnable = self.store.unrunnable().await?;
        let cancelled = self.store.cancelled_queued().await?;
        // The end of a job that only one host may run is written where it is read, if that lives.
        let is_elsewhere = |job: &Job| job.only.is_some_and(|only| only != self.host);
        let all = overdue.iter().chain(&cancelled).chain(unrunnable.iter().map(|(job, _)| job));
        let is_asked = all.into_iter().any(is_elsewhere);
        let hosts = if is_asked { self.store.hosts().await? } else { Vec::new() };
        let is_alive = |host| hosts.iter().any(|row| row.alive && row.report.host == host);
        let is_ours = |job: &Job| !is_elsewhere(job) || !job.only.is_some_and(is_alive);
        for job in overdue.into_iter().filter(is_ours) {
            let waited = now.since(job.created).as_secs() / 60;
            let message = format!("no host had room for the job within {waited} minutes");
            let cause = Infrastructure::new(Cause::NoHost, message);
            self.answer_waiting(job.id, Answer::Failed(cause));
        }
        for (job, reason) in unrunnable {
            if !is_ours(&job) {
                continue;
            }
            let cause = if job.label == REFUSED_LABEL {
                // Whoever took it in knows the reason.
                if now.since(job.created) < TURN_DOWN {
                    continue;
                }
                unreadable("its envelope was refused; the dead letters have the reason")
            } else {
                Infrastructure::new(Cause::NoHost, reason)
            };
            self.answer_waiting(job.id, Answer::Failed(cause));
        }
        for job in cancelled.into_iter().filter(is_ours) {
            self.answer_cancelled(job.id);
        }
        Ok(())
    }

    /// Compares records, workers and machines, in both directions.
    pub(super) async fn reconcile(self: &Arc<Self>) -> Result<(), StoreError> {
        let machines = match self.found().await {
            Ok(machines) => machines,
            Err(error) => {
                metrics::error("host");
                tracing::warn!(%error, "cannot list the machines");
                return Ok(());
            }
        };
        self.follow_clock().await?;
        // Nothing is taken from the table meanwhile.
        let comparing = self.hands.comparing().await;
        // One that is concluded while the table is read has neither worker nor hand after that.
        let with_worker: BTreeSet<JobId> = self.workers().keys().copied().collect();
        let mut in_hand = self.hands.all();
        in_hand.extend(&with_worker);
        let active = self.store.active(self.host).await?;
        in_hand.extend(self.hands.all());
        in_hand.extend(self.workers().keys());
        let (busy, left): (Vec<_>, Vec<_>) =
            active.into_iter().partition(|active| in_hand.contains(&active.job.id));
        drop(comparing);
        let ours = busy.iter().chain(&left);
        let needed: BTreeSet<_> = ours.clone().filter_map(|active| active.vm).collect();
        let ours: BTreeSet<JobId> = ours.map(|active| active.job.id).collect();
        // A worker whose job is another host's ends without a word.
        for job in with_worker.difference(&ours) {
            let current = self.store.job(*job).await?;
            let lost = current.is_none_or(|detail| {
                detail.job.host != Some(self.host) || detail.job.state == JobState::Queued
            });
            if let (true, Some(worker)) = (lost, self.workers().get(job)) {
                tracing::warn!(job.id = %job, "the job is not this host's any more");
                worker.words.abandon.cancel();
            }
        }
        // Another host may have heard the cancel.
        for active in busy.iter().filter(|active| active.job.cancel_requested) {
            self.pass_cancel(active.job.id);
        }
        let machines: Arc<[FoundMachine]> = machines.into();
        for left in left {
            self.look_after(left, Arc::clone(&machines));
        }
        for found in machines.iter() {
            if !found.owned && !found.kept && !needed.contains(&found.vm) {
                tracing::warn!(vm.id = %found.vm, "a machine without a job is removed");
                self.remove_machine(found.vm).await;
            }
        }
        Ok(())
    }

    /// Takes the jobs of hosts that are dead, and the ends that they owe. A host counts as dead only
    /// when it was so in the round before as well: after a jump of the database's clock everybody
    /// seems dead for a moment.
    async fn take_over(self: &Arc<Self>, before: &mut Vec<Dead>) -> Result<(), StoreError> {
        let hosts = self.store.hosts().await?;
        let dead = hosts.iter().filter(|row| !row.alive && row.report.host != self.host);
        let dead: Vec<Dead> = dead.map(|row| (row.report.host, row.heartbeat)).collect();
        let is_sure = dead.iter().all(|one| before.contains(one));
        *before = dead;
        if !is_sure {
            return Ok(());
        }
        let taking = self.hands.taking().await;
        for left in self.store.take_over(self.host).await? {
            tracing::warn!(job.id = %left.job.id, "taken over from a dead host");
            // Its machine and its log were that host's.
            self.look_after(crate::store::Active { vm: None, ..left }, Arc::default());
        }
        drop(taking);
        for ended in self.store.take_over_ends(self.host).await? {
            tracing::warn!(job.id = %ended.id, "telling the end of a job whose host is gone");
        }
        Ok(())
    }

    async fn forget(&self) -> Result<(), StoreError> {
        self.journals.sweep(self.clock.now()).await;
        let forgotten = self.store.forget(self.keep).await?;
        if forgotten > 0 {
            tracing::info!(jobs = forgotten, "forgot old jobs");
        }
        Ok(())
    }
}

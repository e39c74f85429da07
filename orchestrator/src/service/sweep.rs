//! The sweeper: it enforces every deadline, and settles what contradicts the records.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::ids::JobId;
use common::infrastructure::{Cause, Infrastructure};
use queue::message::REFUSED_LABEL;
use tokio::time::Instant;

use super::Inner;
use super::answer::{Answer, unreadable};
use crate::lifecycle::{Action, LogSeen, MachineSeen, Observed, decide};
use crate::metrics;
use crate::store::{JobState, StoreError};

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
/// For how long this host must have announced itself without a gap before it takes jobs of hosts
/// that seem dead: after the database was away, everybody seems dead to the first who is back.
const STEADY: Duration = Duration::from_secs(70);

impl Inner {
    /// Sweeps until the service ends.
    pub(super) async fn sweep(self: &Arc<Self>) {
        let started = Instant::now();
        let (mut waiting, mut reconcile, mut forget) = (started, started + RECONCILE, started);
        // The last moment at which the database did not answer.
        let mut trouble = started;
        while !self.stop.is_cancelled() {
            self.look_at_workers();
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
                        self.take_over().await?;
                    }
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

    /// Ends waiting jobs that wait for nothing: too long, or for what no host has.
    async fn look_at_waiting(self: &Arc<Self>) -> Result<(), StoreError> {
        // The clock that the jobs' times were written by.
        let now = self.store.now().await?;
        for job in self.store.overdue_queued().await? {
            let waited = now.since(job.created).as_secs() / 60;
            let message = format!("no host had room for the job within {waited} minutes");
            let cause = Infrastructure::new(Cause::NoHost, message);
            self.answer_waiting(job.id, Answer::Failed(cause));
        }
        for (job, reason) in self.store.unrunnable().await? {
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
        for job in self.store.cancelled_queued().await? {
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
        let with_worker: BTreeSet<JobId> = self.workers().keys().copied().collect();
        let active = self.store.active(self.host).await?;
        let ours: BTreeSet<JobId> = active.iter().map(|left| left.job.id).collect();
        // A worker whose job is another host's ends without a word. One that began after the table
        // was read is left alone.
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
        let needed: BTreeSet<_> = active.iter().filter_map(|left| left.vm).collect();
        for left in active {
            // One that was concluded since the table was read has no worker either.
            let has_worker = self.workers().contains_key(&left.job.id);
            if !has_worker && !with_worker.contains(&left.job.id) {
                self.settle_left(left, &machines).await;
            }
        }
        for found in machines {
            if !found.owned && !found.kept && !needed.contains(&found.vm) {
                tracing::warn!(vm.id = %found.vm, "a machine without a job is removed");
                self.remove_machine(found.vm).await;
            }
        }
        Ok(())
    }

    /// Takes the jobs of hosts that are dead.
    async fn take_over(self: &Arc<Self>) -> Result<(), StoreError> {
        for left in self.store.take_over(self.host).await? {
            tracing::warn!(job.id = %left.job.id, "taken over from a dead host");
            // Its machine and its log were that host's.
            let left = crate::store::Active { vm: None, ..left };
            self.settle_left(left, &[]).await;
        }
        for ended in self.store.take_over_ends(self.host).await? {
            let job = ended.job.id;
            tracing::warn!(job.id = %job, "telling the end of a job whose host is gone");
            self.tell_end(&ended.job, &ended.message).await;
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

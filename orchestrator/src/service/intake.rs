//! From the queue into the table of jobs.

use std::sync::Arc;
use std::time::Duration;

use common::ids::{HostId, JobId};
use futures_util::FutureExt;
use queue::message::JobMessage;
use queue::{Delivery, JobReceiver};
use tokio::time::sleep;

use super::Inner;
use super::answer::{Answer, unreadable};
use crate::metrics;
use crate::store::{Accepted, NewJob, Size, StoreError};

/// Jobs that are on their way from the queue into the table at the same time.
const PREFETCH: u16 = 64;
/// The pause before the queue or the database is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Why a message under the id of another job is refused.
const CONFLICT: &str = "another job with the same id was accepted before";

impl Inner {
    /// Takes jobs in until the service ends. While the database is away, the queue keeps them.
    pub(super) async fn take_in(self: &Arc<Self>) {
        while !self.stop.is_cancelled() {
            let receiver = tokio::select! {
                receiver = self.queue.jobs(PREFETCH) => receiver,
                () = self.stop.cancelled() => return,
            };
            match receiver {
                Ok(mut receiver) => self.take_from(&mut receiver).await,
                Err(error) => {
                    metrics::error("queue");
                    tracing::warn!(%error, "cannot take jobs; trying again");
                    self.pause(PAUSE).await;
                }
            }
        }
    }

    async fn take_from(self: &Arc<Self>, receiver: &mut JobReceiver) {
        loop {
            let first = tokio::select! {
                first = receiver.next() => first,
                () = self.stop.cancelled() => return,
            };
            let mut deliveries = match first {
                Ok(delivery) => vec![delivery],
                Err(error) => {
                    tracing::warn!(%error, "the queue of jobs ended; trying again");
                    self.pause(PAUSE).await;
                    return;
                }
            };
            // What is there already goes into the table in the same transaction.
            while deliveries.len() < usize::from(PREFETCH)
                && let Some(Ok(delivery)) = receiver.next().now_or_never()
            {
                deliveries.push(delivery);
            }
            self.accept(deliveries).await;
        }
    }

    async fn accept(self: &Arc<Self>, deliveries: Vec<Delivery<JobMessage>>) {
        let (mut jobs, mut waiting) = (Vec::new(), Vec::new());
        for delivery in deliveries {
            match self.examine(&delivery) {
                Ok((job, refused)) => {
                    if refused.is_none() {
                        self.prefetch(&job);
                    }
                    jobs.push(job);
                    waiting.push((delivery, refused));
                }
                Err(reason) => refuse(delivery, None, &reason).await,
            }
        }
        if jobs.is_empty() {
            return;
        }
        let Some(accepted) = self.store_all(&jobs).await else { return };
        for (((delivery, refused), job), accepted) in waiting.into_iter().zip(jobs).zip(accepted) {
            let job = job.message.envelope().job;
            match refused {
                None => self.settle(delivery, job, accepted).await,
                Some(reason) => self.turn_down(delivery, job, accepted, &reason).await,
            }
        }
        self.wake.notify_one();
    }

    /// Restores a clone for a job while it goes through the table. Where hosts share that, another
    /// may get the job.
    fn prefetch(&self, job: &NewJob) {
        if !self.is_alone || self.is_draining() {
            return;
        }
        self.machines.prefetch(job.message.envelope());
    }

    /// Checks a job as far as that can be done before it runs. One that cannot run, but whose forge
    /// runner can be told, comes with the reason; an error is a message of nobody.
    fn examine(&self, delivery: &Delivery<JobMessage>) -> Result<(NewJob, Option<String>), String> {
        let (message, refused) = match (&delivery.message, &delivery.answerable) {
            // Whoever can open it can also read its events.
            (Ok(message), _) => (message, message.open(&self.keys).err().map(|e| e.to_string())),
            (Err(error), Some(answerable)) => (answerable, Some(error.to_string())),
            (Err(error), None) => return Err(error.to_string()),
        };
        let job = NewJob { message: message.clone(), size: self.size_of(message), only: None };
        Ok((job, refused))
    }

    /// The machine's size, as far as this host knows the label.
    pub(super) fn size_of(&self, message: &JobMessage) -> Option<Size> {
        let envelope = message.envelope();
        let offer = self.offer(&envelope.label);
        let cpus = envelope.size.cpus.or(offer.map(|offer| offer.size.cpus))?;
        let memory = envelope.size.memory.or(offer.map(|offer| offer.size.memory))?;
        Some(Size { cpus, memory })
    }

    /// Writes jobs into the table, however long the database is away; `None` if the service ends.
    async fn store_all(&self, jobs: &[NewJob]) -> Option<Vec<Accepted>> {
        loop {
            match self.store.accept(jobs).await {
                Ok(accepted) => return Some(accepted),
                Err(error) => {
                    metrics::error("store");
                    tracing::warn!(%error, jobs = jobs.len(), "cannot accept jobs; trying again");
                }
            }
            if self.stop.is_cancelled() {
                return None;
            }
            self.pause(PAUSE).await;
        }
    }

    async fn settle(
        self: &Arc<Self>,
        delivery: Delivery<JobMessage>,
        job: JobId,
        accepted: Accepted,
    ) {
        match accepted {
            Accepted::Conflict => return refuse(delivery, Some(job), CONFLICT).await,
            Accepted::New => tracing::info!(job.id = %job, "accepted"),
            Accepted::WithoutReservation => {
                tracing::info!(job.id = %job, "accepted without a valid reservation");
            }
            // After a crash or a lost connection that is as it should be; else somebody replays it.
            Accepted::Known => {
                metrics::error("repeated message");
                tracing::warn!(job.id = %job, "a job came again; it is not run twice");
            }
            Accepted::Cancelled => {
                tracing::info!(job.id = %job, "its end was asked for before it came");
                self.answer_cancelled(job);
            }
        }
        if let Err(error) = delivery.acknowledge().await {
            // It comes again and is known then.
            tracing::info!(job.id = %job, %error, "cannot acknowledge a job");
        }
    }

    /// Ends a job that came and cannot run: its forge runner gets a final event, operators find it in
    /// the table, and its message goes to the dead letters. Through the table, because a job has one
    /// final event, whatever else comes under its id.
    async fn turn_down(
        self: &Arc<Self>,
        delivery: Delivery<JobMessage>,
        job: JobId,
        accepted: Accepted,
        reason: &str,
    ) {
        match accepted {
            // That job goes on as if nothing had come.
            Accepted::Conflict => {
                return refuse(delivery, Some(job), &format!("{CONFLICT}; {reason}")).await;
            }
            Accepted::Cancelled => self.answer_cancelled(job),
            Accepted::New | Accepted::WithoutReservation | Accepted::Known => {
                self.answer_waiting(job, Answer::Failed(unreadable(reason)));
            }
        }
        refuse(delivery, Some(job), reason).await;
    }

    /// Accepts a job that came another way than by the queue, for one host or for any.
    pub(super) async fn accept_one(
        &self,
        message: JobMessage,
        only: Option<HostId>,
    ) -> Result<Accepted, StoreError> {
        let size = self.size_of(&message);
        let job = NewJob { message, size, only };
        self.prefetch(&job);
        let accepted = self.store.accept(&[job]).await?;
        self.wake.notify_one();
        accepted.first().copied().ok_or(StoreError::Malformed {
            reason: "one job was given and none accepted".to_owned(),
        })
    }

    /// Waits, unless the service ends.
    pub(super) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

async fn refuse(delivery: Delivery<JobMessage>, job: Option<JobId>, reason: &str) {
    metrics::error("message");
    let id = job.map(tracing::field::display);
    tracing::warn!(job.id = id, reason, "a message on the queue of jobs cannot be used");
    if let Err(error) = delivery.reject(reason).await {
        tracing::info!(%error, "cannot put a message aside");
    }
}

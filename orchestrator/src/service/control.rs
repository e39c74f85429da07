//! What forge runners and operators say about jobs: cancel, progress, reservations.

use std::sync::Arc;
use std::time::Duration;

use common::ids::JobId;
use common::time::Timestamp;
use queue::message::{Control, Reserve, Reserved};
use queue::{ControlReceiver, Heard, Replier};

use super::Inner;
use crate::metrics;
use crate::store::{CancelOutcome, StoreError};

/// The pause before the queue is tried again.
const PAUSE: Duration = Duration::from_secs(1);

impl Inner {
    /// Listens until the service ends.
    pub(super) async fn listen(self: &Arc<Self>) {
        while !self.stop.is_cancelled() {
            let receiver = tokio::select! {
                receiver = self.queue.control(self.host) => receiver,
                () = self.stop.cancelled() => return,
            };
            match receiver {
                Ok(mut receiver) => self.hear_from(&mut receiver).await,
                Err(error) => {
                    metrics::error("queue");
                    tracing::warn!(%error, "cannot listen to the queue; trying again");
                    self.pause(PAUSE).await;
                }
            }
        }
    }

    async fn hear_from(self: &Arc<Self>, receiver: &mut ControlReceiver) {
        loop {
            let heard = tokio::select! {
                heard = receiver.next() => heard,
                () = self.stop.cancelled() => return,
            };
            match heard {
                Ok(Heard::Reserve(question, replier)) => self.answer(&question, replier).await,
                Ok(Heard::Control(delivery)) => {
                    let done = match &delivery.message {
                        Ok(control) => self.obey(control).await,
                        Err(error) => {
                            metrics::error("message");
                            tracing::warn!(%error, "a message to this host cannot be used");
                            let reason = error.to_string();
                            if let Err(error) = delivery.reject(&reason).await {
                                tracing::info!(%error, "cannot put a message aside");
                            }
                            continue;
                        }
                    };
                    if let Err(error) = done {
                        metrics::error("store");
                        tracing::warn!(%error, "cannot do what the queue asks; it comes again");
                        self.pause(PAUSE).await;
                        return;
                    }
                    drop(delivery.acknowledge().await);
                }
                Err(error) => {
                    tracing::warn!(%error, "the queue to this host ended; trying again");
                    return self.pause(PAUSE).await;
                }
            }
        }
    }

    async fn obey(self: &Arc<Self>, control: &Control) -> Result<(), StoreError> {
        match control {
            Control::Cancel { job, .. } => self.cancel(*job).await.map(drop),
            Control::Progress(progress) => {
                self.journals.progress(*progress);
                Ok(())
            }
            Control::Release(release) => self.store.release(*release).await,
        }
    }

    /// Ends a job wherever it is, as far as this host can.
    pub(super) async fn cancel(self: &Arc<Self>, job: JobId) -> Result<CancelOutcome, StoreError> {
        let outcome = self.store.cancel(job).await?;
        tracing::info!(job.id = %job, ?outcome, "its end was asked for");
        match outcome {
            CancelOutcome::Leased(host) if host == self.host => self.pass_cancel(job),
            CancelOutcome::WasQueued => self.answer_cancelled(job),
            CancelOutcome::Leased(_) | CancelOutcome::Remembered | CancelOutcome::WasDone => {}
        }
        Ok(outcome)
    }

    async fn answer(&self, question: &Reserve, replier: Replier) {
        let answer = match self.store.reserve(question).await {
            Ok(answer) => answer,
            Err(error) => {
                metrics::error("store");
                tracing::warn!(%error, "cannot grant a reservation");
                // Nothing can start now: that is true, and the asker asks again.
                let expires = Timestamp::now();
                Reserved { id: question.id, count: 0, labels: Vec::new(), expires }
            }
        };
        replier.answer(answer).await;
    }
}

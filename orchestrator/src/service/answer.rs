//! Jobs that end without a machine: cancelled while they waited, or without a host that can run them.

use std::sync::Arc;
use std::time::Duration;

use common::ids::JobId;
use common::infrastructure::{Cause, Infrastructure};

use super::worker::Held;
use super::{Inner, journal_failure};
use crate::events::EventLog;
use crate::job::{finish_cancelled, finish_failed};
use crate::journal::JournalError;
use crate::record::Stage;
use crate::segment::SegmentError;
use crate::store::{Claimed, JobState, Size};

/// The pause between two looks at whether a job was let go of.
const LET_GO: Duration = Duration::from_millis(20);

/// A job that waits has no machine.
pub(super) const NONE: Size = Size { cpus: 0, memory: common::size::ByteSize(0) };

/// How a job ends without a machine.
pub(super) enum Answer {
    /// Its end was asked for.
    Cancelled,
    /// The infrastructure is to blame.
    Failed(Infrastructure),
}

impl Inner {
    /// Ends a waiting job as cancelled, in the background.
    pub(super) fn answer_cancelled(self: &Arc<Self>, job: JobId) {
        self.answer_waiting(job, Answer::Cancelled);
    }

    /// Ends a waiting job, in the background. Of several hosts that try it one does it.
    pub(super) fn answer_waiting(self: &Arc<Self>, job: JobId, answer: Answer) {
        let inner = Arc::clone(self);
        self.working.spawn(async move {
            let taking = inner.hands.taking().await;
            let Some(_in_hand) = inner.hands.take(job, NONE) else { return };
            let taken = inner.store.take(job, inner.host).await;
            drop(taking);
            match taken {
                Ok(Some(claimed)) => inner.answer_claimed(claimed, answer).await,
                // Another host was first, or it is over.
                Ok(None) => {}
                // The sweep finds it again.
                Err(error) => tracing::warn!(job.id = %job, %error, "cannot end a waiting job"),
            }
        });
    }

    /// Ends a job that was just taken from the table, in the background.
    pub(super) fn answer_taken(self: &Arc<Self>, claimed: Claimed, answer: Answer) {
        let mut in_hand = self.hands.take(claimed.message.envelope().job, claimed.size);
        let inner = Arc::clone(self);
        self.working.spawn(async move {
            // Somebody else may have it in hand who was too late to take it, and lets go of it.
            while in_hand.is_none() && !inner.stop.is_cancelled() {
                inner.pause(LET_GO).await;
                in_hand = inner.hands.take(claimed.message.envelope().job, claimed.size);
            }
            inner.answer_claimed(claimed, answer).await;
        });
    }

    async fn answer_claimed(self: &Arc<Self>, claimed: Claimed, answer: Answer) {
        let number = claimed.try_number;
        let held = Held {
            message: claimed.message,
            lease: claimed.lease,
            size: claimed.size,
            failures: claimed.failures,
        };
        self.end_held(&held, Some(number), answer).await;
    }

    /// Ends a job that this host holds, in a try of its own: this one, or a new one.
    pub(super) async fn end_held(
        self: &Arc<Self>,
        held: &Held,
        number: Option<u32>,
        answer: Answer,
    ) {
        let stage = Stage::new(self.clock.clone(), JobState::Finishing, super::LEAVE);
        let hold = self.hold(held, Arc::new(stage));
        let is_left = number.is_none();
        let number = match number {
            Some(number) => Ok(number),
            None => self.store.begin_try(hold.job, hold.lease).await,
        };
        let number = match number {
            Ok(number) => number,
            Err(error) => {
                tracing::warn!(job.id = %hold.job, %error, "cannot end a job that was left");
                return;
            }
        };
        // An answer says nothing of the request: one that cannot be opened is answered too.
        let request = held.message.open(&self.keys).ok();
        let mut log: EventLog = match self.begin_log(&held.message, request.as_ref()) {
            Ok(log) => log,
            // The log's key is lost as well, and waiting brings neither back.
            Err(error @ JournalError::Segment { error: SegmentError::Key { .. }, .. })
                if request.is_none() =>
            {
                return self.end_without_log(&hold, journal_failure(&error)).await;
            }
            // Such as a full disk. The sweep tries it again.
            Err(error) => {
                crate::metrics::error("journal");
                tracing::error!(job.id = %hold.job, %error, "cannot end a job with a log");
                return;
            }
        };
        log.begin_try(number);
        if is_left && matches!(answer, Answer::Failed(_)) {
            // Should this process be killed before the end is written, its log must not tell the next
            // one that nothing has run: on a host that is gone the job may have.
            log.set_user_step_started();
        }
        let finished = match answer {
            Answer::Cancelled => finish_cancelled(log).await,
            Answer::Failed(cause) => finish_failed(log, cause).await,
        };
        match finished {
            Ok(finished) => self.conclude(&hold, &finished).await,
            Err(error) => tracing::warn!(job.id = %hold.job, %error, "a job's end is not written"),
        }
    }
}

/// The end of a job that cannot be read for this reason.
pub(super) fn unreadable(reason: &(impl std::fmt::Display + ?Sized)) -> Infrastructure {
    Infrastructure::new(Cause::JobUnreadable, format!("the job cannot be read: {reason}"))
}

//! What operators ask and say.

use std::sync::Arc;

use common::ids::{HostId, JobId};
use common::request::JobRequest;
use futures_util::StreamExt;
use futures_util::stream;
use queue::message::JobMessage;

use super::Inner;
use crate::api::{ApiError, ApiErrorKind, Backend, Events, Extent, Health};
use crate::store::{
    Accepted, CancelOutcome, HostRow, Job, JobDetail, JobFilter, JobState, LabelOffer,
};

/// The operators' side of a service.
#[derive(Debug)]
pub(super) struct Operators(pub(super) Arc<Inner>);

impl Backend for Operators {
    async fn jobs(&self, filter: JobFilter) -> Result<Vec<Job>, ApiError> {
        Ok(self.0.store.jobs(&filter).await?)
    }

    async fn job(&self, job: JobId) -> Result<Option<JobDetail>, ApiError> {
        Ok(self.0.store.job(job).await?)
    }

    async fn cancel(&self, job: JobId) -> Result<CancelOutcome, ApiError> {
        let detail = self.0.store.job(job).await?.ok_or_else(|| unknown(job))?;
        let outcome = self.0.cancel(detail.job.id).await?;
        if let CancelOutcome::Leased(host) = outcome
            && host != self.0.host
        {
            // That host hears it.
            self.0.queue.cancel(job).await?;
        }
        Ok(outcome)
    }

    async fn destroy(&self, job: JobId) -> Result<CancelOutcome, ApiError> {
        let outcome = self.cancel(job).await?;
        self.0.destroy(job);
        Ok(outcome)
    }

    async fn retry(&self, job: JobId) -> Result<JobId, ApiError> {
        let detail = self.0.store.job(job).await?.ok_or_else(|| unknown(job))?;
        if detail.job.state != JobState::Done {
            let state = detail.job.state.name();
            let text = format!("job {job} is {state}; only a job that is over can be run again");
            return Err(ApiError::new(ApiErrorKind::Conflict, text));
        }
        let message = self.0.store.message(job).await?.ok_or_else(|| unknown(job))?;
        let mut request = message.open(&self.0.keys)?;
        request.envelope.job = JobId::new();
        // The forge has its answer: only the operators see this run.
        request.envelope.reply_to = String::new();
        request.envelope.reservation = None;
        self.accept(request, detail.job.only).await
    }

    async fn hosts(&self) -> Result<Vec<HostRow>, ApiError> {
        Ok(self.0.store.hosts().await?)
    }

    async fn drain(&self, host: Option<HostId>, on: bool) -> Result<(), ApiError> {
        let host = host.unwrap_or(self.0.host);
        if !self.0.store.set_draining(host, on).await? {
            let text = format!("there is no host {host}");
            return Err(ApiError::new(ApiErrorKind::NotFound, text).hint("see `solstice hosts`"));
        }
        // Before the answer, so that nothing is taken after it.
        Ok(self.0.announce().await?)
    }

    async fn submit(&self, request: JobRequest) -> Result<JobId, ApiError> {
        // Here is the tree that it brings, here is its machine if that is kept, and here its log is
        // followed.
        self.accept(request, Some(self.0.host)).await
    }

    async fn labels(&self) -> Result<Vec<LabelOffer>, ApiError> {
        Ok(if self.0.is_draining() { Vec::new() } else { self.0.labels.clone() })
    }

    async fn follow(&self, job: JobId, extent: Extent) -> Result<Option<Events>, ApiError> {
        let found = self.0.journals.follow(job).map_err(unreadable)?;
        let Some(follower) = found else {
            let detail = self.0.store.job(job).await?;
            return match detail.and_then(|detail| detail.job.host) {
                Some(host) if host != self.0.host => Err(elsewhere(job, host)),
                _ => Ok(None),
            };
        };
        let events = stream::unfold(follower, move |mut follower| async move {
            let next = match extent {
                Extent::Final => follower.next().await,
                Extent::Written => follower.next_written().await,
            };
            let next = next.transpose()?;
            Some((next.map_err(unreadable), follower))
        });
        Ok(Some(events.boxed()))
    }

    async fn health(&self) -> Health {
        let (now, queue) = tokio::join!(self.0.store.now(), self.0.queue.check());
        let database = now.err().map(|error| error.to_string());
        let queue = queue.err().map(|error| error.to_string());
        Health {
            host: self.0.host,
            name: self.0.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.0.started,
            draining: self.0.is_draining(),
            problems: database.into_iter().chain(queue).collect(),
        }
    }
}

impl Operators {
    async fn accept(&self, request: JobRequest, only: Option<HostId>) -> Result<JobId, ApiError> {
        let job = request.envelope.job;
        let message = JobMessage::seal(&request, &self.0.keys)?;
        match self.0.accept_one(message, only).await? {
            Accepted::Conflict => {
                let text = format!("another job with the id {job} was accepted before");
                return Err(ApiError::new(ApiErrorKind::Conflict, text));
            }
            Accepted::Cancelled => self.0.answer_cancelled(job),
            Accepted::New | Accepted::WithoutReservation | Accepted::Known => {}
        }
        Ok(job)
    }
}

fn unknown(job: JobId) -> ApiError {
    ApiError::new(ApiErrorKind::NotFound, format!("there is no job {job}"))
        .hint("see `solstice jobs --all`")
}

fn elsewhere(job: JobId, host: HostId) -> ApiError {
    let text = format!("the log of job {job} is kept on host {host}");
    ApiError::new(ApiErrorKind::Elsewhere, text).hint("ask the service of that host")
}

fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(ApiErrorKind::Unavailable, format!("the job's log cannot be read: {error}"))
}

//! What the API asks of the service.

use std::future::Future;

use common::event::JobEvent;
use common::ids::{HostId, JobId};
use common::request::JobRequest;
use common::time::Timestamp;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::ApiError;
use crate::metrics;
use crate::store::{CancelOutcome, HostRow, Job, JobDetail, JobFilter, LabelOffer};

/// A job's events in order, some at a time.
pub type Events = BoxStream<'static, Result<Vec<JobEvent>, ApiError>>;

/// How far a job's events are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extent {
    /// Those that are written now.
    Written,
    /// Up to the final one, waiting for those that are still to come.
    #[default]
    Final,
}

/// How the service is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The host on which it runs.
    pub host: HostId,
    /// That host's name for people.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// Whether it takes nothing new.
    pub draining: bool,
    /// What is wrong, in sentences; empty when all is well.
    pub problems: Vec<String>,
}

/// What the API asks of the service.
pub trait Backend: Send + Sync + 'static {
    /// The jobs of a filter, newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    fn jobs(&self, filter: JobFilter) -> impl Future<Output = Result<Vec<Job>, ApiError>> + Send;

    /// Everything that is known about a job; `None` if there is no such job.
    ///
    /// # Errors
    /// The store cannot be read.
    fn job(&self, job: JobId) -> impl Future<Output = Result<Option<JobDetail>, ApiError>> + Send;

    /// Ends a job by the ladder of its dialect.
    ///
    /// # Errors
    /// The request cannot be passed on.
    fn cancel(&self, job: JobId) -> impl Future<Output = Result<CancelOutcome, ApiError>> + Send;

    /// Ends a job by destroying its machine at once, where the service can; else as
    /// [`Backend::cancel`].
    ///
    /// # Errors
    /// The request cannot be passed on.
    fn destroy(&self, job: JobId) -> impl Future<Output = Result<CancelOutcome, ApiError>> + Send {
        self.cancel(job)
    }

    /// Runs a job that is over once more, as a new job.
    ///
    /// # Errors
    /// There is no such job, it is not over, or its request is not kept any more.
    fn retry(&self, job: JobId) -> impl Future<Output = Result<JobId, ApiError>> + Send;

    /// Every host of the installation.
    ///
    /// # Errors
    /// The store cannot be read.
    fn hosts(&self) -> impl Future<Output = Result<Vec<HostRow>, ApiError>> + Send;

    /// Lets a host take nothing new, or takes that back; `None` is the host of this service.
    ///
    /// # Errors
    /// There is no such host.
    fn drain(
        &self,
        host: Option<HostId>,
        on: bool,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Takes a job. When this returns, the job is durable. The same job with the same content may
    /// come again, after a lost connection: that is no error and has no further effect.
    ///
    /// # Errors
    /// The request is refused, or its id was there already with another content.
    fn submit(&self, request: JobRequest) -> impl Future<Output = Result<JobId, ApiError>> + Send;

    /// The labels that a job given to this service can have: those of its host, none while that
    /// drains.
    ///
    /// # Errors
    /// The store cannot be read.
    fn labels(&self) -> impl Future<Output = Result<Vec<LabelOffer>, ApiError>> + Send;

    /// A job's events from the first one; `None` while there are none, or when they are not kept any
    /// more. The API asks again as long as the job is not over, so a job that waits may have none.
    ///
    /// # Errors
    /// The events are on another host, or cannot be read.
    fn follow(
        &self,
        job: JobId,
        extent: Extent,
    ) -> impl Future<Output = Result<Option<Events>, ApiError>> + Send;

    /// How the service is.
    fn health(&self) -> impl Future<Output = Health> + Send;

    /// What was counted, as Prometheus reads it.
    fn metrics(&self) -> String {
        metrics::render()
    }
}

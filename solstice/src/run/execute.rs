//! The border to the orchestrator: jobs go down, events come up.

use std::future::Future;

use common::event::{Finished, JobEvent};
use common::request::JobRequest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How a job is ended from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobControl {
    /// Ends the job by the dialect's ladder.
    pub(crate) cancel: CancellationToken,
    /// Destroys the job's machine at once.
    pub(crate) destroy: CancellationToken,
}

/// Who runs jobs.
pub(crate) trait Runner: Send + Sync + 'static {
    /// Runs a job when there is room for it, and sends its events, the final one last.
    fn run(
        &self,
        request: JobRequest,
        events: mpsc::Sender<JobEvent>,
        control: JobControl,
    ) -> impl Future<Output = Finished> + Send;
}

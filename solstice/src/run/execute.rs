//! The border to the orchestrator: jobs go down, events come up.

use std::future::Future;

use common::event::{Finished, JobEvent};
use common::request::JobRequest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::exit::CommandError;
use crate::settings::Settings;
use crate::stop::Stop;

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

/// Who knows which image labels there are.
pub(crate) trait Labels {
    /// # Errors
    /// A sentence that names the label and the nearest known one.
    fn has_label(&self, label: &str) -> Result<(), String>;
}

/// This host.
pub(crate) struct Host;

impl Host {
    pub(crate) async fn open(_: &Settings) -> Result<Self, CommandError> {
        Ok(Self)
    }
    pub(crate) async fn close(&self, _: &Stop) {}
}

impl Labels for Host {
    fn has_label(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

impl Runner for Host {
    async fn run(&self, _: JobRequest, _: mpsc::Sender<JobEvent>, _: JobControl) -> Finished {
        Finished { result: common::event::JobResult::Failure, infrastructure: None }
    }
}

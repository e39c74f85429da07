//! The border to whoever runs the jobs: jobs go down, events come up.
//!
//! [`Host`] runs them in this process, [`Remote`] hands them to the service of this host.

mod remote;

use std::future::Future;
use std::time::Duration;

use common::event::{Finished, JobEvent};
use common::request::JobRequest;
use orchestrator::Orchestrator;
use tokio::sync::mpsc;

use crate::exit::CommandError;
use crate::host::orchestrator_settings;
use crate::message;
use crate::settings::Settings;

pub(crate) use orchestrator::JobControl;
pub(crate) use remote::Remote;

/// How long giving the host's resources back may take. What is left after that is the watchdog's.
const SHUTDOWN: Duration = Duration::from_secs(60);

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

/// This process.
#[derive(Debug)]
pub(crate) struct Host {
    orchestrator: Orchestrator,
}

impl Host {
    /// Reads what there is. Nothing is written before the first job.
    ///
    /// # Errors
    /// The catalogue cannot be used.
    pub(crate) fn open(settings: &Settings) -> Result<Self, CommandError> {
        let orchestrator = Orchestrator::new(orchestrator_settings(settings))
            .map_err(|error| CommandError::usage(error.to_string()))?;
        Ok(Self { orchestrator })
    }

    /// Gives the host's resources back.
    pub(crate) async fn close(&self) {
        if tokio::time::timeout(SHUTDOWN, self.orchestrator.shutdown()).await.is_err() {
            message::warning("the host's resources are not given back yet; the watchdog does it");
        }
    }
}

impl Labels for Host {
    fn has_label(&self, label: &str) -> Result<(), String> {
        self.orchestrator.image(label).map(drop).map_err(|error| error.to_string())
    }
}

impl Runner for Host {
    async fn run(
        &self,
        request: JobRequest,
        events: mpsc::Sender<JobEvent>,
        control: JobControl,
    ) -> Finished {
        self.orchestrator.run(request, events, control).await
    }
}

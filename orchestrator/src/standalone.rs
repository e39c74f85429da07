//! Jobs of one process without a service: no queue, no database, machines that end with the process.

use std::sync::{Arc, Mutex};

use common::event::{Finished, JobEvent, JobResult};
use common::request::JobRequest;
use tokio::sync::mpsc;
use vm_manager::image::{CatalogueError, Entry, Image, UnknownLabel};

use crate::Settings;
use crate::events::{EventLog, Outlet};
use crate::job::{Begin, Ended, JobControl, Words, Work};
use crate::machines::Machines;
use crate::masking::Masker;
use crate::record::Recorder;

/// Takes jobs and runs each in a machine of its own, as long as this process lives.
#[derive(Debug)]
pub struct Orchestrator {
    machines: Machines,
}

impl Orchestrator {
    /// An orchestrator for this host. Nothing is written before the first job.
    ///
    /// # Errors
    /// The catalogue cannot be read.
    pub fn new(settings: Settings) -> Result<Self, CatalogueError> {
        Machines::of_process(settings).map(|machines| Self { machines })
    }

    /// The image that a label names.
    ///
    /// # Errors
    /// There is none; the error names the nearest label.
    pub fn image(&self, label: &str) -> Result<Arc<Entry>, UnknownLabel> {
        self.machines.image(label)
    }

    /// Runs one job in a machine of its own. Its last event is the final one, which is also
    /// returned. Any number of jobs may run at once: each waits for room on the host.
    ///
    /// Dropping the future destroys the job's machine.
    pub async fn run(
        &self,
        request: JobRequest,
        events: mpsc::Sender<JobEvent>,
        control: JobControl,
    ) -> Finished {
        let mut log = new_log(&request, Outlet::Direct(events));
        log.begin_try(1);
        let words = Words { control, ..Words::default() };
        let work = Work {
            machines: &self.machines,
            request: &request,
            words: &words,
            record: Recorder::Nowhere(Arc::new(Mutex::new(1))),
            failures: 0,
        };
        match work.run(log, Begin::Fresh).await {
            Ended::Finished(finished) => finished,
            // Only a service leaves or loses a job.
            Ended::Dropped => Finished { result: JobResult::Cancelled, infrastructure: None },
        }
    }

    /// Makes the template of an image that is on this host, for machines of its own size, unless it is
    /// there; `tell` hears what happens.
    ///
    /// # Errors
    /// A sentence about why there is none.
    pub async fn warm(
        &self,
        image: Image,
        tell: &(dyn Fn(&'static str) + Sync),
    ) -> Result<(), String> {
        self.machines.warm(Arc::new(image), tell).await
    }

    /// Gives the host's resources back. Machines that are kept stay, guarded by the watchdog.
    pub async fn shutdown(&self) {
        self.machines.shutdown().await;
    }
}

/// A log that has not begun.
pub(crate) fn new_log(request: &JobRequest, outlet: Outlet) -> EventLog {
    let steps = request.body.plan.steps.len();
    EventLog::new(request.envelope.job, steps, masker(request), outlet)
}

/// What must not appear in a job's log, as far as it is known before the job runs.
pub(crate) fn masker(request: &JobRequest) -> Masker {
    let body = &request.body;
    Masker::new(body.secrets.values().chain(&body.masks).map(|secret| secret.expose()))
}

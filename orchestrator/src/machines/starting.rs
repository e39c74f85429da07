//! The start of a job's machine: a clone of a template where there is one, else a boot.

use std::sync::Arc;

use common::event::Phase;
use common::ids::VmId;
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use vm_manager::host::{CloneUse, HostError, Need, NoRoom, Promise};
use vm_manager::image::Image;
use vm_manager::machine::{Machine, MachineSpec, Origin, Restored};
use vm_manager::ssh::Guest;
use vm_manager::template::Template;

use super::prefetch::{Ahead, Waiting};
use super::{WAITING_PROGRESS, host_failure};
use crate::events::{EventLog, ReceiverGone};
use crate::job::TryError;
use crate::record::Recorder;
use crate::templates::{self, NoTemplate, Ready, Shape, TemplateSettings, Templates};

/// A job's machine.
pub(crate) struct Started {
    pub(crate) machine: Machine,
    /// What it was started from.
    pub(crate) image: Arc<Image>,
    /// The first connection into a clone, which is ready already.
    pub(crate) guest: Option<Guest>,
}

/// The start of a job's machine.
pub(super) struct Starting<'a> {
    pub(super) request: &'a JobRequest,
    pub(super) record: &'a Recorder,
    pub(super) shape: &'a Shape<'a>,
    /// Clones that were restored while their jobs were being claimed.
    pub(super) waiting: &'a Waiting,
}

impl Starting<'_> {
    /// Starts it as soon as there is room. What fails about templates is a line in the log.
    pub(super) async fn start(
        &self,
        settings: Option<&TemplateSettings>,
        log: &mut EventLog,
    ) -> Result<(Machine, Option<Guest>), TryError> {
        let mut promise = None;
        if let Some(settings) = settings {
            match Templates::of(self.shape, settings).await {
                Ok(None) => {}
                Ok(Some(templates)) => match self.clone(&templates, &mut promise, log).await? {
                    Ok(ready) => return Ok((ready.machine, Some(ready.guest))),
                    Err(error) => without(&error, log).await?,
                },
                Err(error) => without(&error, log).await?,
            }
        }
        let promise = match promise {
            Some(promise) => promise,
            None => self.room(None, log).await?,
        };
        let spec = self.spec(Origin::Boot, promise, log).await?;
        let started = Machine::start(self.shape.instance, spec).await;
        Ok((started.map_err(|error| error.infrastructure())?, None))
    }

    /// A clone. The room that was promised stays where no clone was started.
    async fn clone(
        &self,
        templates: &Templates<'_>,
        promise: &mut Option<Promise>,
        log: &mut EventLog,
    ) -> Result<Result<Ready, NoTemplate>, TryError> {
        let envelope = &self.request.envelope;
        let begun;
        let (template, started) = match self.waiting.take(envelope, templates.key()).await {
            Some(Ahead { template, clone, .. }) => {
                self.begin(clone.id(), true, log).await?;
                begun = Instant::now();
                (template, templates::go_on(clone, &self.hostname()).await)
            }
            None => {
                let (template, room) = match self.template(templates, promise, log).await? {
                    Ok(found) => found,
                    Err(error) => return Ok(Err(error)),
                };
                let spec = self.spec(Origin::Clone(Arc::clone(&template)), room, log).await?;
                begun = Instant::now();
                let clone = Restored::new(self.shape.instance, spec).await;
                let started = match clone {
                    Ok(clone) => templates::go_on(clone, &self.hostname()).await,
                    Err(error) => Err(error.into()),
                };
                (template, started)
            }
        };
        match &started {
            Ok(_) => {
                template.note_good_clone();
                self.record.phase_took(Phase::Boot, begun.elapsed());
            }
            Err(error) => templates.note_failed_clone(&template, error),
        }
        Ok(started)
    }

    /// A template, and room for a machine that starts from it.
    async fn template(
        &self,
        templates: &Templates<'_>,
        promise: &mut Option<Promise>,
        log: &mut EventLog,
    ) -> Result<Result<(Arc<Template>, Promise), NoTemplate>, TryError> {
        // Room may come late, and templates may go meanwhile.
        while let Some(found) = templates.find().transpose() {
            let template = match found {
                Ok(template) => template,
                Err(error) => return Ok(Err(error)),
            };
            let room = self.room(template.expected_use(), log).await?;
            if matches!(templates.find(), Ok(Some(_))) {
                return Ok(Ok((template, room)));
            }
        }
        let room = self.room(None, log).await?;
        if let Some(error) = templates.failure() {
            *promise = Some(room);
            return Ok(Err(error));
        }
        self.make(templates, room, log).await
    }

    async fn make(
        &self,
        templates: &Templates<'_>,
        room: Promise,
        log: &mut EventLog,
    ) -> Result<Result<(Arc<Template>, Promise), NoTemplate>, TryError> {
        let (sender, mut news) = mpsc::channel(WAITING_PROGRESS);
        let report = move |text: &'static str| sender.try_send(text).unwrap_or_default();
        let make = templates.make(room, &report);
        // Beside the work, which must not wait for a slow receiver of the events.
        let tell = async {
            while let Some(text) = news.recv().await {
                log.notice(text).await?;
            }
            std::future::pending::<Result<(), ReceiverGone>>().await
        };
        tokio::select! {
            made = make => Ok(made),
            Err(gone) = tell => Err(gone.into()),
        }
    }

    /// Waits for room, and says so in the log if there is none at once.
    async fn room(&self, clone: Option<CloneUse>, log: &mut EventLog) -> Result<Promise, TryError> {
        let Shape { instance, cpus, memory, .. } = *self.shape;
        let need = Need { memory, cpus, clone };
        let mut promise = instance.reserve(&need);
        if matches!(promise, Err(HostError::NoRoom(NoRoom::Now { .. }))) {
            // Whoever has been claimed comes before those that are about to be.
            self.waiting.remove(true).await;
            promise = instance.reserve(&need);
        }
        match promise {
            Err(HostError::NoRoom(waiting @ NoRoom::Now { .. })) => {
                log.phase(Phase::Queue, Some(waiting.to_string())).await?;
            }
            promise => return Ok(promise.map_err(|error| host_failure(&error))?),
        }
        let queued = self.request.envelope.deadlines.queued;
        let promise = timeout(queued, instance.wait_for_room(&need)).await.map_err(|_| {
            let hours = queued.as_secs() / 3600;
            let message = format!("no room for a machine with {memory} of memory in {hours} hours");
            Infrastructure::new(Cause::HostMemory, message)
        })?;
        Ok(promise.map_err(|error| host_failure(&error))?)
    }

    async fn spec(
        &self,
        origin: Origin,
        promise: Promise,
        log: &mut EventLog,
    ) -> Result<MachineSpec, TryError> {
        self.begin(promise.vm(), matches!(origin, Origin::Clone(_)), log).await?;
        Ok(MachineSpec {
            adoptable: self.record.is_durable(),
            ..self.shape.spec(&self.hostname(), origin, promise)
        })
    }

    /// Says that a machine starts, before it does.
    async fn begin(&self, vm: VmId, is_clone: bool, log: &mut EventLog) -> Result<(), TryError> {
        let Shape { image, cpus, memory, .. } = *self.shape;
        let from = if is_clone { ", from its template" } else { "" };
        let label = &image.entry.label;
        let detail = format!("{label} with {cpus} CPU and {memory} of memory{from}");
        log.phase(Phase::Boot, Some(detail)).await?;
        self.record.attach_vm(vm).await?;
        Ok(())
    }

    fn hostname(&self) -> String {
        format!("solstice-{}", self.request.envelope.job.short())
    }
}

/// Says that there is no clone.
async fn without(error: &NoTemplate, log: &mut EventLog) -> Result<(), TryError> {
    crate::metrics::error("template");
    log.notice(&format!("No template can be used, so the machine boots: {error}")).await?;
    Ok(())
}

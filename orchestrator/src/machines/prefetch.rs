//! Clones that are restored while their jobs are still being claimed.
//!
//! A restored clone stands still and is nobody's: it becomes a machine when its job has it. One that
//! no job comes for is removed after a while, and its room is given back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::request::{Envelope, MachineSize};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use vm_manager::host::Need;
use vm_manager::image::Entry;
use vm_manager::machine::{MachineSpec, Origin, Restored};
use vm_manager::template::{Template, TemplateKey};

use super::Machines;
use crate::program;
use crate::templates::{Shape, Templates};

/// How long a clone waits for its job.
const PATIENCE: Duration = Duration::from_secs(15);
/// So many wait at most.
const MOST: usize = 4;

/// The clones that wait for their jobs, and those that are being restored.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Vec<One>>);

#[derive(Debug)]
struct One {
    label: String,
    size: MachineSize,
    since: Instant,
    clone: AbortOnDropHandle<Option<Ahead>>,
}

/// A clone that was restored ahead of its job.
#[derive(Debug)]
pub(super) struct Ahead {
    key: TemplateKey,
    pub(super) template: Arc<Template>,
    pub(super) clone: Restored,
}

impl Waiting {
    fn all(&self) -> MutexGuard<'_, Vec<One>> {
        // The list is whole at every moment, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A clone of this template, if one waits or is about to.
    pub(super) async fn take(&self, envelope: &Envelope, key: &TemplateKey) -> Option<Ahead> {
        let one = {
            let mut all = self.all();
            let same = |one: &One| one.label == envelope.label && one.size == envelope.size;
            let found = all.iter().position(same)?;
            all.remove(found)
        };
        let ahead = one.clone.await.ok()??;
        if ahead.key == *key {
            tracing::debug!(vm.id = %ahead.clone.id(), "the job of a waiting clone has come");
            return Some(ahead);
        }
        remove(vec![ahead]).await;
        None
    }

    /// Removes clones that no job came for in time, or all.
    pub(super) async fn remove(&self, whole: bool) {
        let mut clones = Vec::new();
        for one in self.left(whole) {
            clones.extend(one.clone.await.ok().flatten());
        }
        if !clones.is_empty() {
            remove(clones).await;
        }
    }

    fn left(&self, whole: bool) -> Vec<One> {
        let old = |one: &mut One| whole || one.since.elapsed() >= PATIENCE;
        self.all().extract_if(.., old).collect()
    }
}

/// Ending a process blocks.
async fn remove(clones: Vec<Ahead>) {
    drop(tokio::task::spawn_blocking(move || drop(clones)).await);
}

impl Machines {
    /// Restores a clone for a job that is about to be claimed, if there is a template and room for it
    /// at once. What fails here fails again, and is told, when the job has it.
    pub(crate) fn prefetch(self: &Arc<Self>, envelope: &Envelope) {
        if self.settings.templates.is_none() {
            return;
        }
        let mut all = self.waiting.all();
        if all.len() >= MOST {
            return;
        }
        let (machines, label) = (Arc::clone(self), envelope.label.clone());
        let size = envelope.size;
        let restore = async move {
            let entry = machines.image(&label).ok()?;
            machines.restore_ahead(&entry, size).await
        };
        let clone = AbortOnDropHandle::new(tokio::spawn(restore));
        all.push(One { label: envelope.label.clone(), size, since: Instant::now(), clone });
        drop(all);
        let machines = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            if let Some(machines) = machines.upgrade() {
                machines.waiting.remove(false).await;
            }
        });
    }

    async fn restore_ahead(&self, entry: &Arc<Entry>, size: MachineSize) -> Option<Ahead> {
        let settings = self.settings.templates.as_ref()?;
        let image = Arc::new(self.images().ok()?.find(entry).ok()??);
        let instance = self.instance().await.ok()?;
        let programs = &self.settings.guest_programs;
        let program = program::find(programs, &entry.runner_os, &entry.runner_arch).ok()?;
        let cpus = size.cpus.unwrap_or(entry.cpus);
        let memory = size.memory.unwrap_or(entry.memory);
        let shape = Shape { instance: &instance, image: &image, cpus, memory, program: &program };
        let templates = Templates::of(&shape, settings).await.ok()??;
        let template = templates.find().ok()??;
        let need = Need { memory, cpus, clone: template.expected_use() };
        let promise = instance.reserve(&need).ok()?;
        // The name is given when the job has it.
        let spec = shape.spec("solstice", Origin::Clone(Arc::clone(&template)), promise);
        let spec = MachineSpec { adoptable: self.service.is_some(), ..spec };
        let clone = Restored::new(&instance, spec).await.ok()?;
        tracing::debug!(vm.id = %clone.id(), label = entry.label, "a restored clone waits for its job");
        Some(Ahead { key: templates.key().clone(), template, clone })
    }
}

//! Clones that are restored while their jobs are still being claimed.
//!
//! A restored clone stands still and is nobody's: it becomes a machine when its job has it. One that
//! no job comes for is removed after a while, and its room is given back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::size::ByteSize;
use tokio::time::Instant;
use vm_manager::host::Need;
use vm_manager::machine::{MachineSpec, Origin, Restored};
use vm_manager::template::{Template, TemplateKey};

use super::Machines;
use crate::program;
use crate::templates::{Shape, Templates};

/// How long a clone waits for its job.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// So many wait at most.
const MOST: usize = 4;

/// The clones that wait for their jobs.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Vec<One>>);

#[derive(Debug)]
struct One {
    key: TemplateKey,
    template: Arc<Template>,
    since: Instant,
    clone: Restored,
}

impl Waiting {
    fn all(&self) -> MutexGuard<'_, Vec<One>> {
        // The list is whole at every moment, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A clone of this template, if one waits.
    pub(super) fn take(&self, key: &TemplateKey) -> Option<(Arc<Template>, Restored)> {
        let mut all = self.all();
        let found = all.iter().position(|one| one.key == *key)?;
        let One { template, clone, .. } = all.remove(found);
        Some((template, clone))
    }

    /// Those for which no job came in time, or all.
    pub(super) fn remove(&self, whole: bool) -> Vec<Restored> {
        let old = |one: &mut One| whole || one.since.elapsed() >= PATIENCE;
        self.all().extract_if(.., old).map(|one| one.clone).collect()
    }
}

impl Machines {
    /// Restores a clone for a job that is about to be claimed, if there is a template and room for it
    /// at once. What fails here fails again, and is told, when the job has it.
    pub(crate) async fn prefetch(&self, label: &str, size: (Option<u32>, Option<ByteSize>)) {
        if self.waiting.all().len() >= MOST {
            return;
        }
        if let Some(one) = self.restore_ahead(label, size).await {
            self.waiting.all().push(one);
            tokio::time::sleep(PATIENCE).await;
            self.remove_waiting(false).await;
        }
    }

    /// Removes clones that no job came for.
    pub(super) async fn remove_waiting(&self, whole: bool) {
        let left = self.waiting.remove(whole);
        if !left.is_empty() {
            // Ending a process blocks.
            drop(tokio::task::spawn_blocking(move || drop(left)).await);
        }
    }

    async fn restore_ahead(
        &self,
        label: &str,
        (cpus, memory): (Option<u32>, Option<ByteSize>),
    ) -> Option<One> {
        let settings = self.settings.templates.as_ref()?;
        let entry = self.image(label).ok()?;
        let image = Arc::new(self.images().ok()?.find(&entry).ok()??);
        let instance = self.instance().await.ok()?;
        let programs = &self.settings.guest_programs;
        let program = program::find(programs, &entry.runner_os, &entry.runner_arch).ok()?;
        let (cpus, memory) = (cpus.unwrap_or(entry.cpus), memory.unwrap_or(entry.memory));
        let shape = Shape { instance: &instance, image: &image, cpus, memory, program: &program };
        let templates = Templates::of(&shape, settings).await.ok()??;
        let template = templates.find().ok()??;
        let need = Need { memory, cpus, clone: template.expected_use() };
        let promise = instance.reserve(&need).ok()?;
        // The name is given when the job has it.
        let spec = shape.spec("solstice", Origin::Clone(Arc::clone(&template)), promise);
        let spec = MachineSpec { adoptable: self.service.is_some(), ..spec };
        let clone = Restored::new(&instance, spec).await.ok()?;
        Some(One { key: templates.key().clone(), template, since: Instant::now(), clone })
    }
}
